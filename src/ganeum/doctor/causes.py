"""The catalogue of causes: what makes a training slow, large or wrong, how each is confirmed, and who says so.

Every finding names one of them. They lie in ``causes.toml``, and ``python -m ganeum.doctor.causes`` writes
docs/doctor_causes.md from it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal, get_args

Kind = Literal["time", "gpu memory", "memory", "quality", "health"]


@dataclass(frozen=True)
class Cause:
    """One cause.

    Attributes:
        name: what findings call it.
        kind: what it costs first.
        what: in a few words.
        confirm: the measurement, or the look, that confirms it.
        seen: the forms of ``ganeum doctor`` that may name it.
        published: sizes that others published, with their hardware; they are not this machine's.
        source: of what is published, or of the rule.
    """

    name: str
    kind: Kind
    what: str
    confirm: str
    seen: tuple[str, ...]
    published: str = ""
    source: str = ""


@cache
def causes() -> Mapping[str, Cause]:
    """All of them, by name."""
    from importlib.resources import files

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    rows = tomllib.loads((files("ganeum.doctor") / "causes.toml").read_text(encoding="utf-8"))
    return MappingProxyType({name: Cause(name, **row | {"seen": tuple(row["seen"])}) for name, row in rows.items()})


def cause(name: str) -> Cause:
    """One of them; a name that is not there is a mistake of ours."""
    return causes()[name]


def page() -> str:
    """docs/doctor_causes.md: all of them, by what they cost first."""
    lines = [PAGE_BEGINS]
    for kind in get_args(Kind):
        lines += [
            f"## {kind.capitalize().replace('Gpu', 'GPU')}",
            "",
            "| cause | | seen by `ganeum doctor …` | confirmed by |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {one.name} | {one.what} | {', '.join(f'`{form}`' for form in one.seen)} | {_cell(one.confirm)} |"
            for one in causes().values()
            if one.kind == kind
        ]
        lines.append("")
    return "\n".join([*lines, PAGE_ENDS])


def _cell(text: str) -> str:
    """Of a table, which a bar would end."""
    return text.replace("|", "\\|")


PAGE_BEGINS = """# What makes a training slow, large or wrong, and who sees it

Written by `python -m ganeum.doctor.causes`. Each finding of [`ganeum doctor`](doctor.md) names one of these causes.
`config` and `script` read and run nothing; `run` measures, or looks at a few steps; `memory` traces a step, or takes
some; the others read what a run, a GPU or a message says.
"""
PAGE_ENDS = """## Not looked for

- Operations that stay in fp32 within a model in half precision (norms, softmax, logits): nothing takes them away
  without changing what is learnt; `run` shows them as part of the forward pass.
- The memory's NUMA node: of cores it is seen that a process is bound to too few of them.
- Checkpointing that is off while memory keeps the batch small: `ganeum plan` weighs the two.
- Loops of a script that count their own steps or FLOP wrongly: `log` and `compare` reckon both from the config.
"""


if __name__ == "__main__":
    from pathlib import Path

    (Path(__file__).parents[3] / "docs" / "doctor_causes.md").write_text(page(), encoding="utf-8")
