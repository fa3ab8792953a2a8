"""What is known of examples without opening them: what was told of the same files, model and settings the last time."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from ganeum.config.paths import read_from
from ganeum.config.schema import Config
from ganeum.data.examples.sources import state_of
from ganeum.hardware import cache_directory
from ganeum.record.files import write_json

OF_THE_BATCH = ("steps_per_epoch", "padding")


def known(config: Config) -> dict[str, Any] | None:
    """What ``Examples.describe()`` says of these very files, by name, size and time, for any batch; None: they were
    never opened like this.

    Needs neither torch nor transformers, so that a plan stays fast.
    """
    with suppress(OSError, ValueError):
        noted = json.loads(_path(config).read_bytes())
        return noted if isinstance(noted, dict) else None
    return None


def note(config: Config, described: dict[str, Any]) -> None:
    """Remember it; a cache that cannot be written costs the next plan its figures, nothing else."""
    path = _path(config)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {key: value for key, value in described.items() if key not in OF_THE_BATCH}, flush=False)


def _path(config: Config) -> Path:
    """The same for the same files, however their paths are written: the queue has absolute ones."""
    config = read_from(config, Path.cwd())
    source = config.model.source or ""
    names = [name for name in (config.data.train, config.data.val, config.data.tokenizer, source) if name]
    shaped_by = [
        config.data.model_dump(mode="json", exclude={"directory"}),
        source,
        [state_of(name) for name in names],
    ]
    digest = hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode()).hexdigest()
    return cache_directory() / "examples" / "known" / f"{digest[:32]}.json"
