"""One optimizer step: precision, loss, micro-batches, clipping, the optimizer."""
