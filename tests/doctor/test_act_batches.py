"""Acts on batches keep every token in its place; an act that does not apply says so."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_training import COLUMNS, ROWS, Sound, Tiny, apart, batches, dense
from tiny_training import loaded as loaded
from tiny_training import one_thread as one_thread
from torch import Tensor
from torch.utils.data import DataLoader

from ganeum.doctor.measured import acts
from ganeum.doctor.measured.acts.data import Ahead, cut

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes of these tests are forked")


def refused(act: str, sound: Sound) -> str:
    def work() -> str:
        with pytest.raises(acts.NotApplicable) as told:
            getattr(acts, act)(sound.build())
        return str(told.value)

    return apart(work)


def doubling(model: Tiny) -> Tiny:
    model.head.register_forward_hook(lambda _m, _i, out: 2 * out)
    return model


def labelled() -> list[dict[str, Tensor]]:
    """Padding that is learnt."""
    found = dense()
    for batch in found:
        batch["labels"] = batch["input_ids"].clone()
    return found


def ragged() -> list[dict[str, Tensor]]:
    return [{name: t[:, : COLUMNS - n % 3] for name, t in batch.items()} for n, batch in enumerate(batches())]


class Sign(torch.optim.Optimizer):
    """Moves weights as none of torch's does."""

    def __init__(self, params: Any, lr: float = 1e-2) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad.sign())


@pytest.mark.parametrize(
    ("act", "sound", "why"),
    [
        ("no_hooks", Sound(model=lambda: doubling(Tiny())), "the hooks change what is learnt"),
        ("no_hooks", Sound(), "there are no hooks"),
        ("cut_padding", Sound(data=labelled()), "no column at the right end is padding in every row"),
        ("doubled", Sound(data=ragged()), "batches do not have one shape"),
        ("fused", Sound(optimizer=Sign), "Sign moves weights as none of torch's fused optimizers does"),
        ("fused", Sound(), "it is fused already"),
        ("no_mask", Sound(data=dense()), "the masks of its batches mask something"),
        ("sdpa", Sound(), "no attention of transformers' is eager"),
        ("loader_workers", Sound(), "the batches do not come from torch's DataLoader"),
        ("single", Sound(), "every weight is in fp32"),
        ("tf32", Sound(), "TF32 is something of NVIDIA's GPUs"),
        ("only_learnt", Sound(), "every weight with a gradient is updated"),
        ("no_generating", Sound(), "nothing of that kind is loaded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_act_that_does_not_apply_says_so(act: str, sound: Sound, why: str) -> None:
    """And leaves the training as it was."""
    if act == "no_generating" and "transformers.generation.utils" in sys.modules:
        pytest.skip("another test loaded it")
    assert why in refused(act, sound)


# ------------------------------------------------------------------------------------ batches


def test_columns_are_cut_at_the_right_only() -> None:
    """Padding at the left stays, since positions are counted from there; labels go with their ids."""
    ids = torch.tensor([[0, 5, 6, 7, 0, 0], [0, 0, 8, 9, 3, 0]])
    mask = (ids != 0).long()
    batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.where(mask == 1, ids, -100)}
    found = cut(batch)
    assert found["input_ids"].tolist() == [[0, 5, 6, 7, 0], [0, 0, 8, 9, 3]]
    assert found["labels"].tolist() == [[-100, 5, 6, 7, -100], [-100, -100, 8, 9, 3]]
    assert {name: tuple(t.shape) for name, t in found.items()} == dict.fromkeys(batch, (2, 5))


def test_sources_and_targets_of_pairs_are_cut_for_themselves() -> None:
    """A source's mask says nothing about its target, though both may be equally wide."""
    batch = {
        "input_ids": torch.tensor([[3, 4, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 0, 0]]),
        "decoder_input_ids": torch.tensor([[0, 5, 6, 0]]),
        "labels": torch.tensor([[5, 6, 7, -100]]),
    }
    found = {name: tuple(t.shape) for name, t in cut(batch).items()}
    assert found == {"input_ids": (1, 2), "attention_mask": (1, 2), "decoder_input_ids": (1, 3), "labels": (1, 3)}


def test_without_a_mask_only_a_known_padding_token_is_cut() -> None:
    """And not where a label stands on it."""
    pair = (torch.tensor([[5, 6, 0, 0]]), torch.tensor([[6, 0, -100, -100]]))
    assert [tuple(t.shape) for t in cut(pair)] == [(1, 4), (1, 4)]
    assert [tuple(t.shape) for t in cut(pair, 0)] == [(1, 2), (1, 2)]
    learnt = (pair[0], torch.tensor([[6, 0, 0, -100]]))
    assert [tuple(t.shape) for t in cut(learnt, 0)] == [(1, 3), (1, 3)]


def test_batches_that_are_fetched_ahead_keep_their_order_and_their_errors() -> None:
    """Also when a step stops in the middle, and when it begins anew."""
    ahead = Ahead(list(range(20)))
    assert next(iter(ahead)) == 0
    assert list(ahead) == list(range(20))

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    iterator = iter(Ahead(broken()))
    assert next(iterator) == 1
    with pytest.raises(OSError, match="gone"):
        next(iterator)


def test_two_batches_become_one_and_rows_are_dealt_out_by_length() -> None:
    """Every row is there once; sorted, there is less padding."""

    def look() -> tuple[int, bool, int, int]:
        training = Sound(data=dense()).build()
        first = next(iter(acts.doubled(training).batches))
        dealt = list(acts.sorted_rows(training).batches)
        rows = sorted(row[row > 0].tolist() for batch in dealt for row in batch["input_ids"])
        same = rows == sorted(row[row > 0].tolist() for batch in dense() for row in batch["input_ids"])
        places = sum(batch["input_ids"].numel() for batch in dealt)
        return len(first["input_ids"]), same, places, sum(cut(b)["input_ids"].numel() for b in dense())

    rows, same, sorted_places, cut_places = apart(look)
    assert rows == 2 * ROWS
    assert same
    assert sorted_places < cut_places


def test_rows_of_batches_of_unlike_widths_are_dealt_out_by_length() -> None:
    """Each batch as wide as its longest row, as collators make them: every row with its labels is there once."""

    def look() -> tuple[bool, int, int]:
        own = [cut(batch) for batch in dense()]
        dealt = list(acts.sorted_rows(Sound(data=own).build()).batches)

        def texts(batches: list[Any]) -> list[Any]:
            return sorted(
                (ids[mask > 0].tolist(), labels[labels != -100].tolist())
                for batch in batches
                for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True)
            )

        places = [sum(batch["input_ids"].numel() for batch in some) for some in (dealt, own)]
        return texts(dealt) == texts(own), places[0], places[1]

    same, dealt, own = apart(look)
    assert same
    assert dealt < own


def test_a_loader_gets_workers_that_stay() -> None:
    """They fetch the same batches in the same order."""

    def look() -> tuple[bool, int]:
        data = [{name: t[0] for name, t in batch.items()} for batch in batches()]
        training = Sound(data=DataLoader(data, batch_size=2)).build()  # type: ignore[arg-type]
        mended = acts.loader_workers(training)
        assert isinstance(mended.batches, DataLoader)
        pairs = zip(training.batches, mended.batches, strict=True)
        return all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in pairs), mended.batches.num_workers

    assert apart(look)[0]
    assert apart(look)[1] >= 1
