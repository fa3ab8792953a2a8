"""Attention with a learnt bias on a CPU: torch's own numbers, its own gradients, and dropout that is what it says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ganeum.models import cpu_bias_attention

B, H, T, S, D = 5, 3, 7, 9, 4


def inputs(columns: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries, keys, values as a projection gives them, and the bias as a table's rows turned round."""
    torch.manual_seed(1)
    of = [torch.randn(B, n, H, D, dtype=dtype).transpose(1, 2) for n in (T, columns, columns)]
    return [*(x.requires_grad_() for x in of), torch.randn(T, columns, H, dtype=dtype).permute(2, 0, 1)[None].clone()]


def lengths(columns: int) -> Tensor:
    return (torch.arange(columns)[None] < torch.tensor([columns, 1, 3, 4, 2])[:, None])[:, None, None]


@pytest.mark.parametrize("masked", ["no", "by length", "by pair", "all alike", "causal"])
@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_numbers_and_gradients_are_those_of_torch(masked: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp64, with any number of sequences in the cache at once."""
    columns = T if masked == "causal" else S
    monkeypatch.setattr(
        cpu_bias_attention,
        "_parts",
        lambda sequences, each: [slice(n, min(n + at_once, sequences)) for n in range(0, sequences, at_once)],
    )
    seen = {
        "no": None,
        "by length": lengths(columns),
        "by pair": torch.rand(B, 1, T, columns, generator=torch.Generator().manual_seed(3)) < 0.5,
        "all alike": (torch.arange(columns) % 3 < 2).view(1, 1, 1, columns),
        "causal": torch.ones(T, columns, dtype=torch.bool).tril(),
    }[masked]
    if masked == "by pair":
        seen[..., 0] = True
    found = []
    for way in ("ours", "torch"):
        q, k, v, bias = inputs(columns)
        bias.requires_grad_()
        if way == "ours":
            mask = None if masked == "causal" else seen
            y = cpu_bias_attention.attention(q, k, v, bias, mask, causal=masked == "causal", scale=0.7, dropout=0.0)
        else:
            added = bias if seen is None else torch.where(seen, bias, -torch.inf)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=added, scale=0.7).transpose(1, 2)
        (y * torch.linspace(-1, 1, D, dtype=y.dtype)).square().sum().backward()
        found.append((y.detach(), q.grad, k.grad, v.grad, bias.grad))
    for ours, other in zip(*found, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-10)


def test_in_bf16_scores_are_summed_in_fp32() -> None:
    """Within bf16's rounding of the same in fp64, though the bias is far larger than the scores."""
    q, k, v, bias = inputs(S)
    exact = F.scaled_dot_product_attention(q, k, v, attn_mask=50 + bias).transpose(1, 2)
    narrow = [x.detach().bfloat16() for x in (q, k, v)]
    ours = cpu_bias_attention.attention(*narrow, 50 + bias.float(), None, causal=False, scale=D**-0.5, dropout=0.0)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.double(), exact, rtol=0.0, atol=0.03)


def test_gradients_are_slopes_also_with_dropout() -> None:
    """Against finite differences in fp64, each evaluation dropping the same weights."""
    q, k, v, bias = inputs(S)

    def same(*tensors: Tensor) -> Tensor:
        torch.manual_seed(5)
        return cpu_bias_attention.attention(*tensors, lengths(S), causal=False, scale=1.0, dropout=0.4)

    assert torch.autograd.gradcheck(same, (q, k, v, bias.requires_grad_()))


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    """With equal scores and values of one an output is the kept weights' sum: on average 1, spread as a binomial is."""
    n = 4_000
    q = torch.zeros(n, 1, 1, 2)
    k, v = torch.zeros(n, 1, 10, 2), torch.ones(n, 1, 10, 2)
    y = cpu_bias_attention.attention(q, k, v, torch.zeros(1, 1, 1, 10), None, causal=False, scale=1.0, dropout=0.2)
    assert y.mean().item() == pytest.approx(1.0, abs=0.01)
    assert y[..., 0].var().item() == pytest.approx(0.2 / 0.8 / 10, rel=0.1)
