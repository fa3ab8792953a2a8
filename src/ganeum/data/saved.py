"""Directories that ``datasets.save_to_disk`` wrote: which of their files hold rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ganeum.errors import DataError

_STATE, _SPLITS = "state.json", "dataset_dict.json"


def only_rows(directory: Path, names: Sequence[str]) -> list[str]:
    """``names`` less those that are not rows, where ``datasets`` saved ``directory``; all of them elsewhere.

    Raises:
        DataError: several splits lie there, and which of them is trained on is not for us to guess.
    """
    if _SPLITS in names:
        splits: list[str] = _read(directory / _SPLITS).get("splits", [])
        if len(splits) > 1:
            train = "train" if "train" in splits else splits[0]
            val = next((name for name in ("validation", "valid", "val", "test") if name in splits), None)
            raise DataError(
                f"{directory} holds {len(splits)} splits: {', '.join(splits)}",
                where=str(directory / _SPLITS),
                why="one is trained on; another may be validated on",
                suggestion=f"ganeum prepare {directory / train}" + (f" --val {directory / val}" if val else ""),
            )
        return [name for name in names if name in splits]
    if _STATE in names and any(name.endswith(".arrow") for name in names):
        rows = {file["filename"] for file in _read(directory / _STATE).get("_data_files", [])}
        return [name for name in names if name in rows]  # not what a later map() left beside them
    return list(names)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path.parent} was saved by `datasets`, and cannot be read",
            where=str(path),
            why=str(error),
            suggestion="save it again, or name its files themselves: ganeum prepare FILE.arrow",
        ) from error
