"""From a config to a network."""

from __future__ import annotations

from ganeum.config.schema import Model
from ganeum.models.gpt import GPT


def build(config: Model) -> GPT:
    """The network of `config`, freshly initialised on the CPU in fp32 from torch's global random state.

    `config.vocab_size` must be a number: whoever knows the data resolves `auto` before.
    """
    return GPT(config)
