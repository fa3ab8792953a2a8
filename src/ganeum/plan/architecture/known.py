"""A model by its name: a directory or a config.json of one's own, a well-known model, or any on the hub."""

from __future__ import annotations

import difflib
import json
import re
import sys
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ganeum.errors import ConfigError, MissingExtra
from ganeum.plan.architecture.hugging_face import from_config_json
from ganeum.plan.architecture.parts import Architecture

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HUB_NAME = re.compile(r"([\w.-]+/)?[\w.-]+")  # the oldest have no owner: distilgpt2
MISTYPED = 0.85  # how alike a name must be to one that is known, so that the hub is not asked for it


@dataclass(frozen=True)
class Known:
    """A model of known.toml: its name, the hub's, its config.json, where that was read, and a note worth printing."""

    name: str
    hub: str
    config: dict[str, Any]
    source: str
    note: str


@cache
def known() -> tuple[Known, ...]:
    """The models whose configs travel with this package, in the file's order."""
    rows = tomllib.loads(files("ganeum.plan.architecture").joinpath("known.toml").read_text(encoding="utf-8"))
    return tuple(
        Known(
            name=name,
            hub=row["hub"],
            config=row["config"],
            source=row.get("source", f"https://huggingface.co/{row['hub']}/blob/main/config.json"),
            note=row.get("note", ""),
        )
        for name, row in rows.items()
    )


def is_known(name: str) -> bool:
    """Whether a model of that name travels with this package."""
    return any(name.lower() in (model.name.lower(), model.hub.lower()) for model in known())


def find(name: str, *, roughly: bool = False) -> Architecture:
    """The parts of the model called ``name``.

    Args:
        name: a directory that holds a config.json, or such a file; else the name of a well-known model, with or
            without its owner (``t5-base``, ``google-t5/t5-base``); else a name on the Hugging Face hub
            (``owner/name``, ``distilgpt2``), whose config.json alone is downloaded.
        roughly: as :func:`from_config_json` has it.

    Raises:
        ConfigError: there is no such model, or its config cannot be read or counted.
        MissingExtra: the hub is needed and huggingface_hub is not installed.

    >>> find("gpt2").layers
    12
    """
    path = Path(name).expanduser()
    try:
        is_directory, is_file = path.is_dir(), path.is_file()
    except OSError as error:  # too long for a file's name
        raise ConfigError(
            f"no model called {name[:40]}… is known", where="the name of a model", why=error.strerror
        ) from None
    if is_directory and (path / "config.json").is_file():
        return _read(path / "config.json", path.resolve().name, roughly)
    if is_file:
        return _read(path, path.resolve().parent.name, roughly)
    for model in known():
        if name.lower() in (model.name.lower(), model.hub.lower()):
            return replace(from_config_json(model.config, name=model.name, source=model.source), note=model.note)
    near, otherwise = _nearest(name), "owner/name, as on the Hugging Face hub, or a directory with a config.json"
    if is_directory:
        raise ConfigError(
            f"there is no config.json in {name}",
            where="the name of a model",
            why="a directory of a model in Hugging Face's format has one",
            suggestion=near or otherwise,
        )
    no_name = path.suffix in (".json", ".yaml", ".yml") or not HUB_NAME.fullmatch(name)
    if no_name or ("/" not in name and _nearest(name, MISTYPED)):
        raise ConfigError(
            f"no model called {name} is known",
            where="the name of a model",
            why="it is neither a directory with a config.json nor one of the models that are known by name",
            suggestion=near or otherwise,
        )
    return _read(_downloaded(name, near), name, roughly)


def _nearest(name: str, alike: float = 0.65) -> str:
    names = {model.name.lower(): model.name for model in known()}
    close = difflib.get_close_matches(name.lower().rsplit("/", 1)[-1], names, n=3, cutoff=alike)
    return " or ".join(names[match] for match in close)


def _read(path: Path, name: str, roughly: bool) -> Architecture:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"the config of {name} cannot be read: {error}", where=str(path)) from error
    if not isinstance(config, dict):
        raise ConfigError(f"the config of {name} is not an object with keys", where=str(path))
    return from_config_json(config, name=name, source=str(path), roughly=roughly)


def _downloaded(name: str, near: str) -> Path:
    """config.json of ``name`` on the hub, from its cache where it was fetched before."""
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
        )
    except ImportError as error:
        raise MissingExtra(
            f"{name} is looked up on the Hugging Face hub, which takes huggingface_hub",
            where="the name of a model",
            suggestion="pip install huggingface-hub",
        ) from error
    page = f"https://huggingface.co/{name}"
    try:
        try:  # asked once: hf_hub_download alone asks a hub that does not answer for 23 seconds
            get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=5)
            answered = True
        except HfHubHTTPError:
            raise
        except Exception:  # whatever the HTTP library of this version says when there is no network
            answered = False
        return Path(hf_hub_download(name, "config.json", local_files_only=not answered))
    except GatedRepoError as error:
        raise ConfigError(
            f"{name} is shown only to those who accepted its licence",
            where=page,
            suggestion="accept it on that page, then: hf auth login",
        ) from error
    except RepositoryNotFoundError as error:
        raise ConfigError(
            f"there is no model {name} on the Hugging Face hub, or it is private",
            where=page,
            suggestion=near or None,
        ) from error
    except LocalEntryNotFoundError as error:
        raise ConfigError(
            f"the config of {name} cannot be fetched",
            where=page,
            why="the Hugging Face hub does not answer, and no copy was kept on this machine",
            suggestion=f"{near}, whose config is built in" if near else "a directory with the model's config.json",
        ) from error
    except EntryNotFoundError as error:
        raise ConfigError(f"{name} has no config.json", where=page, why="it is not a transformers model") from error
    except (HfHubHTTPError, OSError) as error:
        raise ConfigError(f"the config of {name} cannot be fetched", where=page, why=str(error)) from error
