"""Preparation loses nothing: killed, on a full disk, again, or into a place where something lies already."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prepared import PRODUCTS, digests, files, library, made

from ganeum.data.corpus import open_corpus
from ganeum.data.files import Source
from ganeum.data.prepare import Preparation, prepare
from ganeum.errors import DataError


def test_preparing_again_does_nothing(tmp_path: Path) -> None:
    """The same files and options: said, and nothing is touched; --overwrite does it anew."""
    library(tmp_path, 3)
    assert not made(tmp_path, tokenizer="bytes").unchanged
    before = (tmp_path / "out" / "train.bin").stat().st_mtime_ns
    assert made(tmp_path, tokenizer="bytes").unchanged
    assert before == (tmp_path / "out" / "train.bin").stat().st_mtime_ns
    assert not made(tmp_path, tokenizer="bytes", overwrite=True).unchanged
    assert before != (tmp_path / "out" / "train.bin").stat().st_mtime_ns


def test_damaged_products_are_made_again(tmp_path: Path) -> None:
    """The same input whose train.bin was cut short or whose val.bin is gone is prepared anew."""
    library(tmp_path, 9)
    made(tmp_path, tokenizer="bytes", val_share=0.3)
    before = digests(tmp_path / "out")
    os.truncate(tmp_path / "out" / "train.bin", 10)
    assert not made(tmp_path, tokenizer="bytes", val_share=0.3).unchanged
    (tmp_path / "out" / "val.bin").unlink()
    assert not made(tmp_path, tokenizer="bytes", val_share=0.3).unchanged
    assert before == digests(tmp_path / "out")


def test_other_data_is_not_overwritten(tmp_path: Path) -> None:
    """Another text, or another tokenizer, is refused and what was there stays; --overwrite replaces it whole."""
    files(tmp_path, a="one", b="two")
    made(tmp_path, tokenizer="bytes")
    before = digests(tmp_path / "out")
    with pytest.raises(DataError) as error:
        made(tmp_path, tokenizer="characters")
    assert str(error.value) == (
        f"DataError: {tmp_path}/out already holds other data\n"
        f"  where  {tmp_path}/out/meta.json\n"
        f"  why    it holds 4 tokens (bytes, vocabulary 257) of {tmp_path}/in, "
        "prepared from other files or with other options\n"
        "  try    another --out, or --overwrite to replace it"
    )
    assert before == digests(tmp_path / "out")
    (tmp_path / "in" / "b.txt").unlink()
    made(tmp_path, tokenizer="characters", overwrite=True)
    assert ["meta.json", "tokenizer", "train.bin"] == sorted(path.name for path in (tmp_path / "out").iterdir())


def test_foreign_files_are_not_overwritten(tmp_path: Path) -> None:
    """A train.bin that ganeum did not write, nanoGPT's say, stays."""
    files(tmp_path, a="one")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train.bin").write_bytes(b"1234")
    with pytest.raises(DataError, match=r"already holds other data[\s\S]*not made by `ganeum prepare`"):
        made(tmp_path, tokenizer="bytes")
    assert b"1234" == (tmp_path / "out" / "train.bin").read_bytes()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up half way: one error, and what was there before is still there."""
    library(tmp_path, 3)
    made(tmp_path, tokenizer="bytes")
    before = digests(tmp_path / "out")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ganeum.data.prepare._Writer.write", full)
    with pytest.raises(DataError) as error:
        made(tmp_path, tokenizer="bytes", overwrite=True)
    assert str(error.value) == (
        f"DataError: {tmp_path}/out cannot be filled: the disk is full\n"
        f"  where  {tmp_path}/out/.preparing\n"
        "  why    No space left on device\n"
        "  try    free some space, or --out on another disk; nothing was left behind"
    )
    assert before == digests(tmp_path / "out")
    assert PRODUCTS == sorted(path.name for path in (tmp_path / "out").iterdir())


START = """
import signal, sys, time
from pathlib import Path
from ganeum.data import placing, prepare
signal.signal(signal.SIGINT, signal.default_int_handler)  # a program started in the background ignores it
from ganeum.data.files import Source
at = sys.argv[2]
def pause(*arguments):
    print("here", flush=True)
    time.sleep(60)
if at == "encoding":
    prepare._Writer.close = pause
else:  # between two renames
    real = Path.replace
    Path.replace = lambda self, target: pause() if target.name == "val.bin" else real(self, target)
root = Path(sys.argv[1])
prepare.prepare(prepare.Preparation((Source(root / "in"),), root / "out", tokenizer="bytes", overwrite=True))
"""


@pytest.mark.parametrize("at", ["encoding", "renaming"])
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_preparation_is_never_taken_for_data(tmp_path: Path, at: str, stop: signal.Signals) -> None:
    """Killed while encoding, the old data stands; killed between renames, the rest is refused; then it runs again."""
    library(tmp_path, 6)
    made(tmp_path, tokenizer="characters", val_share=0.3)
    old = digests(tmp_path / "out")
    process = subprocess.Popen([sys.executable, "-c", START, str(tmp_path), at], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert b"here\n" == process.stdout.readline()
    with pytest.raises(DataError, match="another `ganeum prepare` is filling"):
        made(tmp_path, tokenizer="bytes", overwrite=True)
    process.send_signal(stop)
    process.wait(60)
    if at == "encoding":
        assert open_corpus(tmp_path / "out").tokenizer is not None
        assert old.items() <= digests(tmp_path / "out").items()
    else:
        with pytest.raises(DataError, match="is not complete"):
            open_corpus(tmp_path / "out")
    made(tmp_path, tokenizer="bytes", overwrite=True)
    assert PRODUCTS == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert "bytes" == json.loads((tmp_path / "out" / "meta.json").read_text())["tokenizer"]


@pytest.mark.parametrize("name", ["tokenizer", "val.bin"])
def test_a_tokenizer_of_the_users_own_stays(tmp_path: Path, name: str) -> None:
    """Any of the names that prepare writes is refused where no meta.json says that prepare wrote it."""
    files(tmp_path, a="one")
    mine = tmp_path / "out" / name / "mine"
    mine.mkdir(parents=True)
    with pytest.raises(DataError, match=r"already holds other data[\s\S]*not made by `ganeum prepare`"):
        made(tmp_path, tokenizer="bytes")
    assert mine.exists()


def test_a_deleted_tokenizer_is_made_again(tmp_path: Path) -> None:
    """The same input whose tokenizer/ is gone is not unchanged."""
    files(tmp_path, a="one", b="two")
    made(tmp_path, tokenizer="bytes")
    (tmp_path / "out" / "tokenizer" / "ganeum.json").unlink()
    assert not made(tmp_path, tokenizer="bytes").unchanged
    assert open_corpus(tmp_path / "out").tokenizer is not None


@pytest.mark.parametrize("out", ["in/a.txt", "in/a.txt/below", "x" * 300])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_out_that_can_be_no_directory(tmp_path: Path, out: str, overwrite: bool) -> None:
    """A file, something below one, or a name longer than any file system takes: an error, no traceback."""
    files(tmp_path, a="one")
    with pytest.raises(DataError, match=r"cannot be (read|filled)[\s\S]*(Not a directory|File exists|too long)"):
        prepare(
            Preparation((Source(tmp_path / "in"),), tmp_path / out, tokenizer="bytes", overwrite=overwrite),
        )
    assert "one" == (tmp_path / "in" / "a.txt").read_text()


def test_what_failed_leaves_no_directory(tmp_path: Path) -> None:
    """A directory made for data that cannot be had is gone again, with those above it; an older one stays."""
    files(tmp_path, a=b"\xff")
    (tmp_path / "old").mkdir()
    for out in ("new/and/below", "old"):
        with pytest.raises(DataError, match="not UTF-8"):
            prepare(Preparation((Source(tmp_path / "in"),), tmp_path / out, tokenizer="bytes", strict=True))
    assert ["in", "old"] == sorted(path.name for path in tmp_path.iterdir())
