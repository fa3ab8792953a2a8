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
Z = 1.96  # standard deviations on both sides hold 95 in 100
RESAMPLES = 1_000
# One by one in "syllables": Hangul's, kana, and Chinese characters.
ALONE = (("\uac00", "\ud7a3"), ("\u3040", "\u30ff"), ("\u3400", "\u9fff"))


@dataclass(frozen=True)
class Score:
    """A figure over all pairs, 0 to 1, and between what it may lie (95 in 100) for other pairs of the same kind.

    None where the pairs do not tell: of a mean, when all of them are alike.
    """

    mean: float
    low: float | None
    high: float | None

    @staticmethod
    def share(right: int, of: int) -> Score:
        """Wilson's interval (1927): unlike 1.96 standard errors it holds near 0 and 1, and of few pairs.

        >>> none = Score.share(0, 288)
        >>> f"{none.mean} {none.low:.3f} {none.high:.3f}"
        '0.0 0.000 0.013'
        """
        p, z2 = right / of, Z * Z
        middle = (p + z2 / (2 * of)) / (1 + z2 / of)
        off = Z * math.sqrt(p * (1 - p) / of + z2 / (4 * of * of)) / (1 + z2 / of)
        return Score(p, max(0.0, middle - off), min(1.0, middle + off))

    @staticmethod
    def means(values: Any) -> list[Score]:
        """Of each column of (pairs, columns): the middle 95 % of the means of ``RESAMPLES`` draws of as many pairs (the
        bootstrap, Efron 1979), the same draws for all columns, from a fixed seed."""
        import numpy as np

        pairs = len(values)
        random = np.random.default_rng(0)
        draws = (np.bincount(random.integers(pairs, size=pairs), minlength=pairs) for _ in range(RESAMPLES))
        low, high = np.quantile([draw @ values / pairs for draw in draws], (0.025, 0.975), axis=0)
        alike = (values == values[0]).all(axis=0)
        return [
            Score(float(mean), *((None, None) if same else (float(least), float(most))))
            for mean, least, most, same in zip(values.mean(axis=0), low, high, alike, strict=True)
        ]


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
    import numpy as np
    from rouge_score.rouge_scorer import RougeScorer

    given = list(pairs)
    if not given:
        raise DataError("there are no texts to score")
    if words == "auto":
        words = "english" if all(reference.isascii() for _, reference in given) else "words"
    right = sum(text.strip() == reference.strip() for text, reference in given)
    scorer = RougeScorer(KINDS, use_stemmer=True, tokenizer=None if words == "english" else Splitter(words))
    found: list[dict[str, Any]] = [scorer.score(reference, text) for text, reference in given]
    rouge = Score.means(np.array([[figure for kind in KINDS for figure in one[kind]] for one in found]))
    return Scores(
        pairs=len(given),
        words=words,
        exact=Score.share(right, len(given)),
        one_for_all=Counter(reference.strip() for _, reference in given).most_common(1)[0][1] / len(given),
        rouge={
            kind: dict(zip(("precision", "recall", "f"), rouge[3 * n : 3 * n + 3], strict=True))
            for n, kind in enumerate(KINDS)
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
