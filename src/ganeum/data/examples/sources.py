"""Which files and data sets the examples come from, and what tells their content from any other."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ganeum.config.schema import Files
from ganeum.data.files import Source, TextFile, Walk
from ganeum.data.forms import COMPRESSED, bare_name, head
from ganeum.data.hub import dataset
from ganeum.errors import DataError
from ganeum.hardware import cache_directory
from ganeum.record.files import write_atomic

Part = Literal["train", "val"]
ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
_SPLITS = {"train": ("train",), "val": ("validation", "valid", "val", "dev", "test")}
_WITH_SPLIT = re.compile(r"(?s)(?P<name>.+?)\[(?P<split>.+)\]")


def files_of(names: Files, part: Part) -> list[TextFile]:
    """The files with rows behind what ``data.train`` or ``data.val`` names, in that order.

    | named | read |
    |---|---|
    | a file | its rows, by its ending, compressed or not |
    | a directory | its files with rows, also below it, in the order of their names |
    | a directory that ``datasets`` saved | its rows; of several splits the one to train with, or to validate with |
    | anything else | a data set on the hub, ``NAME``, ``NAME:CONFIG``, either with ``[SPLIT]`` behind it |

    Raises:
        DataError: nothing is there, or nothing that holds rows.
        MissingExtra: a package that reads it is not installed.
    """
    found: list[TextFile] = []
    for name in (names,) if isinstance(names, str) else names:
        here = list(_files(name, part))
        if not here:
            binary = Path(name).expanduser().is_file()
            raise DataError(
                f"there are no examples in {name}",
                where=f"data.{part}",
                why="it is no text: it holds bytes that no text has"
                if binary
                else f"no file there ends in {', '.join(ENDINGS)}, compressed or not, and holds text",
                suggestion="another file of rows, or this one from where it came" if binary else "files of rows",
            )
        found += here
    return found


def digests(files: Sequence[TextFile]) -> list[str]:
    """What tells each file's content from any other: the SHA-256 of its bytes, of an opened data set its fingerprint.

    A file is read once; the result is remembered in ganeum's cache as long as its size and time stay the same.
    """
    return [str(file.dataset._fingerprint) if file.dataset is not None else _digest(file.path) for file in files]


def state_of(names: Files) -> list[object]:
    """The paths behind the names with their sizes and times: what can be known of them without opening any.

    A directory counts with all files below it; what is not on this disk with its name alone.
    """
    found: list[object] = []
    for name in (names,) if isinstance(names, str) else names:
        path = Path(name)
        below = sorted(path.rglob("*")) if path.is_dir() else [path] if path.is_file() else []
        stats = [(str(file.resolve()), file.stat()) for file in below if file.is_file()]
        found.append([name, [[file, stat.st_size, stat.st_mtime_ns] for file, stat in stats]])
    return found


def _files(name: str, part: Part) -> Iterator[TextFile]:
    path = Path(name).expanduser()
    if path.is_file():
        if _ending(path) not in ENDINGS:
            raise DataError(
                f"{name} holds no rows",
                where=str(path.absolute()),
                why=f"examples are rows, in files that end in {', '.join(ENDINGS)}, compressed or not",
                suggestion='a JSON line for each example, {"text": "…"} or {"source": "…", "target": "…"}',
            )
        path_of_rows = [path]
    elif path.is_dir():
        path_of_rows = [_saved_split(path, part)]
    elif _looks_like_a_path(name):
        script = path.parent.parent / "prepare.py"  # as our examples have it: beside the directory that it fills
        raise DataError(
            f"{name} does not exist",
            where=str(path.absolute()),
            suggestion=f"python {script}"
            if script.is_file()
            else f"data.{part}: a file of examples, a directory of them, or a data set's name",
        )
    else:
        match = _WITH_SPLIT.fullmatch(name)
        bare, split = (match["name"], match["split"]) if match else (name, _SPLITS[part][0])
        asked = f"data.{part}={name}"
        ways = f"another split, data.{part}={bare}[SPLIT], or NAME:CONFIG, or its files themselves"
        path_of_rows = []
        yield from Walk([dataset(bare, split, part, asked=asked, ways=ways)])
    for file in Walk([Source(place, part) for place in path_of_rows]):
        if _ending(file.path) in ENDINGS:
            yield replace(file, form=_form_of_json(file.path)) if _ending(file.path) == ".json" else file


def _saved_split(path: Path, part: Part) -> Path:
    """Of a directory with several splits the one that is asked for."""
    try:
        splits = json.loads((path / "dataset_dict.json").read_bytes())["splits"]
    except (OSError, ValueError, KeyError, TypeError):
        return path
    wanted = [split for split in _SPLITS[part] if split in splits]
    if not wanted:
        raise DataError(
            f"{path} has no split to {'train' if part == 'train' else 'validate'} with",
            where=str(path / "dataset_dict.json"),
            why=f"its splits are {', '.join(map(str, splits))}",
            suggestion=f"data.{part}={path / str(splits[0])}, say" if splits else None,
        )
    return path / wanted[0]


def _ending(path: Path) -> str:
    return Path(bare_name(path)).suffix.lower()


def _form_of_json(path: Path) -> Literal["list", "lines"]:
    start = head(path, 4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return "list" if start.startswith(b"[") else "lines"


def _looks_like_a_path(name: str) -> bool:
    """Whether it can be nothing on the hub, where names are ``name`` or ``owner/name``."""
    bare = name.partition(":")[0].partition("[")[0]
    rows = Path(bare).suffix.lower() in (*ENDINGS, *COMPRESSED, ".txt")
    return rows or bare.startswith((".", "/", "~")) or bare.count("/") > 1 or "\\" in bare


def _digest(path: Path) -> str:
    there = path.stat()
    state = [str(path.resolve()), there.st_size, there.st_mtime_ns]
    mark = cache_directory() / "digests" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError):
        noted = json.loads(mark.read_bytes())
        if isinstance(noted, dict) and noted.get("of") == state:
            return str(noted["sha256"])
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while read := file.read(2**20):
            sha256.update(read)
    with suppress(OSError):  # a cache that cannot be written costs the next start this reading, nothing else
        mark.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(mark, json.dumps({"of": state, "sha256": sha256.hexdigest()}), flush=False)
    return sha256.hexdigest()
