"""What a model is made of, ours or one of Hugging Face's, as far as arithmetic needs it."""

from ganeum.plan.architecture.configured import of
from ganeum.plan.architecture.hugging_face import FAMILIES, from_config_json
from ganeum.plan.architecture.known import find, is_known
from ganeum.plan.architecture.parts import Architecture, Attention, Block, Linear, Norm, Stream, Table

__all__ = [
    "FAMILIES",
    "Architecture",
    "Attention",
    "Block",
    "Linear",
    "Norm",
    "Stream",
    "Table",
    "find",
    "from_config_json",
    "is_known",
    "of",
]
