"""What happens to a pasted text on its way: pages escape it, mails quote it, people cut it and write into it."""

from __future__ import annotations

import html
import random
import re

REMARKS = (
    "# what does this mean?",
    "  <- is this bad?",
    "왜 이렇게 느린가요 ㅠㅠ",
    "SW Power Cap: is that the problem?",
    "this one : looks wrong to me",
    "(same on the other machine: 350 W)",
    "--------",
    "Edit: I have tried another cable",
)


def cut(text: str, dice: random.Random) -> str:
    """Only a part of it was marked."""
    start, end = sorted(dice.sample(range(len(text) + 1), 2))
    return text[start:end]


def lines_lost(text: str, dice: random.Random) -> str:
    """Some lines are missing."""
    return "\n".join(line for line in text.split("\n") if dice.random() > 0.15)


def reindented(text: str, dice: random.Random) -> str:
    """The indentation is gone, or another one."""
    how = dice.choice((lambda line: line.strip(), lambda line: "\t" + line, lambda line: re.sub(" {2,}", "  ", line)))
    return "\n".join(how(line) for line in text.split("\n"))


def escaped(text: str, dice: random.Random) -> str:
    """As HTML has it."""
    text = html.escape(text)
    return text.replace("  ", "&nbsp;&nbsp;") if dice.random() < 0.5 else html.escape(text)


def decimal_commas(text: str, dice: random.Random) -> str:
    """A spreadsheet of another country had it."""
    return re.sub(r"(\d)\.(\d\d)\b", r"\1,\2", text)


def remarks(text: str, dice: random.Random) -> str:
    """A person wrote into it, behind lines and between them."""
    found = []
    for line in text.split("\n"):
        found.append(line + (f"   {dice.choice(REMARKS[:3])}" if dice.random() < 0.1 else ""))
        if dice.random() < 0.1:
            found.append(dice.choice(REMARKS))
    return "\n".join(found)


def quoted(text: str, dice: random.Random) -> str:
    """A mail had it."""
    return "\n".join("> " + line for line in text.split("\n"))


def line_ends(text: str, dice: random.Random) -> str:
    """Windows had it."""
    return text.replace("\n", "\r\n")


def not_available(text: str, dice: random.Random) -> str:
    """Figures that the card does not have."""
    gone = dice.choice(
        ("N/A", "[N/A]", "[Not Supported]", "[Unknown Error]", "Requested functionality has been deprecated")
    )
    return re.sub(r"\d+(\.\d+)? (MHz|W|MiB|C|%)", lambda m: gone if dice.random() < 0.2 else m[0], text)


def repeated(text: str, dice: random.Random) -> str:
    """`-l 1`: the same again and again."""
    return "\n".join([text] * dice.randint(2, 4))


def letters(text: str, dice: random.Random) -> str:
    """A few letters were lost."""
    return "".join(letter for letter in text if dice.random() > 0.003)


ALL = (
    cut, lines_lost, reindented, escaped, decimal_commas, remarks, quoted, line_ends, not_available, repeated, letters,
)  # fmt: skip


def mutilated(text: str, other: str, dice: random.Random) -> str:
    """One to three of these; sometimes with another card's text in front or in the middle."""
    if dice.random() < 0.25:
        at = dice.choice((0, text.rfind("\n", 0, dice.randrange(len(text))) + 1))
        text = text[:at] + other + "\n" + text[at:]
    for change in dice.sample(ALL, dice.randint(1, 3)):
        text = change(text, dice)
    return text
