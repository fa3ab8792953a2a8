"""A plan written out as what other programs read: each takes a config and its plan, and gives text."""

from collections.abc import Callable, Mapping
from typing import Any

from ganeum.config.schema import Config
from ganeum.plan.emit.deepspeed_json import deepspeed
from ganeum.plan.emit.ganeum_yaml import ganeum
from ganeum.plan.emit.training_arguments import hugging_face

FORMS: dict[str, Callable[[Config, Mapping[str, Any]], str]] = {
    "ganeum": ganeum,
    "hf": hugging_face,
    "deepspeed": deepspeed,
}

__all__ = ["FORMS", "deepspeed", "ganeum", "hugging_face"]
