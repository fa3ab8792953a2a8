"""Output where there is no UTF-8, no terminal and no space."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def ganeum(
    *arguments: str, out: int = subprocess.PIPE, where: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, "-m", "ganeum", *arguments]
    environment = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "", **where}
    return subprocess.run(words, env=environment, stdout=out, stderr=subprocess.PIPE, check=False)


def test_ascii_is_enough() -> None:
    """Where only ASCII can be written, a character is replaced by one like it, and no line is longer for it."""
    plain, full = ganeum("gpus", "4090 laptop", where=ASCII), ganeum("gpus", "4090 laptop", where={"PYTHONUTF8": "1"})
    assert (plain.returncode, plain.stderr) == (0, b"")
    assert b"power                              80-150 W" in plain.stdout
    assert [len(line) for line in plain.stdout.decode("ascii").splitlines()] == [
        len(line) for line in full.stdout.decode("utf-8").splitlines()
    ]


def test_an_error_in_ascii() -> None:
    """What has no likeness is a question mark, also in an error."""
    told = ganeum("gpus", "4090 é 한글", where={"PYTHONIOENCODING": "ascii"}).stderr
    assert told.startswith(b"DeviceError: no GPU called 4090 ? ?? is known\n")


def test_json_stays_json() -> None:
    """A program reads it whatever the encoding."""
    assert json.loads(ganeum("gpus", "4090 laptop", "--json", where=ASCII).stdout)["gpus"][0]["laptop"] is True


def test_a_reader_that_leaves() -> None:
    """`| head` ends it without a word."""
    words = [sys.executable, "-m", "ganeum", "gpus", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stderr
        running.stdout.close()
        assert running.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device that is always full")
def test_no_space_is_an_error_like_others() -> None:
    """A full disk behind `>` is told in words, with exit status 2."""
    with Path("/dev/full").open("wb") as full:
        done = ganeum("gpus", "--json", out=full.fileno())
    assert (done.returncode, done.stderr) == (
        2,
        b"GaneumError: no space is left to write to\n  where  standard output\n",
    )


@pytest.mark.skipif(os.name == "nt", reason="a directory that somebody stands in is not deleted there")
def test_a_directory_that_is_gone_is_an_error_like_others(tmp_path: Path) -> None:
    """The one that the user stands in, deleted and cloned anew, say: told in words, with exit status 2."""
    standing = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    words = ["sh", "-c", standing, "sh", sys.executable, "-m", "ganeum", "queue", "add", "one.yaml"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        b"GaneumError: the directory that you stand in was deleted\n  try    `cd` to where it is now\n",
    )


@pytest.mark.skipif(os.name == "nt", reason="sh")
def test_a_closed_standard_output_takes_everything(tmp_path: Path) -> None:
    """`>&-`, as some starters of programs leave it, ends no command."""
    words = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "ganeum", "queue", "run"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_there_is_help_without_docstrings() -> None:
    """`python -OO` leaves them out: the options stand there all the same."""
    done = subprocess.run([sys.executable, "-OO", "-m", "ganeum", "doctor", "gpu", "--help"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"--json" in done.stdout


def test_help_breaks_its_lines_at_the_width_of_the_terminal_alone() -> None:
    told = ganeum("doctor", "compare", "--help", where={"PYTHONUTF8": "1"}).stdout.decode()
    *lines, _ = told.partition(" Data, forward")[2].partition("Nothing is run.")[0].splitlines()
    assert len(lines) > 2
    assert all(len(line.rstrip()) > 60 for line in lines[1:]), told
