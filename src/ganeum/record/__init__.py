"""The run directory: every path in it, atomic writes, metrics, status."""
