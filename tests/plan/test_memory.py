"""The estimate of memory, beside what torch really keeps."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ganeum.config.schema import Config, Model, Train
from ganeum.models import checkpointing, cpu_attention
from ganeum.models.gpt import GPT, padded_vocab_size
from ganeum.plan import parameters
from ganeum.plan.memory import first_estimate as memory
from ganeum.plan.memory.first_estimate import Memory
from ganeum.step import optimizers
from ganeum.step.eight_bit import AdamW8bit
from ganeum.step.optimizer_step import default_loss_chunk
from ganeum.step.rules import SGD, Adafactor, AdamW


def kept_bytes(model: Model, *, half: bool, sequences: int = 2, mode: Any = "none") -> int:
    """What autograd keeps of a forward pass for the backward pass, the model's own weights left out."""
    built = GPT(model)
    checkpointing.apply(built.blocks, mode)
    weights = {p.untyped_storage().data_ptr() for p in (*built.parameters(), *built.buffers())}
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


SHAPES = {
    "gpt2": {"n_head": 2, "n_embd": 64, "vocab_size": 128},
    "modern": {"style": "modern", "n_head": 4, "n_kv_head": 2, "head_dim": 32, "n_embd": 64, "vocab_size": 128},
}


def measured(half: bool, mode: Any = "none", sequences: int = 2, **shape: Any) -> tuple[float, Model]:
    """Bytes that one layer more keeps of one token; autocast's copies of its matrices count as weights."""
    one, three = (kept_bytes(Model(n_layer=layers, **shape), half=half, mode=mode) for layers in (1, 3))
    model = Model(n_layer=1, **shape)
    copies = 2 * sum(rows * columns for rows, columns in parameters.block_matrices(model).values()) if half else 0
    return ((three - one) / 2 - copies) / (sequences * model.block_size), model


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("block_size", [32, 128, 256, 1088])
@pytest.mark.parametrize("style", ["gpt2", "modern"])
def test_a_layer_keeps_what_the_formula_says(style: str, block_size: int, dropout: float, half: bool) -> None:
    """One layer more keeps exactly the bytes of the closed form on a CPU, in fp32 and under autocast, with dropout and
    without, with the CPU's own attention (up to 1,024 tokens) and with torch's; `modern` with dropout within 6 %,
    where torch's plain attention repeats shared keys and values."""
    kept, model = measured(half, block_size=block_size, dropout=dropout, **SHAPES[style])
    allowed = 0.06 if style == "modern" and dropout else 0.01
    assert kept == pytest.approx(memory.layer_bytes(model, kind="cpu", half=half), rel=allowed)


@pytest.mark.parametrize("style", ["gpt2", "modern"])
@pytest.mark.parametrize("mode", ["selective", "whole"])
def test_what_is_computed_again_is_not_kept(style: str, mode: Any) -> None:
    """Under activation checkpointing a layer keeps the bytes of the closed form."""
    kept, model = measured(False, mode, block_size=128, **SHAPES[style])
    train = Train(activation_checkpointing=mode)
    assert kept == pytest.approx(memory.kept_bytes(model, train, kind="cpu", half=False), rel=0.01)


def test_a_gpus_dropout_costs_two_bytes() -> None:
    """On a GPU the two masks of a layer are bytes, and fused attention keeps no T × T weights."""
    with_dropout, without = (
        memory.layer_bytes(Model(n_embd=384, block_size=4096, dropout=p), kind="cuda", half=True) for p in (0.1, 0.0)
    )
    assert (2 * 384, 36 * 384 + 16) == (with_dropout - without, without)


def needed(precision: str = "fp32", **train: Any) -> Memory:
    """GPT-2 small's, one sequence at once on a GPU."""
    model = Model(n_layer=12, n_head=12, n_embd=768, block_size=1024, bias=True, vocab_size=50_257)
    config = Config(model=model, train=Train(**train))
    return memory.training(config, kind="cuda", micro_batch_size=1, precision=precision, loss_chunk=512)


@pytest.mark.parametrize(
    ("train", "bytes_each"),
    [
        ({"optimizer": "sgd"}, 4),
        ({"optimizer": "sgd", "momentum": 0.0}, 0),
        ({"optimizer": "adafactor"}, 0),
        ({"optimizer": "adamw8bit"}, 2 + 8 / 256),
        ({"optimizer_offload": True}, 0),
    ],
)
def test_each_optimizers_state(train: dict[str, Any], bytes_each: float) -> None:
    """Bytes a parameter on the device."""
    assert needed(**train).optimizer == bytes_each * 124_439_808


def test_muon_halves_the_state_of_the_matrices() -> None:
    """12 blocks of 12 · 768² weights take 4 bytes each, the rest 8."""
    matrices = 12 * 12 * 768**2
    assert needed(optimizer="muon").optimizer == 4 * matrices + 8 * (124_439_808 - matrices)


def test_weights_in_bf16_halve_weights_and_gradients() -> None:
    """2 bytes each, and autocast makes no copies."""
    found = needed("bf16", weights="bf16")
    assert (found.weights, found.gradients) == (2 * 124_439_808, 2 * 124_439_808)


PIECE = 1 << 16  # weights


@pytest.mark.parametrize(
    ("kind", "keys", "shape", "numbers"),
    [
        ("adamw", {"weights": "bf16"}, (PIECE,), 7),
        ("adamw8bit", {"weights": "fp32"}, (PIECE,), 8),
        ("adamw8bit", {"weights": "bf16"}, (PIECE,), memory.UPDATE),
        ("sgd", {"weights": "bf16"}, (PIECE,), 5),
        ("adafactor", {"weights": "bf16"}, (256, 256), 8),
    ],
)
def test_an_update_allocates_no_more_than_the_estimate(
    kind: str, keys: dict[str, Any], shape: tuple[int, ...], numbers: float
) -> None:
    """The most that torch's allocator gave out at one time during an update, in fp32 numbers for each weight of a
    piece: gradient, weight, unpacked and new state, and what lies between."""
    if kind == "adamw8bit":
        pytest.importorskip("torchao")
    rules = {
        "adamw": lambda: AdamW(0.9, 0.95),
        "adamw8bit": lambda: AdamW8bit(0.9, 0.95),
        "sgd": lambda: SGD(0.9),
        "adafactor": Adafactor,
    }
    weight = nn.Parameter(torch.randn(shape).to(torch.bfloat16 if keys["weights"] == "bf16" else torch.float32))
    weight.grad = torch.randn(shape).to(weight.dtype)
    part = optimizers.Ruled(rules[kind](), [optimizers.Piece("w", ((weight, None),), 1.0, 0.1)], offload=False)
    divisor, good = torch.tensor(1.0), torch.tensor(False)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled, torch.no_grad():
        part.step(1e-3, divisor, good)
    assert profiled.profiler is not None
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    given = itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    assert max(given) / 4 / PIECE == pytest.approx(numbers, abs=0.1)
    assert numbers <= memory.UPDATE


@pytest.mark.parametrize(
    ("train", "more"),
    [({}, 0), ({"optimizer": "adamw8bit"}, 16), ({"lora": {"rank": 8}}, 64)],
)
def test_the_libraries_of_an_extra_are_counted_on_a_cpu(train: dict[str, Any], more: int) -> None:
    """In MiB; on a GPU their code lies elsewhere."""
    found = memory.framework_bytes(Train(**train), "cpu") - memory.framework_bytes(Train(), "cpu")
    assert (found, memory.framework_bytes(Train(**train), "cuda")) == (more * 2**20, 0)


def test_states_take_sixteen_bytes_a_parameter() -> None:
    """In fp32, AdamW's states are 16 bytes a parameter: weight, gradient and two moments of 4 (Rajbhandari et al.
    2020, ZeRO, section 3.1, without the fp16 copies)."""
    found = needed()
    assert found.weights + found.gradients + found.optimizer == 16 * 124_439_808


def test_numbers_kept_in_two_places() -> None:
    """What the model and the step say about padding, attention and the loss is what the estimate takes."""
    assert padded_vocab_size(1) == memory.VOCAB_MULTIPLE
    assert (optimizers.PIECE, optimizers.STACK) == (memory.PIECE, memory.STACK)
    assert (cpu_attention.LONGEST, cpu_attention.BLOCK) == (memory.CPU_KEEPS_WEIGHTS, memory.CPU_BLOCK)
    assert {kind: default_loss_chunk(torch.device(kind)) for kind in memory.LOSS_CHUNK} == memory.LOSS_CHUNK
