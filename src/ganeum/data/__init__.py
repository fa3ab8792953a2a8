"""Corpora → tokens → files → batches."""
