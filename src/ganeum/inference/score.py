"""What generated texts are worth beside references: how many are right, and ROUGE by rouge-score's own code.

rouge-score is Google's (``google-research/rouge``): unchanged since 2022, and what papers report. It counts words of
a-z and 0-9 alone, so that of a Korean text nothing is left; here it is given the words.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from ganeum.errors import DataError, MissingExtra

Words = Literal["english", "words", "syllables"]
KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
# One by one in "syllables": Hangul's, kana, and Chinese characters.
ALONE = (("\uac00", "\ud7a3"), ("\u3040", "\u30ff"), ("\u3400", "\u9fff"))


@dataclass(frozen=True)
class Score:
    """The mean of a figure over all pairs, 0 to 1, and how far it may be off (1.96 standard errors: 95 in 100).

    One pair says nothing of how far: None.
    """

    mean: float
    off: float | None

    @staticmethod
    def of(values: list[float]) -> Score:
        n = len(values)
        mean = math.fsum(values) / n
        if n == 1:
            return Score(mean, None)
        spread = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
        return Score(mean, 1.96 * math.sqrt(spread / n))


@dataclass(frozen=True)
class Scores:
    """What came of all pairs.

    Attributes:
        pairs: how many.
        words: what counts as a word in ROUGE.
        exact: share of texts that are the reference, but for white space around them.
        one_for_all: the same if each text were the most frequent reference: what knowing nothing comes to.
        rouge: kind → precision, recall and their harmonic mean ``f``.
    """

    pairs: int
    words: Words
    exact: Score
    one_for_all: float
    rouge: dict[str, dict[str, Score]]


def score(pairs: Iterable[tuple[str, str]], words: Words | Literal["auto"] = "auto") -> Scores:
    """Scores texts, each beside its reference.

    Args:
        pairs: (text, reference).
        words: english: rouge-score's own, a-z and 0-9 with Porter's stemmer; words: runs of letters and digits of any
            script, without a stemmer, of a Korean text what stands between spaces; syllables: the same, but each
            syllable of Hangul, kana or Chinese character by itself; auto: english where all references are ASCII, else
            words.
    Raises:
        DataError: there are none.
        MissingExtra: rouge-score is not installed.
    """
    if find_spec("rouge_score") is None:
        raise MissingExtra(
            "ROUGE needs the package rouge-score, which is not installed", suggestion='pip install "ganeum[rouge]"'
        )
    from rouge_score.rouge_scorer import RougeScorer

    given = list(pairs)
    if not given:
        raise DataError("there are no texts to score")
    if words == "auto":
        words = "english" if all(reference.isascii() for _, reference in given) else "words"
    scorer = RougeScorer(KINDS, use_stemmer=True, tokenizer=None if words == "english" else Splitter(words))
    found: list[dict[str, Any]] = [scorer.score(reference, text) for text, reference in given]
    names = {"precision": "precision", "recall": "recall", "f": "fmeasure"}
    return Scores(
        pairs=len(given),
        words=words,
        exact=Score.of([float(text.strip() == reference.strip()) for text, reference in given]),
        one_for_all=Counter(reference.strip() for _, reference in given).most_common(1)[0][1] / len(given),
        rouge={
            kind: {name: Score.of([getattr(one[kind], theirs) for one in found]) for name, theirs in names.items()}
            for kind in KINDS
        },
    )


class Splitter:
    """Words as rouge-score's ``tokenizer`` gives them.

    >>> Splitter("words").tokenize("한국어를 배워요, 2024년")
    ['한국어를', '배워요', '2024년']
    >>> Splitter("syllables").tokenize("한국어 T5")
    ['한', '국', '어', 't5']
    """

    def __init__(self, words: Words) -> None:
        self._alone = words == "syllables"

    def tokenize(self, text: str) -> list[str]:
        """Compatible forms are one (NFKC), as are small and capital letters; punctuation and spaces separate."""
        split = []
        for character in unicodedata.normalize("NFKC", text).casefold():
            if unicodedata.category(character)[0] not in "LMN":  # letters, marks on them, numbers
                split.append(" ")
            elif self._alone and any(first <= character <= last for first, last in ALONE):
                split.append(f" {character} ")
            else:
                split.append(character)
        return "".join(split).split()
