"""`ganeum score`: generated texts beside their references."""

from __future__ import annotations

import sys
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ganeum.inference.score import Score


class WordKind(str, Enum):
    """What counts as a word."""

    auto = "auto"
    english = "english"
    words = "words"
    syllables = "syllables"


def command(
    file: Annotated[str, typer.Argument(help="rows with texts and references, such as `ganeum generate` writes")],
    predictions: Annotated[str, typer.Option(help="the column with the texts")] = "generated",
    references: Annotated[str, typer.Option(help="the column with what they should be")] = "target",
    words: Annotated[
        WordKind,
        typer.Option(
            help="english: a-z and 0-9, stemmed (rouge-score's own); words: of any script, by spaces and punctuation; "
            "syllables: each of Hangul, kana or Chinese by itself; auto: english where all references are ASCII"
        ),
    ] = WordKind.auto,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures as JSON, 0 to 1")] = False,
) -> None:
    """Score generated texts: how many are right, and ROUGE.

    ROUGE is rouge-score's (pip install "ganeum[rouge]"), means over all rows. For rougeLsum a line is a sentence.
    Beside a figure stands between what it may lie, 95 in 100, for other rows of the same kind.
    """
    import json
    from dataclasses import asdict

    from ganeum.inference.rows import reading, text_of
    from ganeum.inference.score import RESAMPLES, score
    from ganeum.units import things

    with reading(file) as rows:
        pairs = [
            (
                text_of(row, predictions, number, rows.name, "--predictions"),
                text_of(row, references, number, rows.name, "--references"),
            )
            for number, row in enumerate(rows)
        ]
    found = score(pairs, words.value)
    if found.words == "english" and (foreign := sum(not reference.isascii() for _, reference in pairs)):
        print(
            f"! of {things(foreign, 'reference')} only a-z and 0-9 count, and the rest is left out: --words words "
            "(or syllables) counts words of every script",
            file=sys.stderr,
        )
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    print(f"{things(found.pairs, 'row')}, words: {found.words}")
    share = f"{100 * found.exact.mean:.1f} %{_between(found.exact, 1)}"
    print(f"{'exactly right':<13}  {share}  (one answer for all: {100 * found.one_for_all:.1f} %)")
    print(f"{'':<13}  precision  recall     F1")
    for kind, figures in found.rouge.items():
        precision, recall, f = (100 * figures[name].mean for name in ("precision", "recall", "f"))
        print(f"{kind:<13} {precision:>10.2f} {recall:>7.2f} {f:>6.2f}{_between(figures['f'], 2)}")
    print(f"[95 in 100: of the share Wilson's interval, of ROUGE the bootstrap's with {RESAMPLES:,} draws]")


def _between(score: Score, digits: int) -> str:
    """In per cent."""
    if score.low is None or score.high is None:
        return ""
    return f" [{100 * score.low:.{digits}f} – {100 * score.high:.{digits}f}]"
