"""The losses of a run against the same training written out in plain PyTorch, here, without a line of ours."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_corpus
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from ganeum.config import load
from ganeum.train.run import train

STEPS, PEAK, WARM_UP = 12, 3e-3, 4
LAYERS, HEADS, WIDTH, CONTEXT, BATCH = 2, 2, 32, 32, 8


def plain_loss(p: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """GPT-2's forward pass on named weights: (B, T) tokens and targets → mean nats."""
    B, T = x.shape
    h = p["token_embedding.weight"][x] + p["position_embedding.weight"][:T]
    for i in range(LAYERS):
        b = f"blocks.{i}."
        q, k, v = (F.layer_norm(h, (WIDTH,), p[b + "norm_1.weight"]) @ p[b + "attention.qkv.weight"].T).chunk(3, dim=-1)
        q, k, v = (t.view(B, T, HEADS, WIDTH // HEADS).transpose(1, 2) for t in (q, k, v))
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(WIDTH // HEADS)
        scores = scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -math.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, WIDTH)
        h = h + mixed @ p[b + "attention.out.weight"].T
        up = F.layer_norm(h, (WIDTH,), p[b + "norm_2.weight"]) @ p[b + "mlp.up.weight"].T
        h = h + F.gelu(up, approximate="tanh") @ p[b + "mlp.down.weight"].T
    logits = F.layer_norm(h, (WIDTH,), p["norm.weight"]) @ p["token_embedding.weight"].T
    return F.cross_entropy(logits.flatten(0, 1), y.flatten())


def plain_training(weights: dict[str, Tensor], windows: np.ndarray) -> list[float]:
    """AdamW by its formulas (Loshchilov & Hutter 2019), gradients clipped to 1, cosine after a linear warm-up."""
    p = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
    first = {name: torch.zeros_like(t) for name, t in p.items()}
    second = {name: torch.zeros_like(t) for name, t in p.items()}
    losses = []
    for t in range(STEPS):
        rows = torch.from_numpy(windows[t * BATCH : (t + 1) * BATCH].astype(np.int64))
        loss = plain_loss(p, rows[:, :-1], rows[:, 1:])
        losses.append(loss.item())
        gradients = dict(zip(p, torch.autograd.grad(loss, list(p.values())), strict=True))
        norm = math.sqrt(sum(g.square().sum().item() for g in gradients.values()))
        low = PEAK / 10
        rate = (
            PEAK * (t + 1) / (WARM_UP + 1)
            if t < WARM_UP
            else low + 0.5 * (PEAK - low) * (1 + math.cos(math.pi * (t - WARM_UP) / (STEPS - WARM_UP)))
        )
        with torch.no_grad():
            for name, w in p.items():
                g = gradients[name] / max(norm, 1.0)
                first[name].mul_(0.9).add_(g, alpha=0.1)
                second[name].mul_(0.95).add_(g * g, alpha=0.05)
                w.mul_(1 - rate * 0.1 if w.dim() == 2 else 1.0)
                step = (first[name] / (1 - 0.9 ** (t + 1))) / ((second[name] / (1 - 0.95 ** (t + 1))).sqrt() + 1e-8)
                w.sub_(rate * step)
    return losses


def test_losses_are_those_of_plain_pytorch(here: Path, data: Path) -> None:
    """Twelve steps in fp32 on the CPU, micro-batches of 4 of 8: every loss within 1e-5 of the written-out training."""
    overrides = ["max_iters=12", f"warmup_iters={WARM_UP}", "model.dropout=0", "eval_interval=100", "log.interval=1"]
    config = tiny_corpus.config(data, here / "golden.yaml")
    seen: list[np.ndarray] = []
    from ganeum.data.batches import Batches

    original = Batches.batch

    def watched(self: Batches, step: int) -> tuple[Tensor, Tensor]:
        x, y = original(self, step)
        seen.append(np.concatenate([x.numpy(), y.numpy()[:, -1:]], axis=1))
        return x, y

    fresh = load(config, ["name=fresh", "max_iters=1", "model.dropout=0", "learning_rate=1e-30"])
    train(fresh)
    weights = load_file("results/fresh/checkpoints/step-00000001/model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "batch", watched)
        train(load(config, overrides))
    lines = [json.loads(line) for line in Path("results/golden/logs/metrics.jsonl").read_text().splitlines()]
    expected = plain_training(weights, np.concatenate(seen))
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert expected == pytest.approx([line["loss"] for line in lines], abs=1e-5)
