"""Words that come again are looked up: GPT-2's split by Python's own ``re``, each word's tokens kept in a dictionary.

A corpus has few words and says them often, so nearly every one is found, and nothing but C runs between the text and
the bytes of its tokens: 1.1 to 1.4 times as fast as ``tiktoken``, which merges every word anew (docs/log.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

_KEPT = 2**17  # words, about 25 MiB; then all are forgotten: what is frequent is soon learnt again
_LONGEST = 48  # characters of a word that is kept

# Unicode's White_Space: what \s means in GPT-2's pattern as tiktoken reads it. Python's \s has U+001C to 1F too.
_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# GPT-2's pattern where every character is ASCII, its alternatives in the order in which they are likely to match.
_ASCII = re.compile(
    r"[A-Za-z]+| [A-Za-z]+|'(?:[sdmt]|ll|ve|re)|[^\t-\r A-Za-z0-9]+| [^\t-\r A-Za-z0-9]+|[0-9]+| [0-9]+"
    r"|[\t-\r ]+(?![^\t-\r ])|[\t-\r ]"
)
# The same elsewhere. Which of the other characters are letters or digits is left to tiktoken: where a word might go on
# with one, everything up to the next white space is taken as one piece. Nothing reaches across that place: the
# pattern never goes on from what is not white space to what is (data/blocks.py).
_REST = rf"[{_SPACE}]*[^{_SPACE}]+"
_UNICODE = re.compile(
    r" ?[A-Za-z]+(?![A-Za-z\x80-\U0010ffff])|'(?:[sdmt]|ll|ve|re)"
    r"| ?[^\t-\r A-Za-z0-9\x80-\U0010ffff]+(?![^\t-\r A-Za-z0-9])| ?[0-9]+(?![0-9\x80-\U0010ffff])"
    rf"|(?=[\t-\r ]*[^\x00-\x7f])(?:{_REST}|[{_SPACE}]+)"
    rf"|[\t-\r ]+(?![^\t-\r ])|[\t-\r]|{_REST}"
)


def words(text: str) -> list[str]:
    """``text`` in pieces that GPT-2's pattern splits alone as it splits them in their place; joined they are ``text``.

    >>> words("it's  naïve, isn't it?")
    ['it', "'s", ' ', ' naïve,', ' isn', "'t", ' it', '?']
    """
    return (_ASCII if text.isascii() else _UNICODE).findall(text)


class Words(dict[str, bytes]):
    """Word → its tokens as uint32 bytes; a word that is not there yet is encoded and, unless it is long, kept.

    Args:
        encode: ids of any text, split as GPT-2 does.
    """

    def __init__(self, encode: Callable[[str], Sequence[int]]) -> None:
        self._encode = encode

    def __missing__(self, word: str) -> bytes:
        tokens = np.array(self._encode(word), np.uint32).tobytes()
        if len(word) <= _LONGEST:
            if len(self) >= _KEPT:
                self.clear()
            self[word] = tokens
        return tokens

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """The ids of ``text``, shape (n_tokens,)."""
        return np.frombuffer(b"".join(map(self.__getitem__, words(text))), np.uint32)
