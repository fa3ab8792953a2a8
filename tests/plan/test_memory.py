"""The estimate of memory, beside what torch really keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ganeum.config.schema import Model
from ganeum.models import cpu_attention
from ganeum.models.gpt import GPT, padded_vocab_size
from ganeum.plan import memory, parameters
from ganeum.step.optimizer_step import default_loss_chunk


def kept_bytes(model: Model, *, half: bool, sequences: int = 2) -> int:
    """What autograd keeps of a forward pass for the backward pass, the model's own weights left out."""
    built = GPT(model)
    weights = {p.untyped_storage().data_ptr() for p in built.parameters()}
    kept: dict[int, Tensor] = {}  # the tensors themselves, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.zeros(sequences, model.block_size, dtype=torch.long)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        hidden = built.hidden(tokens)
    assert hidden.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("block_size", [32, 128, 256, 1088])
def test_a_layer_keeps_what_the_formula_says(block_size: int, dropout: float, half: bool) -> None:
    """One layer more keeps exactly the bytes of the closed form on a CPU, in fp32 and under autocast, with dropout and
    without, with the CPU's own attention (up to 1,024 tokens) and with torch's."""
    shape = {"n_head": 2, "n_embd": 64, "block_size": block_size, "vocab_size": 128, "dropout": dropout}
    one, three = (kept_bytes(Model(n_layer=layers, **shape), half=half) for layers in (1, 3))  # type: ignore[arg-type]
    copies = 2 * 12 * 64 * 64 if half else 0  # autocast's copies of a layer's matrices, which count as states
    tokens = 2 * block_size
    expected = memory.layer_bytes(Model(**shape), kind="cpu", half=half)  # type: ignore[arg-type]
    assert ((three - one) / 2 - copies) / tokens == pytest.approx(expected, rel=0.01)


def test_a_gpus_dropout_costs_two_bytes() -> None:
    """On a GPU the two masks of a layer are bytes, and fused attention keeps no T × T weights."""
    with_dropout, without = (
        memory.layer_bytes(Model(n_embd=384, block_size=4096, dropout=p), kind="cuda", half=True) for p in (0.1, 0.0)
    )
    assert (2 * 384, 36 * 384 + 16) == (with_dropout - without, without)


def test_states_take_sixteen_bytes_a_parameter() -> None:
    """In fp32, AdamW's states are 16 bytes a parameter: weight, gradient and two moments of 4 (Rajbhandari et al.
    2020, ZeRO, section 3.1, without the fp16 copies)."""
    model = Model(n_layer=12, n_head=12, n_embd=768, block_size=1024, bias=True)
    counted = parameters.count(model, 50_257)
    found = memory.estimate(model, 50_257, counted, kind="cuda", micro_batch_size=1, precision="fp32", loss_chunk=512)
    assert found.states == 16 * 124_439_808


def test_numbers_kept_in_two_places() -> None:
    """What the model and the step say about padding, attention and the loss is what the estimate takes."""
    assert padded_vocab_size(1) == memory.VOCAB_MULTIPLE
    assert (cpu_attention.LONGEST, cpu_attention.BLOCK) == (memory.CPU_KEEPS_WEIGHTS, memory.CPU_BLOCK)
    assert {kind: default_loss_chunk(torch.device(kind)) for kind in memory.LOSS_CHUNK} == memory.LOSS_CHUNK
