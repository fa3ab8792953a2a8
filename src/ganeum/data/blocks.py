"""Files of any size as blocks of about a mebibyte, cut where cutting changes no token.

A block holds whole documents, or a part of one that is larger than a block. Such a document is cut only in front of
white space that follows something else: no word of GPT-2's pattern reaches across that place, and both sides
are whole UTF-8, so the tokens of the parts are the tokens of the whole (tests/data/test_blocks.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ganeum.data.files import TextFile
from ganeum.errors import DataError

BLOCK_BYTES = 2**20
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
    """

    file: TextFile
    data: bytes
    offset: int
    document: int
    piece: int
    opens: bool
    closes: bool


@dataclass(frozen=True)
class Document:
    """A document, or a part of one: ``text`` in bytes, with what names it."""

    file: TextFile
    number: int
    data: bytes
    offset: int
    opens: bool
    closes: bool


def tasks(files: Iterable[TextFile], separator: bytes | None, size: int = BLOCK_BYTES) -> Iterator[list[Block]]:
    """Blocks in order, gathered until they make about ``size`` bytes together."""
    gathered: list[Block] = []
    held = 0
    for file in files:
        for block in _blocks(file, separator, size):
            gathered.append(block)
            held += len(block.data)
            if held >= size:
                yield gathered
                gathered, held = [], 0
    if gathered:
        yield gathered


def _blocks(file: TextFile, separator: bytes | None, size: int) -> Iterator[Block]:
    reserve = len(separator) if separator else 1  # a separator may begin in this read and end in the next
    buffer, offset, number, opens, piece = b"", 0, 0, True, 0
    try:
        with file.path.open("rb") as stream:
            while read := stream.read(size):
                if not buffer and offset == 0 and read.startswith(_BOM):
                    read, offset = read[len(_BOM) :], len(_BOM)
                buffer += read
                if len(buffer) < size:
                    continue
                if separator and (end := buffer.rfind(separator)) >= 0:
                    yield Block(file, buffer[:end], offset, number, piece, opens, True)
                    number += buffer.count(separator, 0, end) + 1
                    opens, after = True, end + len(separator)
                elif (end := _cut(buffer, len(buffer) - reserve, size)) > 0:
                    yield Block(file, buffer[:end], offset, number, piece, opens, False)
                    opens, after = False, end
                else:
                    continue
                buffer, offset, piece = buffer[after:], offset + after, piece + 1
    except OSError as error:
        raise DataError(f"{file.path} cannot be read", where=str(file.path.absolute()), why=error.strerror) from error
    if buffer or not opens:
        yield Block(file, buffer, offset, number, piece, opens, True)


def _cut(buffer: bytes, limit: int, size: int) -> int:
    """The last place up to ``limit`` where cutting changes no token; 0: none, read on."""
    if found := _CUT.match(buffer, 0, limit):
        return found.end()
    if len(buffer) < _LONGEST_WORD_BLOCKS * size:
        return 0
    while limit > 1 and 0x80 <= buffer[limit] < 0xC0:  # never inside a character
        limit -= 1
    return limit


def documents(block: Block, separator: bytes | None) -> Iterator[Document]:
    """The documents of a block, those without a byte left out.

    With a separator the line breaks around it belong to neither side: TinyStories sets it on a line of its own.
    """
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
