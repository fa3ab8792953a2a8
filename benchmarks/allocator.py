"""Is the plan's model of CUDA's caching allocator torch's allocator? Both get the same requests; no GPU is needed.

    python benchmarks/allocator.py --torch UNPACKED --cuda /usr/local/cuda     # results/allocator.json
    python benchmarks/allocator.py … --fixture                                 # tests/plan/torch_allocator.json

``UNPACKED`` is a CUDA wheel of torch, unpacked: ``pip download --no-deps torch==2.13.0 --index-url
https://pypi.org/simple``, then ``unzip``. Its libc10_cuda.so, which holds the allocator, runs here over a driver that
hands out addresses without memory behind them (allocator_driver.c). ``--cuda`` is a CUDA toolkit of the wheel's major
version, whose headers are needed.

A sequence is 800 random requests, releases and emptyings. After each of them both must have the same bytes allocated,
requested and reserved, the same peaks, the same number of retries, and have run out of memory or not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from ganeum.plan.trace.allocator import CachingAllocator, OutOfMemory
from ganeum.plan.trace.allocator_settings import MIB, parse

HERE = Path(__file__).parent
RESULT = HERE / "results" / "allocator.json"
FIXTURE = HERE.parent / "tests" / "plan" / "torch_allocator.json"
SETTINGS = (
    "",
    "expandable_segments:True",
    "max_split_size_mb:64",
    "max_split_size_mb:20,max_non_split_rounding_mb:60",
    "roundup_power2_divisions:4",
    "roundup_power2_divisions:[16:2,64:4,>:8]",
    "garbage_collection_threshold:0.6",
    "large_segment_size_mb:64",
    "expandable_segments:True,large_segment_size_mb:32",
    "expandable_segments:True,roundup_power2_divisions:8",
    "max_split_size_mb:40,garbage_collection_threshold:0.5",
)
SHARE = 0.75  # of the device's memory, where a limit is set
# Around every border of the allocator: bytes.
BORDERS = [1, 100, 512, 513, 5000, 70_000] + [
    round(mib * MIB) + more for mib in (1, 3, 7, 10, 12, 19, 20, 33, 64, 100, 200, 333) for more in (-1, 0, 1)
]

Operation = tuple[str, int, int]  # what, key, bytes
Row = list[int]  # allocated, requested, reserved, peak allocated, peak reserved, retries, out of memory


@dataclass(frozen=True)
class Case:
    """One sequence under one setting; ``total`` and ``capacity``: bytes of the device, and what its driver has."""

    settings: str
    operations: list[Operation]
    total: int = 1 << 40
    capacity: int | None = None
    limited: bool = False


def cases(seeds: int, length: int) -> Iterator[Case]:
    """Every setting without end of memory, with little of it, and with a limit below that."""
    for settings in SETTINGS:
        for seed in range(seeds):
            operations = random_operations(f"{settings}{seed}", length)
            little = (400 + 150 * (seed % 30)) * MIB
            yield Case(settings, operations)
            yield Case(settings, operations, capacity=little)
            yield Case(settings, operations, total=2 * little, capacity=2 * little, limited=True)


def random_operations(seed: str, length: int) -> list[Operation]:
    """Requests of a few sizes again and again, and of any; releases in any order."""
    draw = random.Random(seed)
    usual = draw.sample(BORDERS, 12)
    live: list[int] = []
    found: list[Operation] = []
    for key in range(length):
        what = draw.random()
        if what < 0.52 or not live:
            size = draw.choice(usual) if draw.random() < 0.7 else int(2 ** draw.uniform(0, 29))
            found.append(("a", key, size))
            live.append(key)
        elif what < 0.99:
            found.append(("f", live.pop(draw.randrange(len(live))), 0))
        else:
            found.append(("e", 0, 0))
    return found


def of_ours(case: Case) -> list[Row]:
    """What the model says after each operation."""
    allocator = CachingAllocator(
        parse(case.settings),
        limit=int(SHARE * case.total) if case.limited else None,
        capacity=case.capacity,
        memory=case.total,
    )
    rows = []
    for what, key, size in case.operations:
        out = False
        if what == "a":
            try:
                allocator.allocate(key, size)
            except OutOfMemory:
                out = True
        elif what == "f":
            allocator.release(key)
        else:
            allocator.empty_cache()
        peaks = [allocator.peak_allocated, allocator.peak_reserved]
        rows.append([*allocator.counts(), *peaks, allocator.retries, int(out)])
    return rows


class Torch:
    """The allocator of an unpacked wheel."""

    def __init__(self, wheel: Path, cuda: Path, directory: Path) -> None:
        library, include = wheel / "torch" / "lib", cuda / "include"
        driver = str(HERE / "allocator_driver.c")
        shared = ["gcc", "-w", "-shared", "-fPIC", f"-I{include}", driver]
        versions = directory / "versions"
        versions.write_text("libcudart.so.13 { global: *; };\n")
        for command in (
            [*shared, f"-Wl,--version-script={versions}", "-Wl,-soname,libcudart.so.13", "-o", "libcudart.so.13"],
            [*shared, "-DNVML", "-Wl,-soname,libnvidia-ml.so.1", "-o", "libnvidia-ml.so.1"],
            [
                *("g++", "-w", "-O1", "-std=c++20", f"-I{wheel / 'torch' / 'include'}", f"-I{include}", "-o", "asked"),
                *(str(HERE / "allocator_asked.cpp"), f"-L{library}", "-lc10", "-lc10_cuda"),
                "-Wl,--unresolved-symbols=ignore-all",
            ],
        ):
            subprocess.run(command, cwd=directory, check=True)
        self.program = str(directory / "asked")
        self.environment = {**os.environ, "LD_LIBRARY_PATH": f"{directory}:{library}"}

    def rows(self, case: Case) -> list[Row]:
        """What it says after each operation."""
        lines = [f"l {SHARE}"] * case.limited
        lines += [f"{what} {key} {size}" if what == "a" else f"{what} {key}" if what == "f" else what
                  for what, key, size in case.operations]  # fmt: skip
        environment = {**self.environment, "TOTAL": str(case.total)}
        if case.settings:
            environment["PYTORCH_ALLOC_CONF"] = case.settings
        if case.capacity is not None:
            environment["CAPACITY"] = str(case.capacity)
        done = subprocess.run(
            [self.program], input="\n".join(lines) + "\n", env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"torch's allocator ended with {done.returncode}\n{done.stderr[-2000:]}")
        return [[*map(int, line.split()[:6]), int(line.endswith("oom"))] for line in done.stdout.splitlines()]


def main() -> None:
    """Compare, and write what came of it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--torch", type=Path, required=True, help="an unpacked CUDA wheel")
    options.add_argument("--cuda", type=Path, required=True, help="a CUDA toolkit")
    options.add_argument("--seeds", type=int, default=60, help="sequences of each kind")
    options.add_argument("--fixture", action="store_true", help="write a few short sequences for the tests")
    asked = options.parse_args()
    version = re.search(r"__version__ = '(.+?)'", (asked.torch / "torch" / "version.py").read_text())
    with tempfile.TemporaryDirectory() as directory:
        real = Torch(asked.torch.resolve(), asked.cuda.resolve(), Path(directory))
        if asked.fixture:
            few = [asdict(case) | {"rows": real.rows(case)} for case in cases(1, 100)]
            FIXTURE.write_text(json.dumps(few, separators=(",", ":")) + "\n")
            return
        compared = different = 0
        for case in cases(asked.seeds, 800):
            compared += 1
            if (theirs := real.rows(case)) != (mine := of_ours(case)):
                different += 1
                at = next(i for i, (one, other) in enumerate(zip(theirs, mine, strict=True)) if one != other)
                print(f"{case.settings or 'default'}, operation {at}: torch {theirs[at]}, ours {mine[at]}")
    found = {
        "torch": version and version[1],
        "date": str(date.today()),
        "sequences": compared,
        "operations": 800 * compared,
    }
    found["different"] = different
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found))
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
