"""From a config to a network: a GPT of ours, or the one that ``model.source`` names."""

from __future__ import annotations

from ganeum.config.schema import Model
from ganeum.models.gpt import GPT
from ganeum.models.network import Network


def build(config: Model, *, empty: bool = False) -> Network:
    """The network of `config` on the CPU in fp32; what is freshly initialised comes from torch's global random state.

    ``empty``: an adopted model's weights are whatever lies in memory, until they are loaded.

    Without a source `config.vocab_size` must be a number: whoever knows the data resolves `auto` before.
    """
    if config.source is not None:
        from ganeum.models.pretrained import adopt

        return adopt(config.source, fresh=config.fresh, dropout=config.dropout, empty=empty)
    return GPT(config)
