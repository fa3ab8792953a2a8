"""Examples by the million: how fast they become tokens, and does memory stay flat meanwhile and while batches are made?

    python benchmarks/examples.py --rows 3000000

A pair is a line of this Python's standard library and the three before it, over and over, each copy with its own
numbers; the tokenizer is a unigram model of 8,000 pieces trained on it, as T5's. Everything lies in a temporary
directory that is removed afterwards. Memory is that of the whole tree of processes (benchmarks/prepare_memory.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import psutil
from prepare_memory import copies, memory_bytes

BATCH, AT_ONCE, STEPS = 64, 16, 1_000
PHASES = ("importing", "tokens", "opening", "batches")


def pairs(rows: int) -> Iterator[dict[str, str]]:
    """That many, each a line of code behind three others."""
    lines = (line.decode(errors="replace") for text in copies() for line in text.splitlines() if line.strip())
    before = deque(islice(lines, 3), maxlen=3)
    for line in islice(lines, rows):
        yield {"source": "\n".join(before), "target": line.strip()}
        before.append(line)


def make_model(directory: Path) -> None:
    """A tokenizer and the config of a small T5."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, T5Config

    fast = Tokenizer(models.Unigram())
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    specials = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=8_000, special_tokens=specials, unk_token="<unk>", show_progress=False)
    fast.train_from_iterator((pair["source"] for pair in pairs(20_000)), trainer)
    fast.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=fast, **names).save_pretrained(directory)
    T5Config(vocab_size=8_000).save_pretrained(directory)


def work(directory: Path, workers: int) -> None:
    """What is measured: both openings, then batches; a line with the time before each."""

    def phase(name: str, **figures: object) -> None:
        cpu = sum(os.times()[:4])  # of this process and of workers that have ended
        print(json.dumps({"phase": name, "at": time.time(), "cpu": cpu, **figures}), flush=True)

    phase("importing")
    from ganeum.config.schema import Config
    from ganeum.data.examples.examples import open_examples

    model, data = (
        {"source": str(directory), "fresh": True},
        {"train": str(directory / "pairs.jsonl"), "max_length": 128},
    )
    config = Config.model_validate({"model": model, "data": data, "train": {"batch_size": BATCH}})
    phase("tokens")
    open_examples(config, lambda line: None, workers=workers)
    phase("opening")
    batches = open_examples(config, lambda line: None).batches(config)
    phase("batches")
    padding = tokens = 0
    for step in range(0, batches.steps_per_epoch, max(1, batches.steps_per_epoch // STEPS)):
        for batch in batches.whole(step).micro_batches(AT_ONCE):
            padding, tokens = padding + batch.padding, tokens + batch.tokens
    phase("end", padding=round(padding / (padding + tokens), 4), examples=len(batches.part), steps=STEPS)


def measure(directory: Path, workers: int) -> tuple[list[dict[str, Any]], list[tuple[float, int]]]:
    """The phases and (time, bytes) four times a second, of a process of its own."""
    command = [sys.executable, __file__, "--directory", str(directory), "--workers", str(workers)]
    samples: list[tuple[float, int]] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "GANEUM_CACHE": str(directory / "cache")}
    ) as running:
        process = psutil.Process(running.pid)
        while running.poll() is None:
            samples.append((time.time(), memory_bytes(process)))
            time.sleep(0.25)
        assert running.stdout is not None
        output = running.stdout.read()
    if running.returncode:
        sys.exit(running.returncode)
    return [json.loads(line) for line in output.splitlines()], samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--workers", type=int, default=psutil.cpu_count())
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.directory:
        work(arguments.directory, arguments.workers)
        return
    with tempfile.TemporaryDirectory(prefix="ganeum-examples-") as temporary:
        directory = Path(temporary)
        make_model(directory)
        with (directory / "pairs.jsonl").open("w") as file:
            file.writelines(json.dumps(pair) + "\n" for pair in pairs(arguments.rows))
        size = (directory / "pairs.jsonl").stat().st_size
        phases, samples = measure(directory, arguments.workers)
        kept = sum(path.stat().st_size for path in (directory / "cache").rglob("*") if path.is_file())
    spans = {one["phase"]: (one["at"], after["at"]) for one, after in pairwise(phases)}
    inside = {name: [b for at, b in samples if start <= at < end] for name, (start, end) in spans.items()}
    seconds = {name: end - start for name, (start, end) in spans.items()}
    cpu = {one["phase"]: after["cpu"] - one["cpu"] for one, after in pairwise(phases)}
    tenths = [inside["tokens"][i * len(inside["tokens"]) // 10 :][0] for i in range(10)] + inside["tokens"][-1:]
    result = {
        "rows": arguments.rows,
        "megabytes": round(size / 1e6, 1),
        "megabytes_of_cache": round(kept / 1e6, 1),
        "workers": arguments.workers,
        "seconds": {name: round(seconds[name], 2) for name in PHASES},
        "cpu_seconds": {name: round(cpu[name], 2) for name in PHASES},
        "rows_per_second": round(arguments.rows / seconds["tokens"]),
        "megabytes_per_second": round(size / 1e6 / seconds["tokens"], 2),
        "megabytes_per_cpu_second": round(size / 1e6 / cpu["tokens"], 2),
        "peak_mib": {name: round(max(found, default=0) / 2**20) for name, found in inside.items()},
        "mib_at_each_tenth_of_the_tokenising": [round(found / 2**20) for found in tenths],
        "batches": {name: phases[-1][name] for name in ("examples", "steps", "padding")},
        "ms_per_step_of_64": round(1e3 * seconds["batches"] / STEPS, 2),
        "machine": f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
