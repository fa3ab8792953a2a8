"""What a run is: its keys, how YAML becomes a config, and how a batch is divided."""

from ganeum.config.load import load, load_stored
from ganeum.config.schema import Config
from ganeum.config.write import to_yaml

__all__ = ["Config", "load", "load_stored", "to_yaml"]
