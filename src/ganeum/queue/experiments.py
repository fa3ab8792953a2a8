"""The list of experiments: a config a line, overrides and `--config-section` after it, `#` for what is not meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ganeum.config import Config, load
from ganeum.config.arguments import split_arguments
from ganeum.config.source import shown
from ganeum.errors import ConfigError, GaneumError

DEFAULT_LIST = Path("experiment_list.conf")
SECTION = "config_section="


@dataclass(frozen=True)
class Experiment:
    """One line of the list: its config as it reads now, or what is wrong with it."""

    line: int
    text: str
    path: str = ""
    overrides: tuple[str, ...] = ()  # key=value
    section: str | None = None  # of a file that holds several configs
    config: Config | None = None
    error: GaneumError | None = None

    @property
    def name(self) -> str:
        return (self.config.name if self.config else None) or self.text

    @property
    def arguments(self) -> tuple[str, ...]:
        """What `ganeum train` takes for it."""
        return (self.path, *(("--config-section", self.section) if self.section else ()), *self.overrides)


def read_list(path: Path) -> list[Experiment]:
    """Every experiment of the list, in order, each checked; a bad line is an experiment with an error.

    Raises:
        ConfigError: there is no such list, it is no UTF-8 text, or it names no experiment.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(
            f"there is no list of experiments {shown(path)}" if not path.exists() else f"{error.strerror}",
            where=shown(path),
            suggestion=f"a file {DEFAULT_LIST} with a config a line: configs/exp_v100/test_run.yaml",
        ) from None
    except UnicodeDecodeError:
        raise ConfigError("the list of experiments is not UTF-8 text", where=shown(path)) from None
    experiments = list(_read(path, lines))
    if not experiments:
        raise ConfigError(
            "the list names no experiment",
            where=shown(path),
            why="a line that begins with # is not meant" if any("#" in line for line in lines) else None,
            suggestion="a config a line, without # before it: configs/exp_v100/test_run.yaml",
        )
    return experiments


def _read(path: Path, lines: list[str]) -> Iterator[Experiment]:
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if not text:
            continue
        where = f"{shown(path)}, line {number}"
        try:
            alone, section, overrides = _parts(_words(text, where))
            if len(alone) != 1:
                raise ConfigError(
                    "a line names one config" if alone else "the line names no config",
                    where=where,
                    suggestion=f"{(alone or ['configs/exp_v100/test_run.yaml'])[0]} max_iters=1000",
                )
            config = load(alone[0], overrides, section=section)
            assert config.name is not None, "load() gives every config a name"
            if config.name in first:
                raise ConfigError(
                    f"a second experiment would be the run {config.name}",
                    where=where,
                    why=f"line {first[config.name]} is it already, and a run has one directory",
                    suggestion=f"{text} name={config.name}-2",
                )
            first[config.name] = number
            yield Experiment(number, text, alone[0], tuple(overrides), section, config)
        except GaneumError as error:
            yield Experiment(number, text, error=error)


def _parts(words: list[str]) -> tuple[list[str], str | None, list[str]]:
    """The configs of a line, its section, and its overrides; the section is an option of ours and no key."""
    alone, overrides = split_arguments(words)
    sections = [each.removeprefix(SECTION) for each in overrides if each.startswith(SECTION)]
    return alone, sections[-1] if sections else None, [each for each in overrides if not each.startswith(SECTION)]


def _words(text: str, where: str) -> list[str]:
    """The words of a line; quotes hold one together, and a backslash is part of a Windows path."""
    reader = shlex.shlex(text, posix=True)
    reader.whitespace_split, reader.escape, reader.commenters = True, "", ""
    try:
        return list(reader)
    except ValueError:
        raise ConfigError("a quote is opened and never closed", where=where) from None
