"""The parts of the modern style: RMSNorm, rotary positions, the cache, and sizes that follow from others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ganeum.config import sizes
from ganeum.config.schema import Model
from ganeum.models import attention, cache, cpu_norm
from ganeum.models.attention import causal
from ganeum.models.cache import Cache
from ganeum.models.cpu_norm import rms_norm
from ganeum.models.gpt import GPT
from ganeum.models.rotary import Rotary, rotate


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rms_norm_is_torchs(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Output and both gradients over several chunks of rows, the last not full, to the precision of the numbers."""
    monkeypatch.setattr(cpu_norm, "IN_CACHE", 50)
    g = torch.Generator().manual_seed(0)
    x, d = (torch.randn(3, 7, 12, generator=g).to(dtype).requires_grad_() for _ in range(2))
    weight = torch.randn(12, generator=g, dtype=torch.promote_types(dtype, torch.float32)).requires_grad_()
    ours, theirs = rms_norm(x, weight, 1e-3), F.rms_norm(x.double(), (12,), weight.double(), 1e-3)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs.to(dtype))
    for mine, expected in zip(
        torch.autograd.grad(ours, (x, weight), d), torch.autograd.grad(theirs, (x, weight), d.double()), strict=True
    ):
        torch.testing.assert_close(mine, expected, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


def test_rms_norms_gradient_is_that_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """gradcheck over several chunks."""
    monkeypatch.setattr(cpu_norm, "IN_CACHE", 30)
    x = torch.randn(2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.linspace(0.5, 2, 8, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-3), (x, weight))


def test_a_rotation_turns_pairs_by_their_angle() -> None:
    """Place 3 turns the pair (1, 0) of the slowest of two speeds, 100^(-1/2), by 0.3; and the fastest by 3."""
    x = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(1, 4, 1, 4)  # pairs are (x0, x2) and (x1, x3)
    y = rotate(x, Rotary(10, 4, theta=100.0)(0, 4))[0, 3, 0]
    torch.testing.assert_close(y, torch.tensor([-0.98999250, 0.95533649, 0.14112001, 0.29552021]))


def test_only_the_distance_counts() -> None:
    """The product of a turned query and a turned key depends on how far apart they stand, not where."""
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    rotary = Rotary(100, 8, theta=50.0)
    at = lambda x, place: rotate(x, rotary(place, place + 1)).flatten()  # noqa: E731
    torch.testing.assert_close(at(q, 7) @ at(k, 3), at(q, 94) @ at(k, 90))


def test_the_angles_are_no_weights_and_stay_exact() -> None:
    """They are in no state dict, stay fp32 in a model cast to bf16, and survive a stay on the meta device."""
    config = Model(style="modern", n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=50)
    model = GPT(config)
    before = model.rotary(0, 8)
    assert not [name for name in model.state_dict() if "rotary" in name]
    assert model.bfloat16().token_embedding.weight.dtype == torch.bfloat16
    with torch.device("meta"):
        empty = GPT(config)
    assert empty.rotary.cos.device.type == "meta"
    for cast in (model, empty.to_empty(device="cpu")):
        assert all(torch.equal(mine, other) for mine, other in zip(cast.rotary(0, 8), before, strict=True))


def test_the_cache_grows_as_it_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds few tokens at first, whatever the context, twice as many when these are not enough, and never more than
    the context; what is in it stays."""
    monkeypatch.setattr(cache, "FIRST", 4)
    config = Model(n_layer=1, block_size=21)
    kept, all_keys = Cache(config), torch.arange(21.0).reshape(1, 1, 21, 1)
    sizes_seen = []
    for length in (3, 1, 1, 4, 8, 4):
        new = all_keys[:, :, kept.length : kept.length + length]
        keys, values = kept.extend(0, new, -new)
        kept.length += length
        assert torch.equal(keys, all_keys[:, :, : kept.length])
        assert torch.equal(values, -keys)
        sizes_seen.append(kept.keys[0].size(2))
    assert sizes_seen == [4, 4, 8, 16, 21, 21]


def test_the_cache_holds_shared_keys_once() -> None:
    """With 4 heads of queries and 1 of keys, a token takes the memory of one head."""
    config = Model(style="modern", n_layer=1, n_head=4, n_kv_head=1, n_embd=32, block_size=16, vocab_size=50)
    kept = Cache(config)
    with torch.no_grad():
        GPT(config).hidden(torch.arange(5)[None], kept)
    assert kept.keys[0].shape == kept.values[0].shape == (1, 1, 16, 8)


@pytest.mark.parametrize(("groups", "in_place"), [(1, True), (3, True), (3, False)])
def test_torchs_attention_takes_shared_keys(monkeypatch: pytest.MonkeyPatch, groups: int, in_place: bool) -> None:
    """Each head of keys serves the heads of queries beside each other, repeated or read in place; one new token sees
    all that is cached."""
    monkeypatch.setattr(attention, "_reads_in_place", lambda q: in_place)
    g = torch.Generator().manual_seed(0)
    q = torch.randn(2, 2 * groups, 5, 4, generator=g)
    k, v = torch.randn(2, 2, 2, 5, 4, generator=g)
    weights = torch.einsum("bkgtd,bksd->bkgts", q.unflatten(1, (2, groups)), k) / 2
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    expected = torch.einsum("bkgts,bksd->bkgtd", weights.masked_fill(future, -torch.inf).softmax(-1), v).flatten(1, 2)
    torch.testing.assert_close(causal(q, k, v, dropout=0.0), expected)
    torch.testing.assert_close(causal(q[:, :, 4:], k, v, dropout=0.0), expected[:, :, 4:])


@pytest.mark.parametrize(
    ("capability", "dtype", "expected"),
    [
        ((7, 0), torch.float16, False),  # V100
        ((7, 5), torch.float16, False),  # T4
        ((8, 6), torch.float32, False),  # RTX 3080
        ((8, 6), torch.bfloat16, True),
        ((9, 0), torch.float16, True),  # H100
    ],
)
def test_keys_are_shared_in_place_where_the_flash_kernel_is(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype, expected: bool
) -> None:
    """It needs an NVIDIA GPU of compute capability 8.0 and numbers of 16 bits (torch's sdp_utils.cpp)."""
    card = SimpleNamespace(major=capability[0], minor=capability[1])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    q: Any = SimpleNamespace(is_cuda=True, dtype=dtype, device="cuda:0")
    assert attention._reads_in_place(q) is expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_gpu_never_needs_the_plain_kernel(dtype: torch.dtype) -> None:
    """Without it every GPU computes shared keys, forward and backward, as the CPU does."""
    q, k, v = (torch.randn(1, heads, 64, 32, requires_grad=True) for heads in (4, 2, 2))
    expected = torch.autograd.grad(causal(q, k, v, dropout=0.0).sum(), (q, k, v))
    there = [x.detach().cuda().to(dtype).requires_grad_() for x in (q, k, v)]
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        found = torch.autograd.grad(causal(*there, dropout=0.0).sum(), there)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.cpu().float(), theirs, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # GPT-2 small: 4 × 768; its published epsilon
        (Model(n_head=12, n_embd=768), (64, 12, (768, 768, 768), 3072, 1e-5)),
        # 8/3 · 768 = 2048, already a multiple of 64
        (Model(style="modern", n_head=12, n_embd=768), (64, 12, (768, 768, 768), 2048, 1e-6)),
        # 8/3 · 512 = 1365.3 → 1408 = 22 · 64
        (Model(style="modern", n_head=8, n_embd=512), (64, 8, (512, 512, 512), 1408, 1e-6)),
        # Qwen3-0.6B's config.json
        (
            Model(style="modern", n_head=16, n_kv_head=8, head_dim=128, n_embd=1024, intermediate_size=3072),
            (128, 8, (2048, 1024, 1024), 3072, 1e-6),
        ),
        (Model(intermediate_size=100, norm_eps=1e-3), (64, 6, (384, 384, 384), 100, 1e-3)),
    ],
)
def test_sizes_that_are_null_follow_from_others(model: Model, expected: tuple[object, ...]) -> None:
    """Width and number of heads, widths of q, k, v, width inside the MLP, epsilon; and `resolved` writes them down."""
    of = sizes.head_dim, sizes.n_kv_head, sizes.qkv_widths, sizes.intermediate_size, sizes.norm_eps
    assert expected == tuple(size(model) for size in of)
    settled = sizes.resolved(model)
    assert expected == tuple(size(settled) for size in of)
    assert (settled.head_dim, settled.n_kv_head, settled.intermediate_size) == (expected[0], expected[1], expected[3])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_computes_the_same(dtype: torch.dtype | None, compiled: bool) -> None:
    """Hidden states and gradients of the modern style on a GPU are those of a CPU in fp32, to the precision's share:
    1e-4 in fp32, 3 % in half."""
    torch.manual_seed(0)
    config = Model(
        style="modern", n_layer=2, n_head=4, n_kv_head=2, head_dim=32, n_embd=64, block_size=128, vocab_size=50
    )
    model, tokens = GPT(config), torch.randint(50, (2, 128))

    def states_and_gradients(device: str) -> tuple[torch.Tensor, torch.Tensor]:
        there = model.to(device)
        hidden = torch.compile(there.hidden) if compiled and device == "cuda" else there.hidden
        with torch.autocast("cuda", dtype or torch.float16, enabled=dtype is not None and device == "cuda"):
            states = hidden(tokens.to(device))
        there.zero_grad()
        states.float().square().mean().backward()
        return states.float().cpu().detach(), there.blocks[0].attention.qkv.weight.grad.float().cpu().clone()

    share = 1e-4 if dtype is None else 0.03
    expected, found = states_and_gradients("cpu"), states_and_gradients("cuda")
    for theirs, mine in zip(expected, found, strict=True):
        assert (mine - theirs).norm() < share * theirs.norm()
