"""Experiments one after the other."""
