"""A vocabulary larger than the text's is cut down to the ids that occur, and only where all of them are known."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from tiny_training import VOCABULARY, WIDTH, Sound, Tiny, apart, batches, losses
from tiny_training import loaded as loaded
from tiny_training import one_thread as one_thread
from torch import Tensor, nn

from ganeum.doctor.measured import acts, facts, remedies
from ganeum.doctor.measured.acts import NotApplicable
from ganeum.doctor.measured.acts import vocabulary as trimming
from ganeum.doctor.measured.training import Training

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes of these tests are forked")
ROWS = 2_000


def wide(tied: bool = False) -> Tiny:
    """Rows for 2,000 ids of which the batches hold 48 at most."""
    model = Tiny()
    torch.manual_seed(1)
    model.tokens, model.head = nn.Embedding(ROWS, WIDTH), nn.Linear(WIDTH, ROWS, bias=False)
    if tied:
        model.head.weight = model.tokens.weight
    return model


def spread() -> list[dict[str, Tensor]]:
    """The same texts with their ids far apart: 0, 41, 82, …, which no program counts on."""
    return [{**b, **{n: torch.where(b[n] > 0, b[n] * 41, b[n]) for n in ("input_ids", "labels")}} for b in batches()]


def used() -> set[int]:
    """The ids of those texts."""
    return {int(token) for batch in spread() for token in batch["input_ids"].flatten()}


def fresh(sound: Sound) -> Training:
    training = sound.build()
    training.fresh = True
    return training


@pytest.mark.parametrize("tied", [False, True])
def test_the_loss_is_that_of_the_rows_that_are_left(tied: bool) -> None:
    """−log of the softmax over the kept rows of the old logits, and the next two losses go on falling from there."""

    def look() -> tuple[int, float, float, list[float], bool]:
        torch.manual_seed(0)
        sound = Sound(model=lambda: wide(tied), data=spread())
        training = sound.build()
        batch = spread()[0]
        logits = training.model(batch["input_ids"])[:, :-1].flatten(0, 1)
        labels = batch["labels"][:, 1:].flatten()
        kept = torch.tensor(sorted({*range(8), *used()}))
        right = logits[labels >= 0].gather(1, labels[labels >= 0, None]).squeeze(1)
        expected = (logits[labels >= 0][:, kept].logsumexp(1) - right).mean().item()
        after = acts.trimmed_vocabulary(training)
        found = losses(after, 8)
        model: Any = after.model
        same = model.head.weight is model.tokens.weight
        return len(kept), expected, found[0], found, same and len(model.head.weight) == len(model.tokens.weight)

    rows, expected, first, found, same = apart(look)
    assert rows < 60
    assert first == pytest.approx(expected, rel=1e-5)
    assert found[-1] < found[0]
    assert same is tied


def test_facts_lead_to_it_and_count_the_ids() -> None:
    """A fresh model is warned, a trained one told; a vocabulary that the text uses gets neither."""

    def look() -> list[Any]:
        kinds = []
        for training in (fresh(Sound(model=wide, data=spread())), Sound(model=wide, data=spread()).build()):
            seen = facts.of(training)
            (one,) = (r for r in remedies.of_training(seen) if r.act == "trimmed_vocabulary")
            kinds.append((seen["vocabulary_used"], one.same_learning, one.bound))
        sound = facts.of(fresh(Sound()))["vocabulary_used"]
        return [*kinds, sound]

    assert apart(look) == [((len(used()), ROWS), True, True), ((len(used()), ROWS), False, True), None]
    assert len(used()) <= VOCABULARY


def test_ids_that_were_not_seen_yet_are_not_taken_for_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an endless text whose rare ids go on coming nothing is said; of one with 48 ids that all came often it is."""
    now = [0.0]
    monkeypatch.setattr("ganeum.doctor.measured.acts.vocabulary.time.monotonic", lambda: now[0])

    class Endless:
        def __init__(self, ids: int) -> None:
            self.ids = ids

        def __iter__(self) -> Any:
            draw = torch.Generator().manual_seed(0)
            weights = 1 / (1.0 + torch.arange(self.ids))  # Zipf's law
            while True:
                now[0] += 0.1
                yield {"input_ids": torch.multinomial(weights.expand(8, -1), 32, replacement=True, generator=draw)}

    def seen(ids: int) -> int | None:
        found = trimming.occurring(Sound(model=wide, data=Endless(ids)).build())
        return None if found is None else len(found.ids)

    assert (seen(48), seen(900)) == (48, None)


class Between(Tiny):
    """As many hidden units as ids."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(ROWS, WIDTH), nn.Linear(WIDTH, ROWS, bias=False)
        self.up, self.down = nn.Linear(WIDTH, ROWS), nn.Linear(ROWS, WIDTH)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.head(self.down(self.up(self.tokens(input_ids)).relu()))  # type: ignore[no-any-return]


def test_what_it_would_break_is_left_alone() -> None:
    """A hidden layer as wide as the vocabulary; a loss that knows an id by its number."""

    def tried(training: Training) -> str:
        try:
            acts.trimmed_vocabulary(training)
        except NotApplicable as error:
            return str(error)
        return "done"

    def named_id() -> Training:
        training = Sound(model=wide, data=spread()).build()
        inner = training.step

        def step(batch: Any) -> Any:
            loss = inner({**batch, "labels": batch["labels"].masked_fill(batch["labels"] == 41, -100)})
            return loss + (batch["input_ids"] == 82).sum()

        training.step = step
        training.tokens = lambda batch: (batch["labels"] != 41).sum()
        return training

    assert "has 2000 rows or columns, too" in apart(lambda: tried(Sound(model=Between, data=spread()).build()))
    assert "how many tokens count" in apart(lambda: tried(named_id()))


def test_models_of_transformers_know_their_ends_by_new_numbers() -> None:
    """A tied GPT-2 and a T5 whose special ids lie at the far end: rows, config and loss go together."""
    transformers = pytest.importorskip("transformers")

    def look() -> list[tuple[int, int, bool]]:
        found = []
        for kind in ("gpt2", "t5"):
            torch.manual_seed(0)
            ends = {"pad_token_id": ROWS - 1, "eos_token_id": ROWS - 2, "bos_token_id": ROWS - 2}
            if kind == "gpt2":
                config = transformers.GPT2Config(
                    n_embd=16, n_layer=1, n_head=2, vocab_size=ROWS, n_positions=64, **ends
                )
                model: Any = transformers.GPT2LMHeadModel(config)
            else:
                shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": ROWS}
                model = transformers.T5ForConditionalGeneration(
                    transformers.T5Config(**shape, **ends, decoder_start_token_id=ROWS - 1)
                )
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

            def step(batch: Any, model: Any = model, optimizer: Any = optimizer) -> Tensor:
                loss = model(**batch).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                return loss.detach()  # type: ignore[no-any-return]

            training = acts.trimmed_vocabulary(Training(model.train(), spread(), step, optimizer))
            lost = losses(training, 8)
            rows = model.get_output_embeddings().weight.size(0)
            found.append((rows, model.config.vocab_size, lost[-1] < lost[0] and model.config.pad_token_id < rows))
        return found

    for rows, told, sound in apart(look):
        assert rows == told < 70
        assert sound
