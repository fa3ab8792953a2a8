"""`ganeum prepare` and its doors, as a user runs them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gpt2_slice import gpt2_slice

from ganeum.data.corpus import open_corpus

ROOT = Path(__file__).parents[2]
BOOK = "Harry Potter was a wizard."


def run(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=directory, capture_output=True, text=True, timeout=120)


def prepare(directory: Path, *arguments: str) -> str:
    done = run(directory, "-m", "ganeum", "prepare", *arguments)
    assert done.returncode == 0, done.stderr
    return re.sub(r"\d+\.\d s, \d+\.\d MB/s", "T s, V MB/s", done.stdout)


def refused(directory: Path, *arguments: str) -> str:
    done = run(directory, "-m", "ganeum", "prepare", *arguments)
    assert (2, "") == (done.returncode, done.stdout)
    return done.stderr


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    for name in "abcdefgh":
        (tmp_path / "texts" / f"{name}.txt").write_text(f"document {name}\n" * 100)
    (tmp_path / "texts" / "picture.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "texts" / "old.txt").write_bytes(b"caf\xe9")
    return tmp_path


def test_what_it_prints(texts: Path) -> None:
    """The whole output: tokens, text, documents, what was replaced and left out, and where it lies."""
    assert prepare(texts, "texts", "--tokenizer", "bytes", "--val-share", "0.3") == (
        "train.bin          6,613 tokens        0.0 MB of text          7 documents  1.00 bytes a token\n"
        "val.bin            2,202 tokens        0.0 MB of text          2 documents  1.00 bytes a token\n"
        "tokenizer  bytes, vocabulary 257, written as uint16\n"
        "replaced   bytes that are not UTF-8, by U+FFFD: 1 (--strict refuses them)\n"
        "           most in texts/old.txt, 25.0% of it; to convert it: iconv -f … -t utf-8\n"
        "left out   files that are not text: 1 (texts/picture.png)\n"
        "written    data/text, T s, V MB/s\n"
    )


def test_one_document_says_how_to_get_a_validation_part(texts: Path) -> None:
    """A book alone has no validation part; both ways to one are named."""
    (texts / "book.txt").write_text(BOOK * 100)
    assert prepare(texts, "book.txt", "--tokenizer", "bytes", "--out", "book") == (
        "train.bin          2,601 tokens        0.0 MB of text          1 document   1.00 bytes a token\n"
        "val.bin    none: there is one document only, and a document is never divided\n"
        "           for a validation loss: --val PATH with other text, or --split-on with what divides this one\n"
        "tokenizer  bytes, vocabulary 257, written as uint16\n"
        "written    book, T s, V MB/s\n"
    )
    (texts / "paragraphs.txt").write_text("one\n\ntwo\n\nthree")
    split = prepare(texts, "paragraphs.txt", "--tokenizer", "bytes", "--split-on", "\\n\\n", "--out", "paragraphs")
    assert "2 documents" in split.splitlines()[0]
    assert "1 document " in split.splitlines()[1]
    (texts / "windows.txt").write_bytes(b"one\r\n\r\ntwo")
    never = prepare(texts, "windows.txt", "--tokenizer", "bytes", "--split-on", "\\n\\n", "--out", "windows")
    assert never.splitlines()[1:3] == [
        "val.bin    none: there is one document only: '\\n\\n' occurs nowhere between two "
        "(in a file from Windows a line ends with '\\r\\n')",
        "           for a validation loss: --val PATH with other text, or --split-on with another string that divides "
        "this one",
    ]


def test_json_is_meta_json_and_where_it_lies(texts: Path) -> None:
    """--json prints what a program wants to know, and nothing else."""
    answer = json.loads(prepare(texts, "texts", "--tokenizer", "characters", "--json"))
    assert ("data/text", False) == (answer.pop("directory"), answer.pop("unchanged"))
    assert answer == json.loads((texts / "data" / "text" / "meta.json").read_text())


def test_inspect_prints_what_document_000_prints(tmp_path: Path) -> None:
    """Characters and tokens, the ids, each with its text, the file's tokens, an input and its target shifted by one."""
    gpt2_slice().save(tmp_path / "gpt2")
    (tmp_path / "book.txt").write_text(BOOK + BOOK)
    (tmp_path / "data").mkdir()
    assert prepare(tmp_path, "book.txt", "--tokenizer", "./gpt2", "--inspect", BOOK) == (
        "characters: 26, tokens: 6\n"
        "[18308, 14179, 373, 257, 18731, 13]\n"
        "Harry Potter was a wizard.\n"
        "18308    -> Harry\n"
        "14179    ->  Potter\n"
        "373      ->  was\n"
        "257      ->  a\n"
        "18731    ->  wizard\n"
        "13       -> .\n"
        "\n"
        "# of tokens in train.bin: 13\n"
        "\n"
        "input   Harry Potter was a wizard.Harry Potter was a wizard.\n"
        "target   Potter was a wizard.Harry Potter was a wizard.<|endoftext|>\n"
    )


def test_inspect_needs_no_preparation(texts: Path) -> None:
    """Of a directory prepared before, or of a tokenizer alone; as JSON too."""
    prepare(texts, "texts", "--tokenizer", "characters")
    lines = prepare(texts, "--out", "data/text", "--inspect", "d\n").splitlines()
    assert ["characters: 2, tokens: 2", "[5, 0]", "d", "", "5        -> d", "0        -> \\n"] == lines[:6]
    assert "input   document a\\ndocument a\\ndocument a" == lines[9]
    alone = json.loads(prepare(texts, "--tokenizer", "bytes", "--inspect", "가", "--json"))
    assert ([234, 176, 128], None) == (alone["ids"], alone["file_tokens"])
    assert "no 'z'" in refused(texts, "--out", "data/text", "--inspect", "z")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "DataError: there is nothing to prepare\n  why    no SOURCE was named\n"
             "  try    ganeum prepare tinystories, ganeum prepare pystdlib, or ganeum prepare PATH…\n"),
        (["pystdlib", "x.txt"], "DataError: pystdlib cannot be mixed with other text\n"
         "  why    its documents and its split are its own\n"
         "  try    ganeum prepare pystdlib alone; a directory of that name is ./pystdlib\n"),
        (["x.txt", "--source", "y"], "DataError: --source belongs to tinystories and shakespeare_char\n"
         "  try    name other text directly: ganeum prepare PATH…\n"),
        (["--inspect", "x"], "DataError: a bpe tokenizer needs a corpus to come from\n"
         "  try    --out with a prepared directory, or --tokenizer gpt2, bytes or a directory that holds one\n"),
        (["x.txt"], "DataError: x.txt does not exist\n  where  DIR/x.txt\n"
         "  try    name text files, directories of them, tinystories or pystdlib\n"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(tmp_path: Path, arguments: list[str], message: str) -> None:
    """Each with its way out, on standard error, exit status 2."""
    assert message == refused(tmp_path, *arguments).replace(str(tmp_path), "DIR")


@pytest.mark.parametrize("name", ["tinystories", "pystdlib", "text", "shakespeare_char"])
def test_doors_work_from_anywhere(tmp_path: Path, name: str) -> None:
    """data/*/prepare.py run from the root and from inside its folder fills the folder that it lies in."""
    door = tmp_path / "data" / name / "prepare.py"
    door.parent.mkdir(parents=True)
    shutil.copy(ROOT / "data" / name / "prepare.py", door)
    text = tmp_path / "some text.txt"
    text.write_text("a story<|endoftext|>another story")
    arguments = {"text": [str(text)], "pystdlib": ["--workers", "1"]}.get(name, ["--source", str(text)])
    for directory, script in ((tmp_path, str(door.relative_to(tmp_path))), (door.parent, "prepare.py")):
        done = run(directory, script, *arguments, "--tokenizer", "bytes")
        assert done.returncode == 0, done.stderr
        assert f"{door.parent}, " in done.stdout or f"unchanged  {door.parent} was prepared" in done.stdout
    assert 257 == open_corpus(door.parent).vocab_size
    assert {"meta.json", "tokenizer", "train.bin"} <= {path.name for path in door.parent.iterdir()}


def test_a_terminal_shows_a_bar_elsewhere_lines(texts: Path) -> None:
    """Without a terminal nothing but plain text goes to standard error."""
    done = run(texts, "-m", "ganeum", "prepare", "texts", "--tokenizer", "bytes")
    assert "" == done.stderr
    if shutil.which("script") and os.name != "nt":
        command = f"{sys.executable} -m ganeum prepare texts --tokenizer bytes --overwrite"
        shown = subprocess.run(["script", "-qec", command, "/dev/null"], cwd=texts, capture_output=True, text=True)
        assert "\x1b[" in shown.stdout
        assert "MB/s" in shown.stdout


def test_a_vocabulary_that_does_not_come_out_as_asked(texts: Path) -> None:
    """A size of 0 is refused, not taken for the default; a text too poor for the size asked is said."""
    assert "a BPE vocabulary of 0 is too small" in refused(texts, "texts", "--vocab-size", "0")
    lines = prepare(texts, "texts", "--vocab-size", "9000").splitlines()
    assert re.fullmatch(
        r"tokenizer  bpe, vocabulary 2\d\d \(not 9,000: no other pair of tokens occurs twice\), written as uint16",
        lines[2],
    )
