"""What a training costs and why, measured on the training itself: one cause taken away at a time, by turns."""
