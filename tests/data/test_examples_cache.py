"""The cache of tokenised examples: one key for what is the same, built once, whole or not at all, by many hands."""

import csv
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from made_pairs import config, gpt2, lines, opened, pairs, t5

from ganeum.data.examples import build
from ganeum.data.examples.examples import open_examples
from ganeum.data.examples.known import known
from ganeum.data.examples.store import Store, Writer
from ganeum.errors import DataError

OPEN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from made_pairs import config
from ganeum.data.examples.examples import open_examples
Path(sys.argv[4]).touch()
while not Path(sys.argv[5]).exists():
    pass
open_examples(config(sys.argv[2], sys.argv[3]), print, workers=1)
"""


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def kept(cache: Path) -> set[str]:
    """Names in the cache but for locks and what the planner notes."""
    return {path.name for path in (cache / "examples").iterdir() if path.suffix != ".lock" and path.name != "known"}


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Starts a process that opens examples as soon as all are ready."""
    go = tmp_path / "go"
    running: list[subprocess.Popen[str]] = []

    def starting(model: str, file: str) -> subprocess.Popen[str]:
        ready = tmp_path / f"ready{len(running)}"
        arguments = [sys.executable, "-c", OPEN, str(Path(__file__).parent), model, file, str(ready), str(go)]
        running.append(subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return running[-1]

    def all_go() -> None:
        while not all((tmp_path / f"ready{i}").exists() or running[i].poll() is not None for i in range(len(running))):
            time.sleep(0.01)
        go.touch()

    yield starting, all_go
    for process in running:
        process.kill()
        process.communicate()


def test_the_second_opening_tokenises_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the cache is read where it lies; a copy of the file under another name is the same content."""
    model, said = gpt2(tmp_path / "m"), list[str]()
    file = lines(tmp_path / "a.jsonl", pairs(20))
    first = open_examples(config(model, file), said.append)
    assert said[0].startswith("20 examples became ")
    assert said[0].endswith(f", kept in {first.train.store.directory}")
    monkeypatch.setattr(build, "in_order", None)
    again = opened(model, lines(tmp_path / "b.jsonl", pairs(20)))
    assert first.train.store.directory == again.train.store.directory
    assert first.identity == again.identity


def test_what_is_known_of_examples_is_found_however_their_paths_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened by relative paths, known by absolute ones from anywhere else, as the queue has them."""
    gpt2(tmp_path / "m")
    lines(tmp_path / "a.jsonl", pairs(20))
    monkeypatch.chdir(tmp_path)
    opened("m", "a.jsonl")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for directory in (str(tmp_path), ".."):
        there = known(config(f"{directory}/m", f"{directory}/a.jsonl"))
        assert there is not None
        assert there["examples"] + there["val_examples"] == 20


def test_whatever_shapes_the_tokens_is_in_the_key(tmp_path: Path, cache: Path) -> None:
    """max_length from 256 to 320, a prefix, columns, another tokenizer, other content: each is built by itself."""
    rows = [pair | {"other": f"more {i}"} for i, pair in enumerate(pairs(20))]
    model, file = t5(tmp_path / "t5"), lines(tmp_path / "a.jsonl", rows)
    (tmp_path / "g").mkdir()
    ways: list[dict[str, Any]] = [
        {"max_length": 256},
        {"max_length": 320},
        {"max_target_length": 64},
        {"prefix": "summarize: "},
        {"target_column": "other"},
        {"tokenizer": gpt2(tmp_path / "g")},
    ]
    for number, way in enumerate(ways, start=1):
        opened(model, file, **way)
        assert number == len(kept(cache))
    lines(tmp_path / "a.jsonl", rows[::-1])
    opened(model, file, max_length=256)
    assert len(ways) + 1 == len(kept(cache))


def test_another_tokenizer_of_the_same_shape_is_another_key(tmp_path: Path, cache: Path) -> None:
    """Two of its tokens have changed places, nothing else: the old tokens would read as other words."""
    model, file = gpt2(tmp_path / "m"), lines(tmp_path / "a.jsonl", [{"text": "abba"}] * 2 + [{"text": "baab"}] * 2)
    before = opened(model, file).train.store
    description = tmp_path / "m" / "tokenizer.json"
    tokenizer = json.loads(description.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    description.write_text(json.dumps(tokenizer), encoding="utf-8")
    after = opened(model, file).train.store
    assert len(kept(cache)) == 2
    assert before.ids("target", 0).tolist() == after.ids("target", 2).tolist() != after.ids("target", 0).tolist()


def test_what_does_not_shape_the_tokens_is_not(tmp_path: Path, cache: Path) -> None:
    """Batching, batch size, the split, and a file that was only touched need nothing new."""
    model, file = gpt2(tmp_path / "m"), lines(tmp_path / "a.jsonl", pairs(20))
    opened(model, file)
    opened(model, file, batching="packed", batch={"batch_size": 3})
    opened(model, file, val_share=0.3, split_seed=4)
    os.utime(file, ns=(1, 1))
    opened(model, file)
    assert 1 == len(kept(cache))


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_the_number_of_workers_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, form: str
) -> None:
    """One process or three: the same files, though the later rows of a file may be done first."""
    monkeypatch.setattr(build, "_BYTES_WORTH_A_WORKER", 1)
    model, rows = gpt2(tmp_path / "m"), pairs(9_000)
    file = tmp_path / f"a.{form}"
    if form == "jsonl":
        lines(file, rows)
        assert file.stat().st_size > 2 * 2**20  # three blocks at least
    else:
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ["source", "target"])
            writer.writeheader()
            writer.writerows(rows)
    made = []
    for workers in (1, 3):
        monkeypatch.setenv("GANEUM_CACHE", str(cache / str(workers)))
        examples = open_examples(config(model, str(file)), lambda line: None, workers=workers)
        made.append((digests(examples.train.store.directory), examples.train.numbers.tolist()))
    assert made[0] == made[1]


def test_two_runs_at_once_build_once(tmp_path: Path, cache: Path, start: Any) -> None:
    """Of processes that want the same examples at the same time, one makes tokens and the other reads them."""
    starting, all_go = start
    model, file = gpt2(tmp_path / "m"), lines(tmp_path / "a.jsonl", pairs(4_000))
    both = [starting(model, file) for _ in range(2)]
    all_go()
    outputs = [process.communicate()[0] for process in both]
    assert [0, 0] == [process.returncode for process in both]
    assert 1 == sum(output.count(" became ") for output in outputs)
    assert 1 == len(kept(cache))


@pytest.mark.slow
def test_a_build_that_is_killed_leaves_nothing_half(tmp_path: Path, cache: Path, start: Any) -> None:
    """After kill -9 in the middle there is nothing that is taken for a cache; the next opening makes it anew, whole."""
    starting, all_go = start
    model, file = gpt2(tmp_path / "m"), lines(tmp_path / "a.jsonl", pairs(20_000))
    process = starting(model, file)
    all_go()
    while not (growing := [*(cache / "examples").glob("*.growing/source.bin")]) or not growing[0].stat().st_size:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = kept(cache)
    assert left.endswith(".growing")
    said: list[str] = []
    examples = open_examples(config(model, file), said.append, workers=1)
    assert 20_000 == len(examples.train.store)
    assert 1 == sum(line.startswith("20,000 examples became ") for line in said)
    assert {examples.train.store.directory.name} == kept(cache)


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken row at the end, or a disk that is full: no directory is left, and the error says what to do."""
    model = gpt2(tmp_path / "m")
    file = lines(tmp_path / "a.jsonl", [*pairs(20), "no object"])
    with pytest.raises(DataError) as raised:
        opened(model, file)
    assert str(raised.value) == (
        f"DataError: line 21 of {file} is no example\n  where  {file}, line 21\n"
        "  why    it is not an object with the columns 'source', 'target'\n  try    mend the row, or leave it out"
    )

    def full(self: Writer, made: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/the/disk")

    monkeypatch.setattr(Writer, "write", full)
    with pytest.raises(DataError) as raised:
        opened(model, lines(tmp_path / "b.jsonl", pairs(20)))
    assert str(raised.value) == (
        "DataError: the examples cannot be kept as tokens: the disk is full\n  where  /the/disk\n"
        "  why    No space left on device\n"
        "  try    free some space, or GANEUM_CACHE=a directory on another disk; nothing was left behind"
    )
    assert set() == kept(cache)


def test_what_killed_builds_left_is_cleared_away(tmp_path: Path, cache: Path) -> None:
    """The next build of anything removes it, but never what another process is just making."""
    for name in ("dead", "alive"):
        (cache / "examples" / f"{name}.growing").mkdir(parents=True)
    with FileLock(cache / "examples" / "alive.lock"):
        made = opened(gpt2(tmp_path / "m"), lines(tmp_path / "a.jsonl", pairs(20))).train.store.directory.name
    assert {made, "alive.growing"} == kept(cache)


def test_damage_is_seen_when_it_is_opened(tmp_path: Path) -> None:
    """A file that is too short never surfaces later as other tokens."""
    model, file = gpt2(tmp_path / "m"), lines(tmp_path / "a.jsonl", pairs(20))
    directory = opened(model, file).train.store.directory
    content = (directory / "target.bin").read_bytes()
    (directory / "target.bin").write_bytes(content[:-2])
    with pytest.raises(DataError) as raised:
        opened(model, file)
    assert str(raised.value) == (
        f"DataError: the cache of tokenised examples is damaged\n  where  {directory}\n"
        f"  why    target.bin has {len(content) - 2:,} bytes, and meta.json says {len(content):,}\n"
        "  try    delete that directory: it is made again from the examples"
    )


def test_tokens_are_read_where_they_lie(tmp_path: Path) -> None:
    """Opening maps the files into memory; no array of tokens is made of them."""
    store = opened(gpt2(tmp_path / "m"), lines(tmp_path / "a.jsonl", pairs(20))).train.store
    assert isinstance(store, Store)
    assert isinstance(store.ids("source", 3).base, np.memmap)
