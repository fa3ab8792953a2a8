"""mup: nothing changes at the base size, and what a step changes stays the same as width and depth grow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ganeum.config.schema import Model, Train
from ganeum.data.batch import WindowBatch
from ganeum.models.gpt import GPT
from ganeum.step import parametrization
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.step.parametrization import Scale, scale

MUP = Train(parametrization="mup", batch_size=64)


def shaped(n_layer: int = 4, n_embd: int = 256, **keys: Any) -> Model:
    return Model(n_layer=n_layer, n_head=n_embd // 32, n_embd=n_embd, **({"block_size": 256} | keys))


def test_at_the_base_size_it_is_the_standard() -> None:
    """256 wide, 4 deep, 64 × 256 tokens in a batch: every multiplier is 1, for every optimizer."""
    model = shaped(bias=True, vocab_size=100)
    for optimizer in ("adamw", "muon", "adamw8bit"):
        train = MUP.model_copy(update={"optimizer": optimizer})
        for name, parameter in GPT(model).named_parameters():
            assert scale(name, tuple(parameter.shape), model, train) == Scale(1.0, 1.0, 1.0), name


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("token_embedding.weight", (100, 1_024), Scale(1.0, 2.0, 2.0)),
        ("head.weight", (100, 1_024), Scale(1.0, 2.0, 2.0)),
        ("blocks.0.norm_1.weight", (1_024,), Scale(1.0, 2.0, 2.0)),
        ("blocks.0.attention.qkv.weight", (3_072, 1_024), Scale(1 / 2, 2 / 4, 2 * 4)),
        ("blocks.0.attention.qkv.bias", (3_072,), Scale(1.0, 2.0, 2.0)),
        ("blocks.0.attention.out.weight", (1_024, 1_024), Scale(1 / 6, 2 / 36, 2 * 36)),
        ("blocks.0.mlp.down.weight", (1_024, 4_096), Scale(1 / 6, 2 / 36, 2 * 36)),
        ("blocks.0.mlp.down.bias", (1_024,), Scale(1.0, 2 / 9, 2.0)),
        ("norm.weight", (1_024,), Scale(1 / 4, 2 / 4, 2.0)),
    ],
)
def test_the_table_by_hand(name: str, shape: tuple[int, ...], expected: Scale) -> None:
    """Four times as wide (m = 4), nine times as deep (l = 9), four times the batch (√b = 2): Tensor Programs V, table 8
    and CompleteP, table 1 with their multipliers folded into the weights."""
    found = scale(name, shape, shaped(n_layer=36, n_embd=1_024), Train(parametrization="mup", batch_size=256))
    assert (found.init, found.rate, found.decay) == pytest.approx((expected.init, expected.rate, expected.decay))


def test_muons_rate_falls_by_the_root_of_the_width() -> None:
    """Its own factor, 0.2 √(longer side), is twice as large at four times the width; the spectral norm shall not be."""
    model, train = shaped(n_embd=1_024), MUP.model_copy(update={"optimizer": "muon"})
    assert scale("blocks.0.mlp.up.weight", (4_096, 1_024), model, train) == Scale(1 / 2, 1 / 2, 2.0)
    assert scale("token_embedding.weight", (100, 1_024), model, train) == Scale(1.0, 1.0, 1.0)


def test_the_standard_leaves_the_weights_alone() -> None:
    """Bit for bit; mup divides the standard deviations: at four times the width by two, and the last norm by four."""
    model = shaped(n_layer=4, n_embd=1_024, vocab_size=64, block_size=8)
    torch.manual_seed(0)
    net = GPT(model)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    parametrization.initialise(net, model, Train())
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)
    parametrization.initialise(net, model, MUP)
    assert net.blocks[1].mlp.up.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert torch.equal(net.norm.weight, torch.full((1_024,), 0.25))
    assert torch.equal(net.token_embedding.weight, before["token_embedding.weight"])


def changes(n_layer: int, n_embd: int, kind: Any, optimizer: Any, style: Any) -> dict[str, float]:
    """Root mean square of how far four steps move the last block's output and the logits, on the batch they are
    trained on; the coordinate check of Tensor Programs V, appendix D.1."""
    model = shaped(n_layer, n_embd, block_size=32, vocab_size=70, style=style)
    train = Train(batch_size=16, parametrization=kind, optimizer=optimizer)
    torch.manual_seed(0)
    net = GPT(model)
    parametrization.initialise(net, model, train)
    step = OptimizerStep(net, train, "cpu")
    tokens = torch.randint(70, (16, 33), generator=torch.Generator().manual_seed(0))
    x, y = tokens[:, :-1], tokens[:, 1:]
    seen: dict[str, Tensor] = {}
    net.blocks[-1].register_forward_hook(lambda module, inputs, output: seen.__setitem__("stream", output.detach()))

    def look() -> dict[str, Tensor]:
        with torch.no_grad():
            return {"logits": net(x), "stream": seen["stream"]}

    first = look()
    rate = 4e-3 if kind == "mup" else 4e-3 / 32**0.5  # the batch has a 32nd of the base's tokens: the same at m = l = 1
    for n in range(4):
        step.on(WindowBatch(x, y), step=n, learning_rate=rate)
    return {name: (value - first[name]).square().mean().sqrt().item() for name, value in look().items()}


@pytest.mark.parametrize("widths", [(64, 256), pytest.param((64, 128, 256, 512), marks=pytest.mark.campaign)])
@pytest.mark.parametrize(("optimizer", "style"), [("adamw", "gpt2"), ("muon", "gpt2"), ("muon", "modern")])
def test_what_a_step_changes_does_not_grow_with_the_width(optimizer: Any, style: Any, widths: tuple[int, ...]) -> None:
    """The stream and the logits move as far within a factor of 2 under mup; under the standard the stream moves 2.5
    times as far at four times the width, 4 times at eight times."""
    mup, standard = ([changes(2, width, kind, optimizer, style) for width in widths] for kind in ("mup", "standard"))
    for name in ("stream", "logits"):
        sizes = [found[name] for found in mup]
        assert max(sizes) / min(sizes) < 2, (name, sizes)
    assert standard[-1]["stream"] / standard[0]["stream"] > (4 if widths[-1] == 512 else 2.5)


@pytest.mark.parametrize("depths", [(2, 8), pytest.param((2, 4, 8, 16), marks=pytest.mark.campaign)])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_a_step_changes_does_not_grow_with_the_depth(optimizer: Any, depths: tuple[int, ...]) -> None:
    """Within a factor of 1.5 under mup; under the standard the stream moves half as far again at four times the depth,
    twice as far at eight times."""
    mup, standard = ([changes(depth, 64, kind, optimizer, "gpt2") for depth in depths] for kind in ("mup", "standard"))
    for name in ("stream", "logits"):
        sizes = [found[name] for found in mup]
        assert max(sizes) / min(sizes) < (2 if depths[-1] == 16 else 1.5), (name, sizes)
    assert standard[-1]["stream"] / standard[0]["stream"] > (2 if depths[-1] == 16 else 1.5)
