"""The queue: which runs are wanted, when and where they start, and what became of them, whatever dies meanwhile."""
