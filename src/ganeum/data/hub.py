"""Datasets as Hugging Face's ``datasets`` knows them: from the hub, from its cache, from a directory."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from ganeum.data.files import PartName, Source
from ganeum.errors import DataError, MissingExtra


def dataset(
    name: str,
    split: str,
    part: PartName,
    *,
    asked: str = "--dataset",
    ways: str = "another --split, NAME:CONFIG, or its files themselves: ganeum prepare FILE.parquet",
) -> Source:
    """One split as a source of rows; what the library has to fetch or convert for it goes to its own cache.

    Args:
        name: ``NAME`` or ``NAME:CONFIG``, as on the hub; or a directory, also one that ``save_to_disk`` wrote.
        split: train, or whatever else ``datasets`` reads as a split, such as ``train[:10%]``.
        part: what its rows are for.
        asked, ways: how it was asked for, and what else to try, as the errors say.

    Raises:
        MissingExtra: the package is not installed.
        DataError: it cannot be had.
    """
    if find_spec("datasets") is None:
        raise MissingExtra(
            f"{asked} needs the package datasets, which is not installed", suggestion='pip install "ganeum[datasets]"'
        )
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    bare, _, config = (name, "", "") if Path(name).exists() else name.partition(":")
    try:
        if any((Path(name) / mark).is_file() for mark in ("state.json", "dataset_dict.json")):
            saved = datasets.load_from_disk(name)
            opened = saved[split] if isinstance(saved, datasets.DatasetDict) else saved
        else:
            opened = datasets.load_dataset(bare, config or None, split=split)
    except Exception as error:  # the library's own errors, the hub's, the network's
        text = " ".join(str(error).split())
        raise DataError(
            f"the dataset {name}, split {split}, cannot be had",
            where=name,
            why=f"{type(error).__name__}: {text if len(text) <= 300 else text[:300] + '…'}",
            suggestion=ways,
        ) from error
    return Source(Path(f"{name}[{split}]"), part, dataset=opened)
