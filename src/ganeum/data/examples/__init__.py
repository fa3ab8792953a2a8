"""Examples: pairs or single texts → tokens in a memory-mapped cache → batches that waste little on padding."""
