"""What a model is made of, ours or one of Hugging Face's, as far as arithmetic needs it."""

from ganeum.plan.architecture.parts import Architecture, Attention, Block, Linear, Norm, Stream, Table

__all__ = ["Architecture", "Attention", "Block", "Linear", "Norm", "Stream", "Table"]
