"""Networks: the GPT, other people's weights in and out, text from a model."""
