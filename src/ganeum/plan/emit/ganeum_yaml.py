"""A config for `ganeum train`: what differs from the defaults and nothing else, each line with its reason."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from ganeum.config.keys import keys, value_of
from ganeum.config.schema import Config
from ganeum.config.write import written
from ganeum.plan.emit.settled import settled

WIDTH = 100  # columns: a reason that does not fit behind its value stands above it


def ganeum(
    config: Config,
    plan: Mapping[str, Any] | None = None,
    *,
    reasons: Mapping[str, str] | None = None,
    heading: str = "",
) -> str:
    """The YAML of ``config``; `config.load` reads it back equal.

    Args:
        plan: its plan, whose choices become values and whose reasons become comments.
        reasons: dotted key → why it has its value; what stands neither here nor in the plan has its sentence in the
            schema as comment.
        heading: lines of comment at the top; empty: which device the plan was for.
    """
    final, why = settled(config, plan)
    why |= reasons or {}
    if plan and not heading:
        heading = f"As planned for {plan['device']['name']}."
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    opened: set[str] = set()
    for name, key in keys().items():
        value = value_of(final, name)
        if value == key.default:
            continue
        *sections, last = name.split(".")
        for depth, section in enumerate(sections):
            if (path := ".".join(sections[: depth + 1])) not in opened:
                opened.add(path)
                lines.append("  " * depth + f"{section}:")
        lines += _line("  " * len(sections), f"{last}: {_value(value)}", why.get(name) or key.description)
    return "\n".join(lines) + "\n"


def _line(indent: str, text: str, reason: str) -> list[str]:
    one = f"{indent}{text}  # {reason}"
    if len(one) <= WIDTH:
        return [one]
    return [*textwrap.wrap(reason, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "), indent + text]


def _value(value: object) -> str:
    """Whole numbers without a fraction, large ones in groups of three."""
    if isinstance(value, float) and value == int(value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:_}"
    return written(value)
