"""TinyStories from the hub, played by a server on this machine, and the standard library."""

import hashlib
import os
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ganeum.data import known
from ganeum.data.files import Walk
from ganeum.data.known import pystdlib
from ganeum.errors import DataError

COMMIT = "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64"
BASE = "/datasets/roneneldan/TinyStories/resolve/main/"
TRAIN = "\n<|endoftext|>\n".join(f"Once there was a cat named Tom{i}." for i in range(30)) + "\n<|endoftext|>\n"
VAL = "A dog ran.\n<|endoftext|>\nThe end.\n<|endoftext|>\n"
STORIES = {BASE + "TinyStoriesV2-GPT4-train.txt": TRAIN.encode(), BASE + "TinyStoriesV2-GPT4-valid.txt": VAL.encode()}


class Hub(BaseHTTPRequestHandler):
    """The two requests that a download makes: HEAD for commit, ETag and size, GET for the bytes."""

    seen: list[str]

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.wfile.write(self.answer())

    def answer(self) -> bytes:
        self.seen.append(f"{self.command} {self.path}")
        body = STORIES.get(self.path)
        self.send_response(404 if body is None else 200)
        if body is not None:
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        return body or b""

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """Its address, and the requests it has seen."""
    seen: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Hub,), {"seen": seen}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


def ganeum(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()
    }
    return subprocess.run(
        [sys.executable, "-m", "ganeum", "prepare", *arguments],
        env=clean | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )


def documents(line: str) -> int:
    """How many a line like `train.bin 1,010 tokens 0.0 MB of text 30 documents …` tells of."""
    return int(line.split(" documents")[0].split()[-1].replace(",", ""))


def test_tinystories_come_from_the_hub_with_their_own_split(tmp_path: Path, hub: tuple[str, list[str]]) -> None:
    """The library's own download, from whatever HF_ENDPOINT names: 30 stories to train on, 2 to validate."""
    address, seen = hub
    done = ganeum(tmp_path, "tinystories", "--tokenizer", "bytes", HF_ENDPOINT=address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "train.bin          1,010 tokens        0.0 MB of text         30 documents  0.97 bytes a token\n"
        "val.bin               20 tokens        0.0 MB of text          2 documents  0.90 bytes a token\n"
        "tokenizer  bytes, vocabulary 257, written as uint16\n"
        "written    data/tinystories, "
    )
    assert [f"GET {path}" for path in STORIES] == [request for request in seen if f"GET {BASE}" in request]
    val = np.fromfile(tmp_path / "data" / "tinystories" / "val.bin", np.uint16)
    assert [*b"A dog ran.", 256, *b"The end.", 256] == val.tolist()

    again = ganeum(tmp_path, "tinystories", "--tokenizer", "bytes", HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert "unchanged  data/tinystories" in again.stdout


@pytest.mark.parametrize(
    ("environment", "cause"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "OfflineModeIsEnabled: "),
        pytest.param({}, "ConnectionRefusedError: ", marks=pytest.mark.campaign),  # the library tries for 23 s
    ],
)
def test_a_hub_out_of_reach_is_one_error_with_ways_out(tmp_path: Path, environment: dict[str, str], cause: str) -> None:
    """Offline, or nobody answers: what, where, why, and what works without a network; nothing is left behind."""
    done = ganeum(tmp_path, "tinystories", HF_ENDPOINT="http://127.0.0.1:9", **environment)
    assert done.returncode == 2
    message = done.stderr[done.stderr.index("DataError") :]  # after the library's own warnings
    why = next(line for line in message.splitlines() if line.startswith("  why"))
    assert why.startswith(f"  why    {cause}")
    assert message == (
        "DataError: TinyStories cannot be fetched from the Hugging Face hub\n"
        "  where  http://127.0.0.1:9/datasets/roneneldan/TinyStories, TinyStoriesV2-GPT4-train.txt\n"
        f"{why}\n"
        "  try    --source FILE with stories between <|endoftext|> (that file from another machine, say),\n"
        "         or HF_ENDPOINT set to a mirror, or `ganeum prepare pystdlib`, which needs no network\n"
    )
    assert [] == [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".json")]


def test_tinystories_from_a_file(tmp_path: Path) -> None:
    """--source with one file in the same format: divided by the hash, story by story; no network is asked."""
    (tmp_path / "stories.txt").write_text(TRAIN)
    done = ganeum(
        tmp_path,
        "tinystories",
        "--source",
        "stories.txt",
        "--tokenizer",
        "characters",
        HF_HUB_OFFLINE="1",
    )
    assert done.returncode == 0, done.stderr
    train, val = (documents(line) for line in done.stdout.splitlines()[:2])
    assert 30 == train + val
    assert val > 0


def test_tinystories_from_a_directory_keep_their_split(tmp_path: Path) -> None:
    """--source with the directory of both files uses each for what it is."""
    for path, body in STORIES.items():
        (tmp_path / path.rpartition("/")[2]).write_bytes(body)
    done = ganeum(tmp_path, "tinystories", "--source", ".", "--tokenizer", "bytes")
    assert done.returncode == 0, done.stderr
    assert [30, 2] == [documents(line) for line in done.stdout.splitlines()[:2]]


def test_a_directory_without_tinystories_is_named(tmp_path: Path) -> None:
    """What is missing is said by name."""
    done = ganeum(tmp_path, "tinystories", "--source", ".")
    assert (done.returncode, done.stderr) == (
        2,
        "DataError: . does not hold TinyStories\n"
        "  where  TinyStoriesV2-GPT4-train.txt\n"
        "  try    --source FILE, or a directory with TinyStoriesV2-GPT4-train.txt and TinyStoriesV2-GPT4-valid.txt\n",
    )


def test_the_standard_library_is_python_without_installed_packages() -> None:
    """Only .py files below the standard library's directory, none of a package that pip installed."""
    files = [file.name for file in Walk(pystdlib())]
    assert {"json/decoder.py", "subprocess.py", "typing.py"} <= set(files)
    assert all(name.endswith(".py") and "-packages" not in name and "__pycache__" not in name for name in files)
    assert all(file.path.is_relative_to(sysconfig.get_path("stdlib")) for file in Walk(pystdlib()))


THEIRS = """
with open("input.txt") as f: data = f.read()
stoi = {ch: i for i, ch in enumerate(sorted(list(set(data))))}
n = len(data)
for name, part in (("train", data[:int(n*0.9)]), ("val", data[int(n*0.9):])):
    np.array([stoi[c] for c in part], dtype=np.uint16).tofile(f"{name}.bin")
"""


def test_shakespeare_is_byte_for_byte_nanogpts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ids and the split of nanoGPT's data/shakespeare_char/prepare.py, whose steps are THEIRS, on another text."""
    text = "".join(chr(32 + (i * i + i // 7) % 90) for i in range(10_007)) + "\n가늠é"
    (tmp_path / "input.txt").write_text(text)
    monkeypatch.chdir(tmp_path)
    exec(THEIRS, {"np": np})
    done = ganeum(tmp_path, "shakespeare_char", "--input", "input.txt", "--out", "ours")
    assert done.returncode == 0, done.stderr
    for name in ("train.bin", "val.bin"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "ours" / name).read_bytes()
    again = ganeum(tmp_path, "shakespeare_char", "--input", "input.txt", "--out", "ours")
    assert "unchanged  ours" in again.stdout


def test_shakespeare_that_cannot_be_had_or_is_another_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, or a proxy's page in its place: one error, with the way to do without."""
    page = tmp_path / "page"
    page.write_text("<html>please log in</html>")
    for address, why in (
        ((tmp_path / "none").as_uri(), "URLError: "),
        (page.as_uri(), "ValueError: what came, 26 bytes, is another text than nanoGPT's 1,115,394"),
    ):
        monkeypatch.setattr(known, "SHAKESPEARE", address)
        with pytest.raises(DataError) as error:
            known.shakespeare_char()
        assert str(error.value).startswith(
            f"DataError: Shakespeare cannot be fetched\n  where  {address}\n  why    {why}"
        )
        assert "--input FILE with that text" in str(error.value)
