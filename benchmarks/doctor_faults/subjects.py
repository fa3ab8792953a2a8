"""Four small trainings as people write them, honest and fast for one core; a fault changes one of their parts.

``plain``: a GPT in plain torch over windows of a text. ``windows``: transformers' GPT-2 over the same windows.
``documents``: that GPT-2 over whole documents, padded on the right. ``pairs``: transformers' T5. Documents and pairs
have like lengths within a batch, padding has a token of its own and is masked in the labels, weights are drawn afresh.
A text is drawn from a random table of which word follows which, so that there is something to learn.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Row = dict[str, list[int]]  # input_ids, labels
Batch = dict[str, torch.Tensor]  # input_ids, attention_mask where there is padding, labels: B, T
PAD, END, FIRST_WORD = 0, 1, 2
WORDS = 510  # and PAD and END: 512 tokens
LONGEST = {"plain": 64, "windows": 64, "documents": 48, "pairs": 48}  # tokens of a row
SUBJECTS = tuple(LONGEST)


class Block(nn.Module):
    """A transformer's block over x: B, T, C; attention looks back only, unless told otherwise."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.causal = True
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, C = x.shape
        heads = self.qkv(self.before_attention(x)).view(B, T, 3, self.heads, C // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each B, heads, T, C / heads
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, C))
        return x + self.down(functional.gelu(self.up(self.before_mlp(x))))


class Plain(nn.Module):
    """A GPT in plain torch: input_ids: B, T → logits: B, T, V; nothing is shifted in it."""

    def __init__(self, width: int = 64, layers: int = 2, heads: int = 4, vocabulary: int = WORDS + 2) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(256, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(input_ids) + self.places(torch.arange(input_ids.shape[1], device=input_ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def sentences(seed: int, count: int, shortest: int, longest: int) -> list[list[int]]:
    """Token ids of texts in which every word has four that may follow it."""
    draw = random.Random(seed)
    follows = [[draw.randrange(WORDS) for _ in range(4)] for _ in range(WORDS)]
    texts = []
    for _ in range(count):
        word, text = draw.randrange(WORDS), []
        for _ in range(draw.randint(shortest, longest)):
            text.append(FIRST_WORD + word)
            word = draw.choice(follows[word]) if draw.random() < 0.9 else draw.randrange(WORDS)
        texts.append(text)
    return texts


def spelled(ids: Iterable[int]) -> str:
    """A text of those ids, one made-up word each."""
    return " ".join("".join(chr(97 + (token // 26**place) % 26) for place in range(3)) for token in ids)


@dataclass
class Parts:
    """What a training is put together from, before it is."""

    subject: str
    seed: int = 0
    at_once: int = 8  # rows in a batch
    pieces: int = 1  # micro-batches that an update is made of
    width: int = 64
    options: dict[str, Any] = field(default_factory=dict)  # of transformers' config
    pad_to: int | None = None  # tokens; None: the longest of the batch
    pad_left: bool = False
    fused: bool = True
    learning_rate: float = 1e-3
    order: Callable[[list[Row], int, random.Random], Iterator[list[Row]]] | None = None
    rows: list[Row] = field(default_factory=list)
    finish: list[Callable[[Batch], Batch]] = field(default_factory=list)  # what is done to each batch
    source: list[Callable[[Iterable[Batch]], Iterable[Batch]]] = field(default_factory=list)  # around all batches
    model: list[Callable[[nn.Module], nn.Module | None]] = field(default_factory=list)  # after it is built
    loss: Callable[[nn.Module, Batch], torch.Tensor] | None = None
    piece_loss: Callable[[torch.Tensor, int], torch.Tensor] = lambda loss, pieces: loss / pieces
    clear: Callable[[torch.optim.Optimizer], None] = lambda optimizer: optimizer.zero_grad()
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None
    step: list[Callable[..., Callable[[Batch], Any]]] = field(default_factory=list)  # (step, model, optimizer) → step

    def __post_init__(self) -> None:
        longest = LONGEST[self.subject]
        if self.subject in ("plain", "windows"):
            stream = list(itertools.chain.from_iterable([*text, END] for text in sentences(self.seed, 900, 20, 60)))
            cut = [stream[start : start + longest] for start in range(0, len(stream) - longest + 1, longest)]
            self.rows = [{"input_ids": row, "labels": row} for row in cut]
        elif self.subject == "documents":
            texts = sentences(self.seed, 640, 12, longest - 1)
            self.rows = [{"input_ids": [*text, END], "labels": [*text, END]} for text in texts]
        else:
            texts = sentences(self.seed, 640, 12, longest - 1)
            self.rows = [{"input_ids": [*text, END], "labels": [*text[: len(text) // 2], END]} for text in texts]


def like_lengths(rows: list[Row], at_once: int, draw: random.Random) -> Iterator[list[Row]]:
    """Batches of rows of like lengths, in a random order: every row once."""
    mixed = draw.sample(rows, len(rows))
    mixed.sort(key=lambda row: (len(row["input_ids"]), len(row["labels"])))
    batches = [mixed[start : start + at_once] for start in range(0, len(mixed) - at_once + 1, at_once)]
    draw.shuffle(batches)
    return iter(batches)


def collated(parts: Parts, rows: list[Row]) -> Batch:
    """Rows as tensors, padded; an attention mask only where there is padding at all."""

    def padded(name: str, filler: int, longest: int) -> torch.Tensor:
        full = [[filler] * (longest - len(row[name])) for row in rows]
        filled = zip(rows, full, strict=True)
        return torch.tensor([[*blank, *row[name]] if parts.pad_left else [*row[name], *blank] for row, blank in filled])

    longest = parts.pad_to or max(len(row["input_ids"]) for row in rows)
    answers = longest if parts.subject != "pairs" else parts.pad_to or max(len(row["labels"]) for row in rows)
    batch = {"input_ids": padded("input_ids", PAD, longest), "labels": padded("labels", -100, answers)}
    if parts.subject in ("documents", "pairs"):
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])[:, None]
        places = torch.arange(longest)[None]
        batch["attention_mask"] = (places >= longest - lengths if parts.pad_left else places < lengths).long()
    for change in parts.finish:
        batch = change(batch)
    return batch


class Batches:
    """Batches for one epoch; each iteration is another epoch."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.draw = random.Random(parts.seed)

    def __iter__(self) -> Iterator[Batch]:
        order = self.parts.order or like_lengths
        for rows in order(self.parts.rows, self.parts.at_once, self.draw):
            yield collated(self.parts, rows)


def network(parts: Parts) -> nn.Module:
    """The subject's model, freshly drawn."""
    vocabulary = WORDS + 2
    if parts.subject == "plain":
        return Plain(parts.width)
    if parts.subject == "pairs":
        from transformers import T5Config, T5ForConditionalGeneration

        shape = {"vocab_size": vocabulary, "d_model": parts.width // 2, "d_kv": 16, "d_ff": parts.width * 2}
        more = {"num_layers": 2, "num_heads": 4, "dropout_rate": 0.0, "feed_forward_proj": "relu", "use_cache": False}
        ids = {"pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": PAD}
        return T5ForConditionalGeneration(T5Config(**(shape | more | ids | parts.options)))
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"vocab_size": vocabulary, "n_positions": 256, "n_embd": parts.width, "n_layer": 2, "n_head": 4}
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "use_cache": False}
    ids = {"pad_token_id": PAD, "eos_token_id": END, "bos_token_id": END}
    return GPT2LMHeadModel(GPT2Config(**(shape | still | ids | parts.options)))


def plain_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Cross-entropy of each token given those before it."""
    logits = model(batch["input_ids"])[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())


def own_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The loss that a model of transformers computes itself."""
    return model(**batch).loss


def _every(batch: Batch, piece: int, pieces: int) -> Batch:
    return {name: rows[piece::pieces].contiguous() for name, rows in batch.items()}


def assembled(parts: Parts) -> dict[str, Any]:
    """model, batches, step, optimizer: what ``ganeum.doctor.Training`` takes."""
    torch.manual_seed(parts.seed)
    model = network(parts).train()
    for change in parts.model:
        model = change(model) or model
    make = parts.optimizer or (
        lambda model: torch.optim.AdamW(model.parameters(), parts.learning_rate, fused=parts.fused)
    )
    optimizer = make(model)
    loss_of = parts.loss or (plain_loss if parts.subject == "plain" else own_loss)

    def step(batch: Batch) -> torch.Tensor:
        total = torch.zeros(())
        for piece in range(parts.pieces):
            part = batch if parts.pieces == 1 else _every(batch, piece, parts.pieces)
            loss = loss_of(model, part)
            parts.piece_loss(loss, parts.pieces).backward()
            total += loss.detach() / parts.pieces
        optimizer.step()
        parts.clear(optimizer)
        return total

    taken: Callable[[Batch], Any] = step
    for wrap in parts.step:
        taken = wrap(taken, model, optimizer)
    batches: Iterable[Batch] = Batches(parts)
    for around in parts.source:
        batches = around(batches)
    return {"model": model, "batches": batches, "step": taken, "optimizer": optimizer}
