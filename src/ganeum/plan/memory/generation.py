"""Memory of writing text token by token: the cache of keys and values, the pass over the prompt, the last token.

The cache grows by 2 · kv_heads · head_dim numbers a layer, sequence and token (Shazeer 2019, arXiv 1911.02150, section
2.3, on why that is what generation costs); a decoder that looks across keeps the encoder's tokens so, too. With beams
every hypothesis is a sequence.
"""

from __future__ import annotations

from dataclasses import replace

from ganeum.plan.architecture import Architecture, Attention
from ganeum.plan.execution import Execution
from ganeum.plan.memory import state
from ganeum.plan.memory.decoders import Decoder
from ganeum.plan.memory.graph import Graph
from ganeum.plan.memory.replay import Ledger
from ganeum.plan.memory.t5 import T5

FIRST = 256  # models/cache.py: tokens that our own cache holds at first; it doubles. A test holds the two together


def cache_bytes(architecture: Architecture, execution: Execution, tokens: int | None = None) -> float:
    """The cache when it holds ``tokens`` a sequence; None: at the end, all but the last, which nobody reads."""
    held = execution.length - 1 if tokens is None else tokens
    return sum(
        block.count * _layer(attention, execution, execution.source_length if attention.across else held, architecture)
        for block in architecture.blocks
        if block.stream == "decoder"
        for attention in block.attentions
    )


def fullest(
    architecture: Architecture, execution: Execution, prompt: int | None = None
) -> tuple[dict[str, float], str]:
    """The fullest moment of transformers' ``generate``: bytes by component, and which it is.

    Args:
        prompt: tokens that are there at first; None: all but one, which takes the most. Behind an encoder there is one.

    A cache is extended layer by layer into a new tensor, so that one layer's keys are there twice; the logits of the
    last token are copied to fp32.
    """
    prompt = 1 if architecture.encoder_decoder else prompt or max(1, execution.length - 1)
    ledger = Ledger()
    graph = Graph(ledger, recording=False)
    read = replace(execution, length=prompt)
    model = T5(graph, architecture, read) if architecture.encoder_decoder else Decoder(graph, architecture, read)
    logits = model.loss()
    copied = graph.tensor("logits", logits.numbers, 4.0)
    del logits, copied
    if execution.length - 1 > prompt:
        ledger.moment = "last token"
        grown = graph.tensor(
            "cache", cache_bytes(architecture, execution) - cache_bytes(architecture, execution, prompt), 1.0
        )
        graph.tensor("workspace", _one_more(architecture, execution), 1.0)
        sequences = execution.micro_batch_size * execution.beams
        graph.tensor("logits", sequences * architecture.head.outputs, _wide(execution) + 4.0)
        del grown
    model.forget()
    parts = ledger.fullest | {"weights": state.of(architecture, execution).weights}
    return {name: size for name, size in parts.items() if size}, ledger.at


def _one_more(architecture: Architecture, execution: Execution) -> float:
    """Of one layer the keys that are there twice: its own, and with beams, which change places, the encoder's too."""
    own, *across = architecture.blocks[-1].attentions
    sizes = [_layer(own, execution, execution.length - 1, architecture)]
    if execution.beams > 1:
        sizes += [_layer(attention, execution, execution.source_length, architecture) for attention in across]
    return max(sizes) / 2


def _layer(attention: Attention, execution: Execution, tokens: int, architecture: Architecture) -> float:
    """Keys and values of one layer. Our own cache has room for more than is in it."""
    if architecture.implementation == "ganeum":
        room = FIRST
        while room < tokens:
            room *= 2
        tokens = min(room, architecture.longest or room)
    sequences = execution.micro_batch_size * execution.beams
    return 2.0 * sequences * tokens * attention.keys * _wide(execution)


def _wide(execution: Execution) -> float:
    return 2.0 if execution.half else 4.0
