"""A config as it reads from another directory than the one that its paths were written in."""

from __future__ import annotations

import os
from pathlib import Path

from ganeum.config.change import change
from ganeum.config.schema import Config, Files


def read_from(config: Config, directory: str | Path) -> Config:
    """``config``, whose paths begin in ``directory``, with absolute ones.

    What may be a path or a name on the hub (``model.source``, ``data.train``, ``data.val``, ``data.tokenizer``) is a
    path where there is something.
    """
    begins, data = Path(directory), config.data

    def found(name: str) -> str:
        path = Path(os.path.abspath(begins / Path(name).expanduser()))  # noqa: PTH100 (resolve() would follow links)
        try:
            return str(path) if path.exists() else name
        except OSError:  # too long for a file's name
            return name

    def each(names: Files | None) -> Files | None:
        return tuple(map(found, names)) if isinstance(names, tuple) else names and found(names)

    return change(
        config,
        {
            "data.directory": str(begins / data.directory),
            "data.train": each(data.train),
            "data.val": each(data.val),
            "data.tokenizer": each(data.tokenizer),
            "model.source": each(config.model.source),
        },
    )
