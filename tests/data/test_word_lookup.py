"""Words looked up one by one have the tokens of the whole text."""

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from ganeum.data import words as module
from ganeum.data.bpe import WORDS
from ganeum.data.words import Words, words

FRAGMENTS = [
    *" \n\t\v'.!_0\x1c\x85\xa0(\x7f\x00", "  ", "\n\n", " \n ", "word", "'s", "'ll", "'S", "12", "é", "가", "늠",
    "\u3000", "\u2009", "”", "か", "🙂", "e\u0301", "½", "٣", "a", "the", " naïve", "\u180e", "\u200b", "\ufeff",
]  # fmt: skip
BYTES = sorted(set("".join(FRAGMENTS).encode()))
PAIRS = [bytes([a, b]) for a in BYTES for b in BYTES]  # two bytes are one token, unless a word ends between them
ENCODING = tiktoken.Encoding(
    "pairs",
    pat_str=WORDS,
    mergeable_ranks={bytes([i]): i for i in range(256)} | {pair: 256 + i for i, pair in enumerate(PAIRS)},
    special_tokens={},
)


@settings(max_examples=500)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=60).map("".join) | st.text())
def test_words_have_the_tokens_of_the_text(text: str) -> None:
    """tiktoken's ids of the whole text are those of its words one after the other, and no character is lost."""
    assert text == "".join(words(text))
    assert ENCODING.encode_ordinary(text) == Words(ENCODING.encode_ordinary).encode(text).tolist()


def test_a_full_dictionary_forgets_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for three words the ids are the same; long words are never kept."""
    monkeypatch.setattr(module, "_KEPT", 3)
    looked_up, text = Words(ENCODING.encode_ordinary), "the whole words " * 9 + "x" * 100
    assert ENCODING.encode_ordinary(text) == looked_up.encode(text).tolist()
    assert 3 >= len(looked_up)
    assert all(len(word) < 50 for word in looked_up)


def test_a_megabyte_of_anything_takes_no_time() -> None:
    """Runs without end of any kind of character, and the ways from one to another, are split in linear time."""
    for run in (" ", "a", "é", "7", "(", "\u3000", " \u3000", "a(", "é "):
        for end in ("", "é", "\xa0", "a", " "):
            text = run * 500_000 + end
            assert len(text) == sum(map(len, words(text)))
