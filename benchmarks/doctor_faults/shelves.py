"""Faults of where batches come from: loaders, readers, padding, order, overlap."""

from __future__ import annotations

import itertools
import random
import re
import tempfile
import time
from collections.abc import Iterable, Iterator

import torch

from doctor_faults.fault import fault
from doctor_faults.subjects import END, FIRST_WORD, PAD, SUBJECTS, Batch, Parts, Row, like_lengths, spelled

LOADER = ("loader", "slow_disk")


class Around:
    """Batches with something done before each; every iteration is a new epoch."""

    def __init__(self, batches: Iterable[Batch], before: object) -> None:
        self.batches, self.before = batches, before

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            self.before()  # type: ignore[operator]
            yield batch


@fault("sleep in the loader", "speed", LOADER, SUBJECTS)
def drowsy_shelf(parts: Parts) -> None:
    """8 ms before every batch."""
    parts.source.append(lambda batches: Around(batches, lambda: time.sleep(0.008)))


@fault("work in the loader", "speed", LOADER, ("documents", "pairs", "plain", "windows"))
def patient_binder(parts: Parts) -> None:
    """Each row goes through Python lists many times over, as with datasets kept as objects."""

    def rebind(batch: Batch) -> Batch:
        for _ in range(40):
            batch = {name: torch.tensor(rows.tolist()) for name, rows in batch.items()}
        return batch

    parts.finish.append(rebind)


@fault("tokenising in the loop", "speed", LOADER, ("documents", "windows", "plain"))
def scribe_at_the_desk(parts: Parts) -> None:
    """The rows are texts, and become ids word by word with a regular expression when they are wanted."""
    written = {id(row): spelled(row["input_ids"]) for row in parts.rows}
    numbers = {spelled([token]): token for token in range(FIRST_WORD + 512)}

    def order(rows: list[Row], at_once: int, draw: random.Random) -> Iterator[list[Row]]:
        for batch in like_lengths(rows, at_once, draw):
            read = []
            for row in batch:
                ids: list[int] = []
                for _ in range(6):  # normalising, splitting, pairs, as Python tokenizers go over a text
                    words = re.findall(r"[a-z]+|[^a-z\s]", written[id(row)].lower())
                    ids = [numbers["".join(letter for letter in word)] for word in words]
                read.append({"input_ids": ids, "labels": ids})
            yield read

    parts.order = order


@fault("throttled reader", "speed", LOADER, ("plain", "windows", "documents"))
def straw_reader(parts: Parts) -> None:
    """The ids come out of a file that gives 256 KiB a second."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the training
    places = []
    for row in parts.rows:
        places.append((file.tell(), len(row["input_ids"])))
        file.write(b"".join(token.to_bytes(8, "little") for token in row["input_ids"]))

    def read(batch: Batch) -> Batch:
        size = batch["input_ids"].numel() * 8
        file.seek(places[0][0])
        file.read(size)
        time.sleep(size / (256 * 1024))
        return batch

    parts.finish.append(read)


@fault("padding to the longest there could be", "speed", ("padding",), ("documents", "pairs"))
def boxes_to_the_brim(parts: Parts) -> None:
    """Every row is filled up to 128 tokens."""
    parts.pad_to = 128


def long_ones(parts: Parts) -> None:
    """A tenth of the rows is four times as long as the rest."""
    long = [{name: (ids * 4)[:160] for name, ids in row.items()} for row in parts.rows[::10]]
    parts.rows = [row for row in parts.rows if len(row["input_ids"]) < 30] + long


@fault("rows of unlike lengths at once", "speed", ("padding",), ("documents", "pairs"), ground=long_ones)
def mixed_company(parts: Parts) -> None:
    """Rows are drawn at random."""
    parts.order = at_random


@fault("overlapping windows", "learning", ("overlapping_windows", "repeated_text"), ("plain", "windows"))
def shingled_rows(parts: Parts) -> None:
    """Windows of 64 tokens start 4 apart, in order."""
    stream = list(itertools.chain.from_iterable(row["input_ids"] for row in parts.rows[:160]))
    cut = [stream[start : start + 64] for start in range(0, len(stream) - 64, 4)]
    parts.rows = [{"input_ids": row, "labels": row} for row in cut]
    parts.order = in_order


def in_order(rows: list[Row], at_once: int, draw: random.Random) -> Iterator[list[Row]]:
    """Rows as they lie."""
    return iter([rows[start : start + at_once] for start in range(0, len(rows) - at_once + 1, at_once)])


@fault("tiny micro-batch", "speed", ("small_micro_batch", "frequent_update"), SUBJECTS)
def one_at_a_time(parts: Parts) -> None:
    """A row at a time, and an update for each."""
    parts.at_once = 1


@fault("sorted data", "speed", ("sorted_data", "slows_down"), ("documents", "pairs"))
def short_ones_first(parts: Parts) -> None:
    """The shortest rows come first."""
    parts.rows = sorted(parts.rows, key=lambda row: len(row["input_ids"]))
    parts.order = in_order


@fault("repeated rows", "learning", ("repeated_text",), SUBJECTS)
def broken_record(parts: Parts) -> None:
    """A batch is one row, eight times; the same few rows come again and again."""

    def order(rows: list[Row], at_once: int, draw: random.Random) -> Iterator[list[Row]]:
        return iter([[row] * at_once for row in rows[:20]])

    parts.order = order


@fault("left padding without positions", "learning", ("padding_side",), ("documents",))
def leaning_left(parts: Parts) -> None:
    """Rows are filled up on the left, and positions count the padding; the rows of a batch are of unlike lengths."""
    parts.pad_left = True
    parts.order = at_random


def at_random(rows: list[Row], at_once: int, draw: random.Random) -> Iterator[list[Row]]:
    """Rows drawn without regard to their lengths."""
    mixed = draw.sample(rows, len(rows))
    return iter([mixed[start : start + at_once] for start in range(0, len(mixed) - at_once + 1, at_once)])


@fault("an attention mask that shows the padding", "learning", ("wrong_mask", "attention_mask"), ("pairs",))
def glass_mask(parts: Parts) -> None:
    """The mask is all ones although there is padding, so that the encoder reads it."""
    parts.pad_to = 64

    def show(batch: Batch) -> Batch:
        return batch | {"attention_mask": torch.ones_like(batch["input_ids"])}

    parts.finish.append(show)


@fault("padding and end of text are one token", "learning", ("pad_is_eos", "end_not_learnt"), ("documents",))
def muted_endings(parts: Parts) -> None:
    """Padding is the end-of-text token, and whatever is padding is masked: the ends with it."""
    parts.options |= {"pad_token_id": END}
    parts.order = at_random

    def mask(batch: Batch) -> Batch:
        ids = batch["input_ids"].masked_fill(batch["input_ids"] == PAD, END)
        return batch | {"input_ids": ids, "labels": ids.masked_fill(ids == END, -100)}

    parts.finish.append(mask)


@fault("labels on padding", "learning", ("labels_on_padding",), ("documents", "pairs"))
def graded_blanks(parts: Parts) -> None:
    """Padding is learnt like any other token."""
    parts.order = at_random
    parts.finish.append(lambda batch: batch | {"labels": batch["labels"].masked_fill(batch["labels"] == -100, PAD)})


@fault("nothing but masked labels", "learning", ("nothing_to_learn", "dead_parameters"), ("documents", "windows"))
def silent_jury(parts: Parts) -> None:
    """Every label is -100."""
    parts.finish.append(lambda batch: batch | {"labels": torch.full_like(batch["labels"], -100)})
