"""The machine: its device, how fast that can be, and whether this torch can use it."""
