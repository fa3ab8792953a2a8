"""The text: whether it is there, how much of it, cut how, and whether any of it is kept back to judge by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ganeum import units
from ganeum.data.windows import Windows
from ganeum.plan.critique.facts import Facts, Warning

LONG_CONTEXT = 2  # documents in a window, on average


def missing(facts: Facts) -> Iterator[Warning]:
    """Nothing was prepared, and nobody said how much there will be."""
    if facts.lengths.tokens is not None:
        return
    directory = facts.config.data.directory
    script = Path(directory) / "prepare.py"
    advice = f"python {script}" if script.exists() else f"ganeum prepare PATH… --out {directory}"
    if not facts.vocab_known and not script.exists():
        advice += " --tokenizer gpt2"  # the vocabulary assumed here
    yield Warning(
        "error",
        f"there is no data in {directory} yet",
        "windows, steps per epoch and repeats are not known"
        + ("" if facts.vocab_known else f"; the vocabulary is taken to be GPT-2's {facts.config.model.vocab_size:,}"),
        f"prepare it ({advice}), or give its size: --tokens N",
    )


def too_little(facts: Facts) -> Iterator[Warning]:
    """No window, or no batch, can be made of it."""
    length, train = facts.lengths, facts.config.train
    if length.tokens is None or length.windows is None:
        return
    if length.windows == 0:
        yield Warning(
            "error",
            "the text is shorter than one window",
            f"{units.things(length.tokens, 'token')}; a window needs "
            f"model.block_size + 1 = {facts.config.model.block_size + 1:,}",
            f"more text, or model.block_size={max(1, length.tokens - 1)} at most",
        )
    elif length.steps_per_epoch == 0 and facts.config.data.order == "epochs":
        yield Warning(
            "error",
            "an epoch is shorter than one batch",
            f"{length.windows:,} windows, and train.batch_size is {train.batch_size:,}",
            f"train.batch_size={length.windows} at most, or data.order=random",
        )


def nothing_held_out(facts: Facts) -> Iterator[Warning]:
    """Without held-out text nobody sees when learning turns into learning by heart."""
    if facts.held_out != 0 or facts.config.train.eval_only:
        return
    directory, once = facts.config.data.directory, facts.lengths.repeats_per_token or 0.0
    again = "--val OTHER_TEXT"
    if facts.meta is not None and facts.meta.train.documents == 1:
        again += ", or --split-on with what divides this text into documents"
    yield Warning(
        "warning" if once > 1 else "note",
        "there is no validation set",
        f"{directory} holds train.bin alone: the loss on text seen {once:,.3g} times says nothing about other text, no "
        "checkpoint is the best one, and train.patience has nothing to go by",
        f"prepare it again with {again}",
        lost=0.5 if once > 1 else 0.0,
    )


def overlap(facts: Facts) -> Iterator[Warning]:
    """Windows closer together than they are long bring the same tokens again within an epoch."""
    data, block, length = facts.config.data, facts.config.model.block_size, facts.lengths
    if data.order != "epochs" or data.stride == "auto" or data.stride >= block:
        return
    times = block / data.stride
    figure = (
        f"windows of {block:,} tokens start {data.stride:,} apart: each token is trained on {times:g} times an epoch"
    )
    advice = f"data.stride=auto: the same text in 1/{times:g} of the steps"
    if length.tokens is not None and length.steps_per_epoch:
        apart = Windows(length.tokens, block, block)
        advice = (
            f"data.stride=auto: {apart.count:,} windows, {apart.steps_per_epoch(facts.config.train.batch_size):,} "
            f"steps an epoch instead of {length.steps_per_epoch:,}"
        )
    yield Warning("warning", "the windows overlap, so an epoch is several", figure, advice, lost=1 - 1 / times)


def short_documents(facts: Facts) -> Iterator[Warning]:
    """A context that holds several documents teaches to look at what has nothing to do with the next token."""
    block = facts.config.model.block_size
    if facts.meta is None or not facts.meta.train.documents:
        return
    train = facts.meta.train
    average = train.tokens / train.documents
    if block < LONG_CONTEXT * average:
        return
    fitting = max(64, 1 << round(average).bit_length())
    yield Warning(
        "note",
        "the context is longer than the documents",
        f"{train.documents:,} documents of {average:,.0f} tokens on average: a window of {block:,} holds about "
        f"{block / average:,.3g} of them, one after the other",
        f"model.block_size={fitting}, with train.batch_size={facts.config.train.batch_size * block // fitting} for the "
        "same tokens in a step"
        if fitting < block
        else "longer documents",
    )


LOOKS = (missing, too_little, nothing_held_out, overlap, short_documents)
