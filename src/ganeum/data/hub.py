"""Datasets as Hugging Face's ``datasets`` knows them: from the hub, from its cache, from a directory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ganeum.data.files import PartName, Source
from ganeum.errors import DataError, MissingExtra
from ganeum.hardware import hub


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
    here = Path(name).exists()
    bare, _, config = (name, "", "") if here else name.partition(":")
    silent = False
    if not here:
        print(f"{name}: no such file, so a data set of that name is asked for at {_hub()}", file=sys.stderr, flush=True)
        silent = hub.silent()
    try:
        if any((Path(name) / mark).is_file() for mark in ("state.json", "dataset_dict.json")):
            saved = datasets.load_from_disk(name)
            opened = saved[split] if isinstance(saved, datasets.DatasetDict) else saved
        else:
            with _left_alone(datasets.config) if silent else nullcontext():
                opened = datasets.load_dataset(bare, config or None, split=split)
    except Exception as error:  # the library's own errors, the hub's, the network's
        text = " ".join(str(error).split())
        why = f"{type(error).__name__}: {text if len(text) <= 300 else text[:300] + '…'}"
        if silent:
            why = f"{_hub()} does not answer, and nothing of that name was fetched before"
        raise DataError(
            f"the dataset {name}, split {split}, cannot be had",
            where=name,
            why=why,
            suggestion=ways,
        ) from error
    return Source(Path(f"{name}[{split}]"), part, dataset=opened)


def _hub() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


@contextmanager
def _left_alone(settings: Any) -> Iterator[None]:
    """The hub is not asked, so what was fetched before serves at once: the library alone would try for most of a
    minute."""
    from huggingface_hub import constants

    places: tuple[Any, ...] = (constants, settings)
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value
