"""From a config to a network, and how many parameters it has."""

from __future__ import annotations

from ganeum.config.schema import Model
from ganeum.models.gpt import GPT


def build(config: Model) -> GPT:
    """The network of `config`, freshly initialised on the CPU in fp32 from torch's global random state.

    `config.vocab_size` must be a number: whoever knows the data resolves `auto` before.
    """
    return GPT(config)


def parameter_count(model: GPT) -> int:
    """Parameters that mean something: tied ones once, the rows that pad the vocabulary not at all.

    GPT-2 small: 124,439,808; the same untied, without QKV bias, with 32 positions: 162,247,680.
    """
    stored = sum(parameter.numel() for parameter in model.parameters())  # named once, tied or not
    padding = model.token_embedding.weight.size(0) - model.vocab_size
    tables = 1 if model.config.tie_embeddings else 2
    return stored - tables * padding * model.config.n_embd
