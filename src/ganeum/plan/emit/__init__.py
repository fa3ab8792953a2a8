"""A plan written out as what other programs read: each takes a config and its plan, and gives text."""

from ganeum.plan.emit.deepspeed_json import deepspeed
from ganeum.plan.emit.ganeum_yaml import ganeum
from ganeum.plan.emit.training_arguments import hugging_face

FORMS = {"ganeum": ganeum, "hf": hugging_face, "deepspeed": deepspeed}

__all__ = ["FORMS", "deepspeed", "ganeum", "hugging_face"]
