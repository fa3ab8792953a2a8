"""Files of any size as blocks of about a mebibyte, cut where cutting changes no token.

A block holds whole documents, or a part of one that is larger than a block. Such a document is cut only in front of
white space that follows something else: no word of GPT-2's pattern reaches across that place, and both sides
are whole UTF-8, so the tokens of the parts are the tokens of the whole (tests/data/test_blocks.py). Rows are never cut.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ganeum.data.files import TextFile
from ganeum.data.forms import opened
from ganeum.data.rows import TEXT_COLUMN, Column, line_text, texts

BLOCK_BYTES = 2**20
LONGEST_UNCUT = 2**23  # of a document for a tokenizer whose tokens may hang on where it is cut
_LONGEST_WORD_BLOCKS = 4  # without white space for longer than this, a document is cut anywhere between characters
_BOM = b"\xef\xbb\xbf"
# One whole character that is certainly not white space (those of Unicode begin with C2, E1, E2 or E3 80), then some.
_CUT = re.compile(
    rb"(?s:.*)(?:[\x21-\x7e]|[\xc3-\xdf][\x80-\xbf]|\xe3[\x81-\xbf][\x80-\xbf]|[\xe4-\xef][\x80-\xbf]{2}"
    rb"|[\xf0-\xf4][\x80-\xbf]{3})(?=[ \n])"
)


@dataclass(frozen=True)
class Block:
    """Consecutive bytes of one file.

    Attributes:
        file: where they come from.
        data: they; documents in them lie between separators.
        offset: of the first byte in the file.
        document: number, in the file, of the first document here.
        piece: number, in the file, of this block.
        opens, closes: the first document begins here; the last one ends here.
        ends: where each row's text ends in ``data``, for rows that were read already; else None.
        bad: broken rows left out of them.
        read: bytes of the file, as it lies on the disk, that reading this block went through.
    """

    file: TextFile
    data: bytes
    offset: int
    document: int
    piece: int
    opens: bool
    closes: bool
    ends: tuple[int, ...] | None = None
    bad: int = 0
    read: int = 0


@dataclass
class Tally:
    """Rows that were seen, and of them those that have no text, and those that were broken and left out."""

    rows: int = 0
    without_text: int = 0
    bad: int = 0

    def add(self, other: Tally) -> None:
        """Count another's as well."""
        self.rows += other.rows
        self.without_text += other.without_text
        self.bad += other.bad


@dataclass(frozen=True)
class Document:
    """A document, or a part of one: ``text`` in bytes, with what names it."""

    file: TextFile
    number: int
    data: bytes
    offset: int
    opens: bool
    closes: bool


def tasks(
    files: Iterable[TextFile],
    separator: bytes | None,
    size: int = BLOCK_BYTES,
    column: Column = TEXT_COLUMN,
    uncut: int = 0,
) -> Iterator[list[Block]]:
    """Blocks in order, gathered until they make about ``size`` bytes together.

    Documents of up to ``uncut`` bytes are never cut, whatever the size of a block.
    """
    gathered: list[Block] = []
    held = 0
    for file in files:
        match file.form:
            case "text":
                blocks = _blocks(file, separator, size, uncut)
            case "lines":
                blocks = _blocks(file, b"\n", size, sys.maxsize)
            case _:
                blocks = _row_blocks(file, size, column)
        for block in blocks:
            gathered.append(block)
            held += len(block.data)
            if held >= size:
                yield gathered
                gathered, held = [], 0
    if gathered:
        yield gathered


def _blocks(file: TextFile, separator: bytes | None, size: int, uncut: int) -> Iterator[Block]:
    reserve = len(separator) if separator else 1  # a separator may begin in this read and end in the next
    buffer, offset, number, opens, piece, told = b"", 0, 0, True, 0, 0
    with opened(file.path) as (stream, raw):
        while read := stream.read(size):
            if not buffer and offset == 0 and read.startswith(_BOM):
                read, offset = read[len(_BOM) :], len(_BOM)
            buffer += read
            if len(buffer) < size:
                continue
            told, before = raw.tell(), told
            if separator and (end := buffer.rfind(separator)) >= 0:
                yield Block(file, buffer[:end], offset, number, piece, opens, True, read=told - before)
                number += buffer.count(separator, 0, end) + 1
                opens, after = True, end + len(separator)
            elif len(buffer) > uncut and (end := _cut(buffer, len(buffer) - reserve, size)) > 0:
                yield Block(file, buffer[:end], offset, number, piece, opens, False, read=told - before)
                opens, after = False, end
            else:
                told = before
                continue
            buffer, offset, piece = buffer[after:], offset + after, piece + 1
        rest = raw.tell() - told
    if buffer or not opens:
        yield Block(file, buffer, offset, number, piece, opens, True, read=rest)


def _row_blocks(file: TextFile, size: int, column: Column) -> Iterator[Block]:
    # workers know the file by its name; what is open stays here
    block = Block(replace(file, dataset=None), b"", 0, 0, 0, True, True, ends=())
    with texts(file, column) as (rows, place):
        gathered, ends, bad, number, told = bytearray(), list[int](), 0, 0, 0
        for text in rows:
            gathered += text or b""
            ends.append(len(gathered))
            bad += text is None
            if len(gathered) >= size:
                told, before = max(told, place()), told
                yield replace(block, data=bytes(gathered), ends=tuple(ends), bad=bad, read=told - before)
                number += len(ends)
                block = replace(block, document=number, piece=block.piece + 1)
                gathered, ends, bad = bytearray(), [], 0
        yield replace(block, data=bytes(gathered), ends=tuple(ends), bad=bad, read=max(0, place() - told))


def _cut(buffer: bytes, limit: int, size: int) -> int:
    """The last place up to ``limit`` where cutting changes no token; 0: none, read on."""
    if found := _CUT.match(buffer, 0, limit):
        return found.end()
    if len(buffer) < _LONGEST_WORD_BLOCKS * size:
        return 0
    while limit > 1 and 0x80 <= buffer[limit] < 0xC0:  # never inside a character
        limit -= 1
    return limit


def documents(
    block: Block, separator: bytes | None, column: Column = TEXT_COLUMN, tally: Tally | None = None
) -> Iterator[Document]:
    """The documents of a block, those without a byte left out; rows are counted into ``tally``.

    With a separator the line breaks around it belong to neither side: TinyStories sets it on a line of its own.
    """
    match block.file.form:
        case "text":
            yield from _between(block, separator)
        case "lines":
            yield from _of_lines(block, column, tally or Tally())
        case _:
            yield from _of_rows(block, tally or Tally())


def _of_lines(block: Block, column: Column, tally: Tally) -> Iterator[Document]:
    offset = block.offset
    for number, line in enumerate(block.data.split(b"\n"), block.document):
        if line.strip():
            tally.rows += 1
            text = line_text(line, column, block.file.path, number + 1)
            tally.bad += text is None
            tally.without_text += text == b""
            if text:
                yield Document(block.file, number, text, offset, True, True)
        offset += len(line) + 1


def _of_rows(block: Block, tally: Tally) -> Iterator[Document]:
    assert block.ends is not None
    tally.rows += len(block.ends)
    tally.bad += block.bad
    tally.without_text -= block.bad
    start = 0
    for number, end in enumerate(block.ends, block.document):
        if start == end:
            tally.without_text += 1
        else:
            yield Document(block.file, number, block.data[start:end], 0, True, True)
        start = end


def _between(block: Block, separator: bytes | None) -> Iterator[Document]:
    parts = block.data.split(separator) if separator else [block.data]
    offset = block.offset
    for place, part in enumerate(parts):
        opens, closes = place > 0 or block.opens, place + 1 < len(parts) or block.closes
        data, start = part, offset
        offset += len(part) + len(separator or b"")
        if separator:
            if opens:
                data = data.lstrip(b"\r\n")
                start += len(part) - len(data)
            if closes:
                data = data.rstrip(b"\r\n")
        if data or not opens:
            yield Document(block.file, block.document + place, data, start, opens, closes)


def held_out_share(seed: int, file: TextFile, number: int) -> float:
    """A number in [0, 1) that depends on the seed and the document's name only: below ``val_share``, it is held out."""
    return _share(f"{seed}\0{file.key}\0{number}")


def sample_share(seed: int, block: Block) -> float:
    """The same for a block, to choose what BPE is trained on."""
    return _share(f"{seed}\0{block.file.key}\0{block.piece}\0sample")


def _share(key: str) -> float:
    return (
        int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=7).digest(), "big") / 2**56
    )
