"""A config as Python gives it: a file's name, a dictionary like one, or a config that was loaded."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from ganeum.config.load import load
from ganeum.config.schema import Config
from ganeum.config.source import shown
from ganeum.errors import ConfigError, GaneumError, Several

Given: TypeAlias = "str | PathLike[str] | Mapping[str, Any] | Config"
UNNAMED = "unnamed"  # what is called so has no name: nothing but a file gives one


def taken(
    given: Given,
    overrides: Sequence[str] = (),
    *,
    section: str | None = None,
    say: Callable[[str], object] | None = None,
) -> Config:
    """The config, with `overrides` as on the command line (`"max_iters=100"`); `section` and `say` as `load` has them.

    A dictionary is read as the YAML that it would be, so everything that a file may say it may say: `base` (from where
    the program stands), Hugging Face's names, sections.

    Raises:
        ConfigError, Several: as `load`; keys are named, and a file's lines where there is a file.
    """
    try:
        return _taken(given, overrides, section, say)
    except GaneumError as error:
        for single in _each(error):
            if single.suggestion:
                single.suggestion = re.sub(r"^--config-section (.+)$", r'section="\1"', single.suggestion)
                single.suggestion = single.suggestion.replace("without --config-section", "without section=")
        raise


def _taken(given: Given, overrides: Sequence[str], section: str | None, say: Callable[[str], object] | None) -> Config:
    if isinstance(given, Config):
        if not overrides and section is None:
            return given
        given = given.model_dump()
        if any(given["train"][length] is not None for length in ("epochs", "tokens", "hours")):
            given["train"]["max_iters"] = None  # what these were resolved to
    if not isinstance(given, Mapping):
        return load(given, overrides, section=section, say=say)
    given = _from_here(given)
    if section is not None and isinstance(given.get(section), Mapping):
        given = {**given, section: _from_here(given[section])}
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / f"{UNNAMED}.yaml"
        try:
            file.write_text(yaml.safe_dump(_plain(given), sort_keys=False), encoding="utf-8")
        except yaml.representer.RepresenterError as error:
            raise ConfigError(
                f"a config holds numbers, text, true, false and null, but this is {error.args[1]!r}",
                where="the config given as a dictionary",
            ) from None
        try:
            config = load(file, overrides, section=section, say=say)
        except GaneumError as error:
            for single in _each(error):
                if single.where:
                    single.where = re.sub(
                        re.escape(shown(file)) + "(, lines? [0-9, and]+)?",
                        "the config given as a dictionary",
                        single.where,
                    )
            raise
    return config.model_copy(update={"name": UNNAMED}) if config.name == f"{UNNAMED}-{section}" else config


def _each(error: GaneumError) -> Sequence[GaneumError]:
    return error.errors if isinstance(error, Several) else (error,)


def _from_here(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Its `base` is named from where the program stands, not from where the dictionary is written."""
    base = given.get("base")
    return {**given, "base": str(Path(base).absolute())} if isinstance(base, (str, PathLike)) else given


def _plain(value: Any) -> Any:
    """Dictionaries of any kind as plain ones, paths as text."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return fspath(value) if isinstance(value, PathLike) else value
