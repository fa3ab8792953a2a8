"""The better config as a file: what it inherits from the old one, and the keys that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import relpath
from pathlib import Path
from typing import Any

from ganeum.config import Config, load
from ganeum.config.change import change
from ganeum.config.keys import keys as all_keys
from ganeum.config.keys import value_of
from ganeum.config.write import to_yaml, written
from ganeum.errors import ConfigError, GaneumError

NAME = "name"  # a new file is a new run


def write(
    old: Path, keys: Mapping[str, Any], out: Path, *, overrides: Sequence[str] = (), section: str | None = None
) -> None:
    """Writes ``out``: ``base:`` of ``old``, then ``overrides`` as they were given with it, then ``keys``.

    Where the old file cannot be another's base (several configs in one, Hugging Face's names), every key is written.

    Args:
        keys: dotted, with their values.
        overrides: of the command line, which the diagnosis was made with.
        section: the config that was taken, of a file with several.

    Raises:
        ConfigError: it would overwrite the old one, or something that is there; or the old one was changed meanwhile,
            and the keys contradict it.
    """
    if out.exists():
        raise ConfigError(
            f"{out} is there already",
            where=f"--apply {out}",
            why="the config that was diagnosed stays as it is, and nothing else is overwritten",
            suggestion="another name",
        )
    wanted = change(load(old, overrides, section=section), keys)
    differs = differing(load(old, section=section), wanted) | {key: keys[key] for key in sorted(keys)}
    differs.pop(NAME, None)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(_small(old, differs, out), encoding="utf-8")
    try:
        same = change(load(out), {NAME: wanted.name}) == wanted
    except GaneumError:
        same = False
    if not same:
        out.write_text(to_yaml(change(wanted, {NAME: None})), encoding="utf-8")
        load(out)


def differing(before: Config, after: Config) -> dict[str, Any]:
    """Keys whose values are not the same, with the later ones."""
    return {key: value_of(after, key) for key in all_keys() if value_of(before, key) != value_of(after, key)}


def _small(old: Path, differs: Mapping[str, Any], out: Path) -> str:
    """One line a key, in sections."""
    lines = [f"base: {written(Path(relpath(old.resolve(), out.resolve().parent)).as_posix())}"]
    tree: dict[str, Any] = {}
    for key, value in differs.items():
        *sections, name = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return "\n".join([*lines, *_lines(tree, "")]) + "\n"


def _lines(tree: Mapping[str, Any], indent: str) -> list[str]:
    found = []
    for name, value in tree.items():
        if isinstance(value, dict):
            found += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        else:
            found.append(f"{indent}{name}: {written(list(value) if isinstance(value, tuple) else value)}")
    return found
