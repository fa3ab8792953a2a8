"""Text for many rows: batches sized by the plan, an output that goes on where it was, and what the texts are worth."""
