"""Experiments one after the other: a list of configs, a process for each, and what became of them."""
