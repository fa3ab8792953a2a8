"""MB/s of `ganeum prepare` beside `datasets.map` and nanoGPT's way: same text, same vocabulary, same tokens.

    python benchmarks/prepare.py                       # about 4 minutes on 2 cores

The text is this Python's standard library until `--megabytes` are there, each later copy with other numbers, as JSON
lines: one document a line, which all three read. The vocabulary is a byte-level BPE learnt from it by ganeum. The ways:

    ganeum    `ganeum prepare corpus.jsonl --tokenizer DIRECTORY`
    map       `datasets.map`, batched, with the same tokenizer.json in `tokenizers`' encode_batch, then a file of uint16
    nanogpt   as its data/openwebtext/prepare.py: `datasets.map` document by document with tiktoken, then a memory map
              filled from 1,024 shards

Each is a process of its own, its start included; the ways run by turns, and ratios are taken within a round. Reading
JSON into Arrow, which `datasets` does once and keeps, is told apart and not counted against it. The three train.bin
must be the same, byte for byte, or nothing is reported.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from prepare_memory import copies

from ganeum.data.bpe import BPE, WORDS

WAYS = ("ganeum", "map", "nanogpt")
RESULT = Path(__file__).parent / "results" / "prepare.json"


def write_corpus(path: Path, size: int, vocabulary: Path, vocab_size: int) -> int:
    """JSON lines of about `size` bytes of text, and a vocabulary learnt from the first 32 MB of them."""
    texts, held = [], 0
    for data in copies():
        texts.append(data.decode("utf-8", "replace"))
        held += len(data)
        if held >= size:
            break
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts if text)
    BPE.train(islice(texts, int(len(texts) * min(1.0, 32e6 / held))), vocab_size).save(vocabulary)
    return sum(len(text.encode()) for text in texts)


def theirs(way: str, corpus: Path, vocabulary: Path, out: Path, processes: int) -> None:
    """One of the two others, in this process; what `datasets` keeps of the JSON is made before the clock starts."""
    import numpy as np
    from datasets import load_dataset

    datasets = load_dataset("json", data_files=str(corpus), split="train", cache_dir=str(out.parent / "cache"))
    started = time.perf_counter()
    if way == "map":
        import tokenizers

        fast = tokenizers.Tokenizer.from_file(str(vocabulary / "tokenizer.json"))
        fast.encode_special_tokens = True
        end = fast.token_to_id("<|endoftext|>")

        def encode(batch):  # type: ignore[no-untyped-def]
            found = fast.encode_batch(batch["text"], add_special_tokens=False)
            return {"ids": [[*one.ids, end] for one in found]}

        made = datasets.map(
            encode, batched=True, remove_columns=["text"], num_proc=processes, load_from_cache_file=False
        )
        with out.open("wb") as file:
            for batch in made.with_format("numpy").iter(1000):
                np.concatenate(batch["ids"]).astype(np.uint16).tofile(file)
    else:
        import tiktoken

        tokens = BPE.load(vocabulary / "tokenizer.json", "bpe").token_bytes
        end = tokens.index(b"")
        ranks = {token: id for id, token in enumerate(tokens) if token}
        encoding = tiktoken.Encoding("bench", pat_str=WORDS, mergeable_ranks=ranks, special_tokens={"<|end|>": end})

        def process(example):  # type: ignore[no-untyped-def]
            ids = encoding.encode_ordinary(example["text"])
            ids.append(end)
            return {"ids": ids, "len": len(ids)}

        made = datasets.map(process, remove_columns=["text"], num_proc=processes, load_from_cache_file=False)
        total, at = int(np.sum(made["len"], dtype=np.uint64)), 0
        array = np.memmap(out, dtype=np.uint16, mode="w+", shape=(total,))
        shards = min(1024, len(made))
        for index in range(shards):
            batch = made.shard(num_shards=shards, index=index, contiguous=True).with_format("numpy")
            ids = np.concatenate(batch["ids"])
            array[at : at + len(ids)] = ids
            at += len(ids)
        array.flush()
    print(json.dumps({"seconds": time.perf_counter() - started}))


def measure(way: str, corpus: Path, vocabulary: Path, directory: Path, processes: int) -> tuple[float, str]:
    """Seconds, and the SHA-256 of its train.bin."""
    out = directory / f"{way}.bin"
    if way == "ganeum":
        arguments = ["-m", "ganeum", "prepare", str(corpus), "--tokenizer", str(vocabulary), "--val-share", "0"]
        arguments += ["--out", str(directory / "ganeum"), "--workers", str(processes), "--overwrite"]
        out = directory / "ganeum" / "train.bin"
    else:
        arguments = [__file__, "--way", way, "--processes", str(processes), str(corpus), str(vocabulary), str(out)]
    environment = os.environ | {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True, env=environment)
    seconds = time.perf_counter() - started
    if way != "ganeum":
        seconds = json.loads(done.stdout.splitlines()[-1])["seconds"]
    return seconds, hashlib.sha256(out.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=100, help="of text, millions of bytes")
    parser.add_argument("--vocab-size", type=int, default=16_384)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        theirs(arguments.way, *arguments.paths, arguments.processes)
        return
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="ganeum-prepare-") as temporary:
        directory = Path(temporary)
        corpus, vocabulary = directory / "corpus.jsonl", directory / "vocabulary"
        size = write_corpus(corpus, arguments.megabytes * 1_000_000, vocabulary, arguments.vocab_size)
        for number in range(arguments.rounds):
            digests = set()
            for way in WAYS[number % 3 :] + WAYS[: number % 3]:
                took, digest = measure(way, corpus, vocabulary, directory, arguments.processes)
                seconds[way].append(took)
                digests.add(digest)
                print(f"round {number + 1}  {way:<8} {took:6.1f} s  {size / 1e6 / took:6.1f} MB/s", file=sys.stderr)
            if len(digests) != 1:
                sys.exit("the ways disagree about the tokens: nothing is reported")
    result = {
        "megabytes": round(size / 1e6, 1),
        "vocab_size": arguments.vocab_size,
        "processes": arguments.processes,
        "megabytes_per_second": {
            way: {
                "median": round(size / 1e6 / statistics.median(took), 2),
                "rounds": [round(size / 1e6 / one, 2) for one in took],
            }
            for way, took in seconds.items()
        },
        "times_as_fast_as": {
            way: round(
                statistics.median(other / own for other, own in zip(seconds[way], seconds["ganeum"], strict=True)), 2
            )
            for way in WAYS[1:]
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("ganeum", "datasets", "tokenizers", "tiktoken", "pyarrow")},
        "date": time.strftime("%Y-%m-%d"),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
