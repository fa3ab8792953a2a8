"""Peak memory and speed of `ganeum prepare` on a corpus of a chosen size: does memory stay flat as the text grows?

    python benchmarks/prepare_memory.py --megabytes 200 --workers 2

The corpus is this Python's standard library over and over, each copy with its own numbers, in a temporary directory
that is removed afterwards. Memory is that of the whole tree of processes, sampled every 50 ms: their proportional
set sizes (pages shared between processes counted once) where the kernel tells it, of their resident sizes elsewhere.
Pages of the page cache are not counted: the kernel gives them back to whoever asks.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from ganeum.data.files import Walk
from ganeum.data.known import pystdlib

SEPARATOR = "<|endoftext|>"


def copies() -> Iterator[bytes]:
    """The library's files for ever; every number in the nth copy is shifted by n, so that no two copies are equal."""
    for n in itertools.count():

        def shifted(found: re.Match[bytes], n: int = n) -> bytes:
            return b"%d" % (int(found[0][:15]) + n)

        for file in Walk(pystdlib()):
            yield re.sub(rb"\d+", shifted, file.path.read_bytes())


def write_corpus(directory: Path, size: int, layout: str) -> None:
    """Text of `size` bytes: many files, one file with separators between documents, or one huge document."""
    written = 0
    between = f"\n{SEPARATOR}\n".encode() if layout == "separated" else b"\n"
    whole = None if layout == "files" else (directory / "all.txt").open("wb")
    for number, text in enumerate(copies()):
        if whole is None:
            folder = directory / f"{number // 1000:05}"
            folder.mkdir(exist_ok=True)
            (folder / f"{number:08}.py").write_bytes(text)
        else:
            whole.write(text + between)
        written += len(text) + (0 if whole is None else len(between))
        if written >= size:
            break
    if whole is not None:
        whole.close()


def memory_bytes(process: psutil.Process) -> int:
    """Of a process and all below it; those that end while we look count nothing."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += getattr(one.memory_full_info(), "pss", 0) or one.memory_info().rss
        except psutil.Error:
            continue
    return total


def measure(command: list[str]) -> tuple[float, int, str]:
    """Seconds, peak bytes, and what it printed."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        process, peak = psutil.Process(running.pid), 0
        while running.poll() is None:
            peak = max(peak, memory_bytes(process))
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        assert running.stdout is not None
        output = running.stdout.read()
    if running.returncode:
        sys.exit(running.returncode)
    return seconds, peak, output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=200, help="size of the corpus, millions of bytes")
    parser.add_argument("--layout", choices=["files", "separated", "document"], default="separated")
    parser.add_argument("--workers", type=int, default=psutil.cpu_count())
    parser.add_argument("--tokenizer", default="bpe")
    parser.add_argument("--directory", type=Path, help="where the temporary directory goes; default: the system's")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ganeum-corpus-", dir=arguments.directory) as temporary:
        corpus = Path(temporary) / "corpus"
        corpus.mkdir()
        write_corpus(corpus, arguments.megabytes * 1_000_000, arguments.layout)
        size = sum(path.stat().st_size for path in corpus.rglob("*") if path.is_file())
        command = [
            sys.executable,
            "-m",
            "ganeum",
            "prepare",
            str(corpus),
            "--out",
            str(Path(temporary) / "out"),
            "--json",
        ]
        command += ["--tokenizer", arguments.tokenizer, "--workers", str(arguments.workers)]
        command += ["--split-on", SEPARATOR] if arguments.layout == "separated" else []
        seconds, peak, output = measure(command)
    meta = json.loads(output)
    result = {
        "megabytes": round(size / 1e6, 1),
        "layout": arguments.layout,
        "documents": meta["train"]["documents"] + (meta["val"] or {"documents": 0})["documents"],
        "tokens": meta["train"]["tokens"] + (meta["val"] or {"tokens": 0})["tokens"],
        "tokenizer": meta["tokenizer"],
        "vocab_size": meta["vocab_size"],
        "workers": arguments.workers,
        "seconds": round(seconds, 1),
        "megabytes_per_second": round(size / 1e6 / seconds, 2),
        "peak_mib": round(peak / 2**20, 1),
        "machine": f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
