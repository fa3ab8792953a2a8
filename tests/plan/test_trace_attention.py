"""Which attention kernel a card runs, and what kernels take for themselves: against torch's rules, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ganeum.hardware.card import card
from ganeum.hardware.machine import nvidia
from ganeum.plan.trace.attention import choose
from ganeum.plan.trace.events import Allocation
from ganeum.plan.trace.fake_cuda import Card, self_test
from ganeum.plan.trace.step import stage, strict
from ganeum.plan.trace.workspaces import Workspaces

aten = torch.ops.aten
A100, V100, RTX3090, H100 = (
    Card.of(card(name)) for name in ("A100 PCIe 40GB", "V100 PCIe 16GB", "RTX 3090", "H100 PCIe")
)
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def test_cards_of_one_name_are_told_apart_by_their_memory() -> None:
    """As the driver names them; the second of two in a machine is itself, too."""
    found = [Card.of(nvidia("NVIDIA GeForce RTX 3080", gib, 8, (8, 6), 1)) for gib in (9.77, 11.77)]
    assert [68, 70] == [one.multiprocessors for one in found]


def heads(dtype: torch.dtype = BF16, size: int = 64, tokens: int = 128, heads: int = 4, **more: Any) -> Tensor:
    return torch.empty(2, heads, tokens, size, dtype=dtype, device="meta", **more)


@pytest.mark.parametrize(
    ("gpu", "query", "more", "kernel"),
    [
        (A100, heads(), {}, "flash"),
        (A100, heads(FP16), {"causal": True}, "flash"),
        (A100, heads(FP32), {}, "efficient"),
        (A100, heads(), {"mask": heads(size=128)}, "efficient"),
        (A100, heads(size=100), {}, "flash"),  # padded to 104
        (A100, heads(FP32, size=30), {}, "math"),  # no multiple of 4
        (A100, heads(size=320), {}, "efficient"),
        (A100, heads(torch.float64), {}, "math"),
        (V100, heads(FP16), {}, "efficient"),
        (V100, heads(BF16), {}, "math"),
        (V100, heads(FP32, size=33), {}, "efficient"),  # any size, without tensor cores
        (V100, heads(FP16, size=100), {}, "math"),
        (RTX3090, heads(size=256, requires_grad=True), {"dropout": 0.1}, "efficient"),
        (RTX3090, heads(size=256), {"dropout": 0.1}, "flash"),
        (H100, heads(), {}, "cudnn"),
        (H100, heads(), {"dropout": 0.1}, "flash"),  # no multiple of 1/16
        (H100, heads(size=192), {}, "flash"),
    ],
)
def test_the_kernel_that_a_card_runs(gpu: Card, query: Tensor, more: dict[str, Any], kernel: str) -> None:
    """By torch's can_use_flash_attention and its like: V100 has no flash, a mask forbids it, and so on."""
    assert kernel == choose(gpu, query, query, query, **more)


def test_shared_heads_of_keys_are_for_flash() -> None:
    """Two heads of keys for four of queries: flash reads them as they are, the memory-efficient kernel does not."""
    q, k = heads(), heads(heads=2)
    assert choose(A100, q, k, k, grouped=True) == "flash"
    assert choose(A100, heads(FP32), heads(FP32, heads=2), heads(FP32, heads=2), grouped=True) == "math"


def test_switches_hold() -> None:
    """torch.nn.attention.sdpa_kernel, and the older switches, are obeyed; with all of them off torch gives up."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        assert choose(A100, heads(), heads(), heads()) == "math"
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), pytest.raises(RuntimeError, match="No available kernel"):
        choose(A100, heads(FP32), heads(FP32), heads(FP32))


@pytest.mark.parametrize(("name", "operation"), [("A100 PCIe 40GB", "flash"), ("V100 PCIe 16GB", "efficient")])
def test_a_trace_keeps_no_square_on_either_card(name: str, operation: str) -> None:
    """512 tokens: forward and backward pass run the card's kernel, in a recomputation too, and without gradients."""
    import torch.nn.functional as F
    from torch.utils.checkpoint import checkpoint

    device = card(name)
    with stage(device) as scene, scene.recorder as recorder:
        q = torch.empty(1, 2, 512, 64, dtype=FP16, device="cuda", requires_grad=True)
        out: Tensor = checkpoint(F.scaled_dot_product_attention, q, q, q, use_reentrant=False)
        out.sum().backward()  # type: ignore[no-untyped-call]
        with torch.inference_mode():
            F.scaled_dot_product_attention(q, q, q)
    made = [event for event in recorder.events if isinstance(event, Allocation)]
    assert {operation: 3} == scene.attention.used  # type: ignore[union-attr]
    assert {f"aten::_scaled_dot_product_{operation}_attention_backward"} <= {event.operation for event in made}
    assert max(event.bytes for event in made) < 2 * 512 * 512 * 2


def test_the_workspaces_of_flash_attention() -> None:
    """Backward, T = 1,000 rounded up to 1,024, heads of 80 to 96: fp32 sums and one gradient; under a fixed order of
    sums nine, since 108 multiprocessors are shared by 12 heads."""
    q = torch.empty(1, 12, 1_000, 80, dtype=BF16, device="meta").transpose(1, 2).contiguous().transpose(1, 2)
    given: tuple[Any, tuple[Tensor, ...], dict[str, Any]] = (
        aten._scaled_dot_product_flash_attention_backward,
        (q, q, q, q),
        {},
    )
    assert [4 * 12 * 1_024, 4 * 12 * 1_024 * 96] == Workspaces(A100).inside(*given)
    with strict():
        assert [4 * 12 * 1_024, 9 * 4 * 12 * 1_024 * 96] == Workspaces(A100).inside(*given)


def test_the_workspaces_of_memory_efficient_attention() -> None:
    """Backward, T = 100 in blocks of 64: two of them by one of 64 columns, each 64 × 64 numbers and 16 bytes."""
    q = torch.empty(1, 12, 100, 64, dtype=FP16, device="meta")
    packet = aten._scaled_dot_product_efficient_attention_backward
    assert [4 * 12 * 100, 12 * 2 * (64 * 64 * 4 + 16)] == Workspaces(V100).inside(packet, (q, q, q, q), {})
    # In fp32 the product of output and its gradient comes before, and is smaller here.
    q = q.float()
    assert [4 * 12 * 100, 12 * 2 * (64 * 64 * 4 + 16)] == Workspaces(A100).inside(packet, (q, q, q, q), {})


def test_the_workspaces_of_an_embedding() -> None:
    """8,192 tokens of 50,257, 768 wide: sorted indices and places, four lists of segments, and 819 + 8,192 rows."""
    grad, tokens = torch.empty(8, 1_024, 768, device="meta"), torch.empty(8, 1_024, dtype=torch.int64, device="meta")
    found = Workspaces(A100).inside(aten.embedding_dense_backward, (grad, tokens, 50_257, -1, False), {})
    assert 8 * 8_192 * 5 + 8 * 9_011 + 4 * 9_011 * 768 == sum(found)
    assert Workspaces(A100).inside(aten.embedding_dense_backward, (grad, tokens[:3], 50_257, -1, False), {}) == []


def test_the_workspace_of_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own 2 × 4,096 + 8 × 16 KiB, on Hopper 32 MiB; or what the environment says."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert 8_519_680 == Workspaces(A100).matrix_products()
    assert 32 * 2**20 == Workspaces(H100).matrix_products()
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    assert 8 * 4096 * 1024 == Workspaces(A100).matrix_products()


def test_a_fake_gpu_works_and_leaves_nothing_behind() -> None:
    """Also where a backward pass on the CPU came before."""
    torch.ones(1, requires_grad=True).backward()  # type: ignore[no-untyped-call]
    names = ("is_available", "device_count", "get_device_properties", "synchronize")
    before = {name: getattr(torch.cuda, name) for name in names}
    self_test()
    assert before == {name: getattr(torch.cuda, name) for name in names}
    x = torch.ones(3, requires_grad=True)
    q = x.view(1, 1, 1, 3)
    torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
