"""Small honest trainings, as people write them, each with handles by which a fault can be put into it."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganeum.doctor.measured.training import Training

V, T, B = 64, 24, 8
PAD, BEGIN, END, UNKNOWN = 0, 1, 2, 3


def ids(rows: int, length: int, seed: int, low: int = 4) -> Tensor:
    """(rows, length) tokens of text, none of them special."""
    return torch.randint(low, V, (rows, length), generator=torch.Generator().manual_seed(seed))


class Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)
        self.causal = True

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part[:, None] for part in self.qkv(self.norm_1(x)).chunk(3, -1))
        x = x + self.dropout(self.out(F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)[:, 0]))
        return x + self.dropout(self.mlp(self.norm_2(x)))


class Plain(nn.Module):
    """nanoGPT in small: logits, and the loss where targets are given."""

    def __init__(self, width: int = 32, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(V, width), nn.Embedding(T, width)
        self.blocks = nn.ModuleList([Block(width, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, V, bias=False)
        self.head.weight = self.wte.weight
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        h = self.wte(x) + self.wpe(torch.arange(x.shape[1]))
        for block in self.blocks:
            h = block(h)
        logits = self.head(self.norm(h))
        return logits, None if y is None else F.cross_entropy(logits.view(-1, V), y.view(-1))


def adamw(model: nn.Module, rate: float = 1e-3) -> torch.optim.AdamW:
    flat = [p for p in model.parameters() if p.dim() < 2 and p.requires_grad]
    rest = [p for p in model.parameters() if p.dim() > 1 and p.requires_grad]
    return torch.optim.AdamW([{"params": rest}, {"params": flat, "weight_decay": 0.0}], lr=rate)


def windows(count: int = 20, seed: int = 0, stride: int | None = None) -> list[tuple[Tensor, Tensor]]:
    """Random windows of one text; with ``stride`` all of them in any order."""
    text = ids(1, 40_000, seed)[0]
    generator = torch.Generator().manual_seed(seed + 1)
    starts = torch.randint(0, len(text) - T - 1, (count * B,), generator=generator)
    if stride:
        starts = torch.randperm(count * B, generator=generator) * stride
    rows = [text[s : s + T + 1] for s in starts.tolist()]
    whole = torch.stack(rows).view(count, B, T + 1)
    return [(one[:, :-1].contiguous(), one[:, 1:].contiguous()) for one in whole]


def plain(
    *,
    model: nn.Module | None = None,
    batches: Any = None,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = adamw,
    micro: int = 1,
    divide: int | None = None,
    clear: bool = True,
    clip: float | None = None,
    fresh: bool = True,
    tokenizer: Any = None,
) -> Training:
    """A loop by hand: ``micro`` micro-batches an update, their losses divided by ``divide``."""
    torch.manual_seed(1)
    model = Plain() if model is None else model
    made = optimizer(model)
    divide = micro if divide is None else divide

    def step(batch: tuple[Tensor, Tensor]) -> Tensor:
        for x, y in zip(batch[0].chunk(micro), batch[1].chunk(micro), strict=True):
            _, loss = model(x, y)
            (loss / divide).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        made.step()
        if clear:
            made.zero_grad(set_to_none=True)
        return loss

    return Training(model, windows() if batches is None else batches, step, made, tokenizer=tokenizer, fresh=fresh)


class Tokens:
    """What is asked of a tokenizer."""

    pad_token_id: int | None = PAD
    bos_token_id, eos_token_id, unk_token_id = BEGIN, END, UNKNOWN

    def __len__(self) -> int:
        return V


def texts(count: int, seed: int = 0) -> list[list[int]]:
    """Texts of different lengths, each with its end."""
    lengths = torch.randint(6, T - 1, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [[*ids(1, length, seed + 7 + n)[0].tolist(), END] for n, length in enumerate(lengths)]


def padded(
    count: int = 20, *, pad: int = PAD, end: int = END, left: bool = False, seed: int = 0, by_id: bool = False
) -> list[dict[str, Tensor]]:
    """Batches as DataCollatorForLanguageModeling makes them; ``by_id``: labels are masked wherever the pad's id is."""
    found = []
    for at in range(count):
        rows = [[*text[:-1], end] for text in texts(B, seed + 100 * at)]
        width = max(map(len, rows))
        batch = torch.full((B, width), pad)
        mask = torch.zeros(B, width, dtype=torch.long)
        for n, row in enumerate(rows):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            batch[n, place], mask[n, place] = torch.tensor(row), 1
        labels = torch.where((batch != pad) if by_id else (mask > 0), batch, -100)
        found.append({"input_ids": batch, "attention_mask": mask, "labels": labels})
    return found


def pairs(count: int = 20, *, pad: int = PAD, seed: int = 0) -> list[dict[str, Tensor]]:
    """Batches as DataCollatorForSeq2Seq makes them."""
    found = []
    for at in range(count):
        batch: dict[str, Tensor] = {}
        for name, fill, more in (("input_ids", pad, 1), ("labels", -100, 2)):
            rows = texts(B, seed + 100 * at + 50 * more)
            width = max(map(len, rows))
            batch[name] = torch.tensor([row + [fill] * (width - len(row)) for row in rows])
        batch["attention_mask"] = (batch["input_ids"] != pad).long()
        found.append(batch)
    return found


def theirs(
    kind: str,
    *,
    batches: Any = None,
    tokenizer: Any = None,
    fresh: bool = True,
    change: Callable[[Any], None] | None = None,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = adamw,
    **config: Any,
) -> Training:
    """A model of transformers, from a config, in the loop of its documentation."""
    import transformers as hf

    torch.manual_seed(1)
    special = {"pad_token_id": PAD, "bos_token_id": BEGIN, "eos_token_id": END}
    small: dict[str, Any] = {
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32},
        "opt": {
            "hidden_size": 32, "word_embed_proj_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "ffn_dim": 64,
        },
        "llama": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
        "mixtral": {
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 2, "num_local_experts": 8, "num_experts_per_tok": 1,
        },
        "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": PAD},
        "bart": {
            "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
            "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64,
            "decoder_start_token_id": END, "forced_eos_token_id": None,
        },
    }[kind]  # fmt: skip
    made = hf.AutoConfig.for_model(kind, vocab_size=V, **{**special, **small, **config})
    auto = hf.AutoModelForSeq2SeqLM if kind in ("t5", "bart") else hf.AutoModelForCausalLM
    model = auto.from_config(made).train()
    if change:
        change(model)
    updates = optimizer(model)
    if batches is None:
        batches = pairs() if kind in ("t5", "bart") else padded()

    def step(batch: dict[str, Tensor]) -> Tensor:
        loss = model(**batch).loss
        loss.backward()
        updates.step()
        updates.zero_grad()
        return loss

    return Training(model, batches, step, updates, tokenizer=tokenizer, fresh=fresh)


def frozen_encoder(model: Any) -> None:
    """As people do with trained ones."""
    model.get_encoder().requires_grad_(False)
    model.get_input_embeddings().requires_grad_(False)


def with_lora(model: Any) -> None:
    """Adapters beside the frozen weights of a GPT-2, the second of each pair zero."""
    model.requires_grad_(False)
    for block in model.transformer.h:
        layer = block.attn.c_proj
        layer.lora_a, layer.lora_b = nn.Linear(32, 4, bias=False), nn.Linear(4, 32, bias=False)
        nn.init.zeros_(layer.lora_b.weight)
        plain_forward = layer.forward

        def forward(self: Any, x: Tensor, plain_forward: Any = plain_forward) -> Tensor:
            return plain_forward(x) + self.lora_b(self.lora_a(x))

        layer.forward = types.MethodType(forward, layer)


class Experts(nn.Module):
    """Each token to one of eight; most see none in a few small batches."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(32, 8)
        self.experts = nn.ModuleList([nn.Linear(32, 32) for _ in range(8)])

    def forward(self, x: Tensor) -> Tensor:
        gates = self.router(x).softmax(-1)
        choice = gates[..., :3].argmax(-1)  # five never
        y = torch.zeros_like(x)
        for n in choice.unique().tolist():
            y[choice == n] = self.experts[n](x[choice == n]) * gates[choice == n][:, n : n + 1]
        return y


def with_experts() -> Training:
    torch.manual_seed(0)
    model = Plain()
    model.blocks[1].mlp = Experts()
    return plain(model=model)


class Pooled(Plain):
    """Computes something at its end that nobody uses, as a BERT that is asked for hidden states."""

    def __init__(self) -> None:
        super().__init__()
        self.pooler = nn.Linear(32, 32)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        logits, loss = super().forward(x, y)
        self.pooler(self.wte(x[:, 0]))
        return logits, loss


class Carried(nn.Module):
    """Goes on from call to call where the batch before ended."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.rnn, self.head = nn.Embedding(V, 16), nn.LSTM(16, 16, batch_first=True), nn.Linear(16, V)
        self.state: Any = None

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        h, state = self.rnn(self.wte(x), self.state)
        self.state = tuple(one.detach() for one in state)
        logits = self.head(h)
        return logits, F.cross_entropy(logits.view(-1, V), y.view(-1))


def asks_again() -> Training:
    """An optimizer that computes its gradients itself, several times."""
    model = Plain(16, 1, 0.0)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)

    def step(batch: tuple[Tensor, Tensor]) -> Any:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = model(*batch)[1]
            loss.backward()
            return loss

        return optimizer.step(closure)

    return Training(model, windows(), step, optimizer)


def computed_twice() -> Training:
    """The gradient of a closure, and an update that asks the closure for it again: slow, and right."""
    model = Plain()
    optimizer = adamw(model)

    def step(batch: tuple[Tensor, Tensor]) -> Any:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = model(*batch)[1]
            loss.backward()
            return loss

        closure()
        return optimizer.step(closure)

    return Training(model, windows(), step, optimizer)


def warmed(counts: int, every: int = 1) -> Training:
    """A rate that grows for so many steps of its schedule, one every so many updates."""
    training, taken = plain(), 0
    inner = training.step
    schedule = torch.optim.lr_scheduler.LambdaLR(training.optimizer, lambda count: min(1.0, (count + 1) / counts))

    def step(batch: tuple[Tensor, Tensor]) -> Any:
        nonlocal taken
        loss = inner(batch)
        taken += 1
        if taken % every == 0:
            schedule.step()
        return loss

    training.step = step
    return training


def warmed_around(counts: int) -> Training:
    """The same, where the loop around the step moves it on, and the step reads the rate only."""
    training, rates = plain(), list[float]()
    inner = training.step
    schedule = torch.optim.lr_scheduler.LambdaLR(training.optimizer, lambda count: min(1.0, (count + 1) / counts))

    def step(batch: tuple[Tensor, Tensor]) -> Any:
        rates.append(schedule.get_last_lr()[0])
        return inner(batch)

    training.step = step
    return training


def sharpness_aware() -> Training:
    """Foret et al. 2020: weights are moved against the gradient by hand, and a second gradient is taken there."""
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(batch: tuple[Tensor, Tensor]) -> None:
        model(*batch)[1].backward()
        moves = [p.grad * 1e-3 for p in model.parameters() if p.grad is not None]
        with torch.no_grad():
            torch._foreach_add_(list(model.parameters()), moves)
        optimizer.zero_grad()
        model(*batch)[1].backward()
        with torch.no_grad():
            torch._foreach_sub_(list(model.parameters()), moves)
        optimizer.step()
        optimizer.zero_grad()

    return Training(model, windows(), step, optimizer)


def without_optimizer() -> Training:
    """Gradient descent by hand."""
    model = Plain()

    def step(batch: tuple[Tensor, Tensor]) -> None:
        model(*batch)[1].backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
                p.grad = None

    return Training(model, windows(), step)
