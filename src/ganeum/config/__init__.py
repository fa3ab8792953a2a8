"""What a run is: its keys, how YAML becomes a config, and how a batch is divided."""
