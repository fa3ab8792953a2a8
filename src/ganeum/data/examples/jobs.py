"""What a worker does with rows: texts become tokens, cut to length, and what was cut or left out is counted."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ganeum.data.blocks import Block, tasks
from ganeum.data.examples.encoding import Encoder, one_thread
from ganeum.data.examples.fields import Fields, Row
from ganeum.data.examples.tokenizer import Around, cut
from ganeum.data.files import TextFile
from ganeum.data.rows import line_text, texts, utf8

_ROWS_A_TASK = 4_096
_CHARACTERS_A_TASK = 2**20
_TEXTS_AT_ONCE = 256  # in a call of the library, whose results take far more memory than the tokens in them

Task = list[Block] | list[Row]


@dataclass(frozen=True)
class Recipe:
    """How a row becomes tokens.

    Attributes:
        fields: the columns.
        prefix: in front of every source.
        source, target: what stands around each.
        max_source, max_target: tokens of each at most, with what stands around.
        end_stays: a target that is cut has its end all the same, as transformers cuts; a single text has not, because
            it does not end there.
        side: which side is kept of what is cut.
        typecode: of an id, as ``array`` has it: H, two bytes, or I, four.
    """

    fields: Fields
    prefix: str
    source: Around
    target: Around
    max_source: int
    max_target: int
    end_stays: bool
    side: Literal["left", "right"]
    typecode: str

    @property
    def pairs(self) -> bool:
        """Whether an example has a source."""
        return len(self.fields.names) == 2


@dataclass
class Side:
    """Sources or targets of some examples: ids one behind the other, how many each has, and had before cutting."""

    ids: array[int]
    lengths: array[int] = field(default_factory=lambda: array("i"))
    uncut: array[int] = field(default_factory=lambda: array("i"))


@dataclass
class Encoded:
    """A task's examples.

    Attributes:
        digests: 64 bits of the hash of each source, or of each single text: equal ones stay together when a part is
            held out.
        rows: seen; ``empty``: of them left out because a text is null or has nothing but white space; ``short``: single
            texts left out because they have one token, after which nothing comes to be learnt.
        replaced: texts in which bytes that are not Unicode became U+FFFD.
    """

    source: Side
    target: Side
    digests: array[int] = field(default_factory=lambda: array("Q"))
    rows: int = 0
    empty: int = 0
    short: int = 0
    replaced: int = 0


def tasks_of(files: Iterable[TextFile], fields: Fields) -> Iterator[Task]:
    """The rows in their order: as blocks of JSON lines, which the workers read, or read already."""
    for file in files:
        if file.form == "lines":
            yield from tasks([file], b"\n")
            continue
        gathered: list[Row] = []
        held = 0
        with texts(file, fields) as (rows, _):
            for row in rows:
                gathered.append(row)
                held += sum(len(text or "") for text in row)
                if held >= _CHARACTERS_A_TASK or len(gathered) >= _ROWS_A_TASK:
                    yield gathered
                    gathered, held = [], 0
        if gathered:
            yield gathered


_recipe: Recipe
_encoder: Encoder


def start(recipe: Recipe, encoder: Encoder, alone: bool) -> None:
    """Before ``encode``, once in each process. ``alone``: no other works beside it."""
    global _recipe, _encoder
    _recipe, _encoder = recipe, encoder
    if not alone:
        one_thread()
    encoder.start()


def encode(task: Task) -> Encoded:
    """A task's examples, in the order of its rows."""
    made = Encoded(Side(array(_recipe.typecode)), Side(array(_recipe.typecode)))
    rows = _rows(task)
    while some := [row for _, row in zip(range(_TEXTS_AT_ONCE), rows, strict=False)]:
        _encode(some, made)
    return made


def _rows(task: Task) -> Iterator[Row]:
    for part in task:
        if isinstance(part, tuple):
            yield part
            continue
        for number, line in enumerate(part.data.split(b"\n"), part.document + 1):
            if line.strip():
                yield line_text(line, _recipe.fields, part.file.path, number)


def _encode(rows: Sequence[Row], made: Encoded) -> None:
    made.rows += len(rows)
    kept = [_unicode(row, made) for row in rows if all(text and not text.isspace() for text in row)]
    made.empty += len(rows) - len(kept)
    if not kept:
        return
    targets = _encoder.encode([row[-1] for row in kept])
    sources = _encoder.encode([_recipe.prefix + row[0] for row in kept]) if _recipe.pairs else [()] * len(kept)
    for row, source, target in zip(kept, sources, targets, strict=True):
        if not _recipe.pairs and len(target) + _recipe.target.count < 2:
            made.short += 1
            continue
        if _recipe.pairs:
            _add(made.source, source, _recipe.source, _recipe.max_source, end_stays=True)
        else:
            made.source.lengths.append(0)
            made.source.uncut.append(0)
        _add(made.target, target, _recipe.target, _recipe.max_target, end_stays=_recipe.end_stays)
        digest = hashlib.blake2b(row[0].encode(), digest_size=8).digest()
        made.digests.append(int.from_bytes(digest, "little"))


def _unicode(row: Row, made: Encoded) -> tuple[str, ...]:
    """The texts, with U+FFFD for bytes that were not UTF-8 and for halves of surrogate pairs."""
    texts = tuple(text or "" for text in row)
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        made.replaced += 1
        return tuple(utf8(text).decode("utf-8", "replace") for text in texts)
    return texts


def _add(side: Side, ids: Sequence[int], around: Around, most: int, *, end_stays: bool) -> None:
    """One text's ids with what stands around them, cut so that all are ``most`` at most."""
    before, after, uncut = around.before, around.after, len(ids) + around.count
    if uncut > most:
        after = after if end_stays else ()
        ids = cut(ids, most - len(before) - len(after), _recipe.side)
    side.ids.extend((*before, *ids, *after))
    side.lengths.append(len(before) + len(ids) + len(after))
    side.uncut.append(uncut)
