"""Text → tokens: ``train.bin``, ``val.bin``, ``meta.json`` and ``tokenizer/``, all of them or none.

Three passes over the files, each streaming: count (documents, their hashes, characters), train BPE on a sample, encode.
Everything is written into a temporary directory inside the one to fill, and takes its place when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

import ganeum
from ganeum.data import jobs
from ganeum.data.blocks import LONGEST_UNCUT, Block, Tally, sample_share, tasks
from ganeum.data.bpe import BPE, refuse_small
from ganeum.data.corpus import PREPARING
from ganeum.data.files import Source, Survey, Walk, shown
from ganeum.data.gpt2 import gpt2
from ganeum.data.meta import HELD_OUT_NAMES, META, PRODUCTS, Meta, Part, Split
from ganeum.data.meta import Source as MetaSource
from ganeum.data.placing import refuse_or_reuse, take_place, temporary
from ganeum.data.rows import Column
from ganeum.data.tokenizer import Bytes, Characters, Tokenizer, load_tokenizer
from ganeum.data.workers import in_order
from ganeum.errors import DataError
from ganeum.record.files import write_json
from ganeum.units import things

SAMPLE_BYTES = 32 * 2**20  # of text that BPE is trained on
_BYTES_WORTH_A_WORKER = 4 * 2**20  # a process takes about half a second to start

Progress = Callable[[str, int, int], None]  # (phase, bytes done, bytes in all)


@dataclass(frozen=True)
class Preparation:
    """What to prepare, and how.

    Attributes:
        sources: what to read, in this order.
        out: the directory to fill.
        tokenizer: bpe, gpt2, bytes, characters, or a place that ``load_tokenizer`` reads.
        vocab_size: ids wanted of a BPE trained here.
        val_share: share of the documents held out, where no source is validation text.
        separator: what stands between documents in a file; None: a file is a document.
        seed: of the split and of BPE's sample.
        workers: processes; the result does not depend on it.
        strict: bytes that are not UTF-8 are refused instead of replaced.
        overwrite: prepare again, and over another preparation's files.
        column: that holds the text of rows.
        skip_bad_rows: broken rows are left out and counted, not an error.
        as_text: files that hold rows are text as they stand.
        end_of_text: the token that ends a text, where a tokenizer's own files do not say it; empty: none (characters
            have none then either).
        gpt2_vocabulary: a file or directory with GPT-2's vocabulary; None: where ``tiktoken`` keeps or finds it.
    """

    sources: tuple[Source, ...]
    out: Path
    tokenizer: str = "bpe"
    vocab_size: int = 8192
    val_share: float = 0.05
    separator: str | None = None
    seed: int = 1337
    workers: int = 1
    strict: bool = False
    overwrite: bool = False
    gpt2_vocabulary: Path | None = None
    column: str = "text"
    skip_bad_rows: bool = False
    as_text: bool = False
    end_of_text: str | None = None


@dataclass(frozen=True)
class Prepared:
    """What came of it. ``unchanged``: the same input had been prepared before, and nothing was done.

    ``skipped_names``: the first five of the files left out because they are not text; ``prepared``: directories whose
    tokens, from an earlier preparation, were left out; ``worst``: the file of which the largest share of bytes is not
    UTF-8, and that share (known where something was done).
    """

    meta: Meta
    unchanged: bool
    skipped_names: tuple[str, ...]
    prepared: tuple[str, ...]
    worst: tuple[Path, float] | None = None


def prepare(what: Preparation, progress: Progress = lambda phase, done, total: None) -> Prepared:
    """Fill ``what.out``.

    The same files, options and versions of the tokenizer libraries give the same bytes, on any number of workers.

    Raises:
        DataError: no text, text that cannot be read, other data in the way, a vocabulary that cannot be had.
    """
    walk = Walk(
        what.sources, {(what.out / name).resolve() for name in (*PRODUCTS, PREPARING)}, what.column, what.as_text
    )
    survey = walk.survey()
    fingerprint = _fingerprint(what, survey)
    if not what.overwrite and (before := refuse_or_reuse(what.out, fingerprint)):
        return Prepared(before, True, tuple(survey.skipped_names), tuple(survey.prepared))
    if survey.bytes == 0:
        raise _no_text(what, survey)
    for source, (_, size) in zip(what.sources, survey.sizes, strict=True):
        if source.part == "val" and size == 0:
            raise _no_val(str(source.path))
    what = replace(what, workers=min(what.workers, 1 + survey.bytes // _BYTES_WORTH_A_WORKER))
    named = _named(what)
    with temporary(what.out) as directory:
        meta, worst = _fill(directory, what, named, walk, survey, fingerprint, progress)
        take_place(directory, what.out)
    return Prepared(meta, False, tuple(survey.skipped_names), tuple(survey.prepared), worst)


def _fill(
    directory: Path,
    what: Preparation,
    named: Tokenizer | None,
    walk: Walk,
    survey: Survey,
    fingerprint: str,
    progress: Progress,
) -> tuple[Meta, tuple[Path, float] | None]:
    given = any(source.part == "val" for source in what.sources)
    separator = what.separator.encode() if what.separator else None
    column = Column(what.column, what.skip_bad_rows)
    rules = jobs.Rules(separator, what.seed, 0.0 if given else what.val_share, what.strict, column)
    rules, rule, characters, text_bytes = _counted(what, walk, survey, rules, progress)
    tokenizer: Tokenizer
    if named is not None:
        tokenizer = named
    elif what.tokenizer == "characters":
        tokenizer = Characters(characters, end_of_text=what.end_of_text != "")
    else:
        tokenizer = BPE.train(_sample(walk, survey, rules, text_bytes, progress), what.vocab_size)
    tokenizer.save(directory / "tokenizer")
    dtype: Literal["uint16", "uint32"] = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"

    writers = {part: _Writer(directory / f"{part}.bin") for part in ("train", "val")}
    replaced, held_out, tally = Counter[Path](), list[str](), Tally()
    encoded = in_order(
        jobs.encode,
        tasks(walk, separator, column=column, uncut=0 if tokenizer.cuts else LONGEST_UNCUT),
        what.workers,
        initialize=jobs.start_encoding,
        arguments=(rules, directory / "tokenizer", np.dtype(dtype).newbyteorder("<")),
    )
    done = 0
    progress("tokens", done, survey.bytes)
    for made in encoded:
        for part, writer in writers.items():
            writer.write(made, part)
        replaced.update(made.replaced)
        tally.add(made.tally)
        held_out += made.held_out[: HELD_OUT_NAMES + 1 - len(held_out)]
        done += made.read_bytes
        progress("tokens", done, survey.bytes)
    parts = {part: writer.close() for part, writer in writers.items()}
    if parts["train"].tokens == 0:
        raise _no_text(what, survey)
    val = parts["val"] if parts["val"].tokens else None
    if val is None and given:
        raise _no_val(", ".join(str(source.path) for source in what.sources if source.part == "val"))
    if val is None:
        (directory / "val.bin").unlink()
    names_known = separator is None and not tally.rows and len(held_out) <= HELD_OUT_NAMES
    meta = Meta(
        ganeum_version=ganeum.__version__,
        tokenizer=tokenizer.kind,
        vocab_size=tokenizer.vocab_size,
        dtype=dtype,
        train=parts["train"],
        val=val,
        split=Split(
            rule=rule,
            val_share=what.val_share,
            seed=what.seed,
            separator=what.separator,
            held_out=held_out if names_known and all(shown(name) == name for name in held_out) else None,
        ),
        sources=[
            MetaSource(
                path=shown(source.path if source.dataset else source.path.absolute()),
                part=source.part,
                files=files,
                bytes=size,
            )
            for source, (files, size) in zip(what.sources, survey.sizes, strict=True)
        ],
        replaced_bytes=replaced.total(),
        skipped_files=survey.skipped,
        rows=tally.rows,
        rows_without_text=tally.without_text,
        bad_rows=tally.bad,
        fingerprint=fingerprint,
    )
    write_json(directory / META, meta.model_dump())
    shares = {path: count / max(1, path.stat().st_size) for path, count in replaced.items()}
    return meta, max(shares.items(), key=lambda item: item[1], default=None)


def _counted(
    what: Preparation, walk: Walk, survey: Survey, rules: jobs.Rules, progress: Progress
) -> tuple[jobs.Rules, Literal["hash", "given", "none"], str, int]:
    """The rules with a threshold that leaves a document on either side, the rule's name, the characters there are, and
    about how many bytes of text.

    Where nothing hangs on every document, reading ends as soon as either side has one.
    """
    found, characters = jobs.Counted(), set[str]()
    low, high = 1.0, 0.0
    all_matter = what.strict or what.tokenizer == "characters"
    given = any(source.part == "val" for source in what.sources)
    for one in in_order(
        jobs.count,
        tasks(walk, rules.separator, column=rules.column),
        what.workers if all_matter else 1,  # without decoding it is only reading
        initialize=jobs.start_counting,
        arguments=(rules, what.tokenizer == "characters"),
    ):
        found.documents += one.documents
        found.undecided += one.undecided
        found.held_out += one.held_out
        found.text_bytes += one.text_bytes
        low, high = min(low, (one.hashes or (low, high))[0]), max(high, (one.hashes or (low, high))[1])
        characters |= one.characters
        found.read_bytes += one.read_bytes
        progress("reading", found.read_bytes, survey.bytes)
        either_side = 0 < found.held_out < found.undecided or what.val_share == 0 or given
        if found.documents and either_side and not all_matter:
            progress("reading", survey.bytes, survey.bytes)
            break
    if found.documents == 0:
        raise _no_text(what, survey)
    text_bytes = max(1, found.text_bytes * survey.bytes // max(1, found.read_bytes))
    sorted_characters = "".join(sorted(characters))
    rule: Literal["hash", "given", "none"] = "hash"
    if given:
        rule = "given"
    elif found.undecided < 2 or what.val_share == 0:
        rules, rule = replace(rules, threshold=0.0), "none"
    elif found.held_out == 0:
        rules = replace(rules, threshold=float(np.nextafter(low, 1.0)))
    elif found.held_out == found.undecided:
        rules = replace(rules, threshold=high)
    return rules, rule, sorted_characters, text_bytes


def _named(what: Preparation) -> Tokenizer | None:
    """The tokenizer, where no text is needed to make it: what cannot be had is said before anything is read."""
    match what.tokenizer:
        case "bytes":
            return Bytes()
        case "gpt2":
            return gpt2(what.gpt2_vocabulary)
        case "bpe":
            refuse_small(what.vocab_size)
            return None
        case "characters":
            return None
        case place if Path(place).exists():
            return load_tokenizer(place, what.end_of_text)
        case name:
            raise DataError(
                f"there is no tokenizer {name!r}",
                why="it is neither bpe, gpt2, bytes or characters nor a place where one lies",
                suggestion="--tokenizer bpe, say",
            )


def _sample(walk: Walk, survey: Survey, rules: jobs.Rules, text_bytes: int, progress: Progress) -> Iterator[str]:
    """About ``SAMPLE_BYTES`` of training text, chosen block by block by a hash; never held-out text."""
    share = SAMPLE_BYTES / text_bytes
    done = 0

    def chosen(block: Block) -> bool:
        return share >= 1.0 or sample_share(rules.seed, block) < share

    for task in tasks(walk, rules.separator, column=rules.column):
        for document in rules.documents([block for block in task if chosen(block)]):
            if rules.part_of(document) == "train":
                yield rules.text_of(document)[0]
        done += sum(block.read for block in task)
        progress("vocabulary", done, survey.bytes)


class _Writer:
    """One ``.bin`` file, its checksum worked out on the way."""

    def __init__(self, path: Path) -> None:
        self._file, self._sha256 = path.open("wb"), hashlib.sha256()
        self.tokens = self.bytes = self.documents = 0

    def write(self, made: jobs.Encoded, part: str) -> None:
        self.bytes += made.bytes[part]
        self.documents += made.documents[part]
        if part in made.ids:
            data = made.ids[part].tobytes()
            self._sha256.update(data)
            self._file.write(data)
            self.tokens += len(made.ids[part])

    def close(self) -> Part:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return Part(tokens=self.tokens, bytes=self.bytes, documents=self.documents, sha256=self._sha256.hexdigest())


def _fingerprint(what: Preparation, survey: Survey) -> str:
    options = [ganeum.__version__, what.tokenizer, what.val_share, what.separator, what.seed, what.strict]
    options += [what.column, what.skip_bad_rows, what.as_text, what.end_of_text]
    if what.tokenizer == "bpe":
        options.append(what.vocab_size)
    elif (place := Path(what.tokenizer)).exists():
        files = sorted(path for path in place.iterdir() if path.is_file()) if place.is_dir() else [place]
        options += [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return hashlib.sha256(json.dumps([options, survey.fingerprint]).encode()).hexdigest()


def _no_val(paths: str) -> DataError:
    return DataError(
        "there is no text to validate on",
        where=paths,
        why="it was named for validation, but is empty or not text",
        suggestion="another --val, or none: then --val-share of the documents is held out",
    )


def _no_text(what: Preparation, survey: Survey) -> DataError:
    paths = ", ".join(str(source.path) for source in what.sources)
    patterns = sorted({pattern for source in what.sources for pattern in source.patterns})
    if survey.files == 0:
        why = "no text file is there" + (f" whose name matches {' or '.join(patterns)}" if patterns else "")
        if survey.skipped:
            left_out = f"{things(survey.skipped, 'file')} left out for not being text"
            why += f"; {left_out}: {survey.skipped_names[0]}" + (", …" if survey.skipped > 1 else "")
    else:
        why = f"there is no document for train.bin in {things(survey.files, 'text file')}"
    return DataError(
        "there is no text to learn from", where=paths, why=why, suggestion="other paths, or another --pattern"
    )
