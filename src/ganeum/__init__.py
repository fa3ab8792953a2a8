"""ganeum sizes up, trains, queues and explains language-model runs on the one GPU you have."""

from importlib.metadata import version

__version__ = version("ganeum")
