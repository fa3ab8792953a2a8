"""A fine-tuning with a team's twelve-times-slower settings: waterfall, better config, speed before and after.

    python benchmarks/twelve_times.py --write      # about 15 minutes on two quiet cores

`examples/docstrings/slow.yaml` with eight threads is given to `ganeum doctor run --apply`. Then `ganeum train`
runs as it was and as the doctor wrote it, by turns, and the tokens per second of both are compared, as their logs count
them: every token of an input or a target, and no padding.
--write puts the waterfall, the config and a table of what the team had guessed for each factor into docs/doctor.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SLOW = ROOT / "examples" / "docstrings" / "slow.yaml"
PAGE, RESULT = ROOT / "docs" / "doctor.md", ROOT / "benchmarks" / "results" / "twelve-times-cpu.json"
HEADING = "## Twelve times slower, taken apart"
# MKL would take no more threads than there are cores, and torch as many as MKL.
SLOW_THREADS = {"OMP_NUM_THREADS": "8", "MKL_DYNAMIC": "FALSE"}
OVERSUBSCRIBED = "oversubscription"
# What the team expected of each of its remedies, and the causes that they would have to be.
GUESSED = (
    ("TF32 and flash attention", "2 to 3", ("fp32", "tf32_off", "eager_attention")),
    ("padding: `padding=False`, `max_length`", "2 to 3", ("padding",)),
    ("loader: prefetch, persistent workers, pinned memory", "1.5 to 2", ("loader", "worker_start", "slow_disk")),
    ("tokenizer: `padding_side`", "1.1", ("padding_side",)),
    ("not on its list: more threads than cores", "", (OVERSUBSCRIBED,)),
    ("not on its list: one row at a time", "", ("small_micro_batch",)),
    ("not on its list: blocks computed twice", "", ("checkpointing_for_nothing",)),
)


def surroundings(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command; threads are as ``more`` says, or as torch decides."""
    mine = {name: value for name, value in os.environ.items() if name not in SLOW_THREADS}
    return {**mine, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "110", "NO_COLOR": "1", **more}


def ganeum(*words: str, env: Mapping[str, str], cwd: Path = ROOT) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "ganeum", *words]
    done = subprocess.run(command, cwd=cwd, env=surroundings(env), capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def trained(config: Path, steps: int, env: Mapping[str, str]) -> float:
    """Tokens per second of a run, from its second logged step on; nothing beside the steps is in it."""
    with tempfile.TemporaryDirectory() as directory:
        keys = [f"train.max_iters={steps}", "train.epochs=null", "name=timed", "log.interval=1", "sample.interval=0"]
        keys += [f"train.eval_interval={steps}", f"train.checkpoint_interval={steps}", "train.eval_tokens=180"]
        ganeum("train", str(config), *keys, env={**env, "GANEUM_RESULTS": directory})
        lines = (Path(directory) / "timed" / "logs" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "step_time_s" in row]
    seconds = sum(row["step_time_s"] for row in rows[1:])
    return (rows[-1]["tokens_seen"] - rows[0]["tokens_seen"]) / seconds


def by_turns(better: Path, better_env: Mapping[str, str], rounds: int) -> dict[str, list[float]]:
    """Tokens per second of both, one after the other in each round."""
    rates: dict[str, list[float]] = {"before": [], "after": []}
    for _ in range(rounds):
        rates["before"].append(trained(SLOW, 8, SLOW_THREADS))
        rates["after"].append(trained(better, 80, better_env))
    return rates


def measured_times(causes: Sequence[str], report: Mapping[str, Any]) -> str:
    """What the doctor measured of some causes, in words."""
    told = []
    for trial in report["facts"]["trials"]:
        alone, upon = trial.get("alone"), trial.get("upon")
        if trial["cause"] in causes and alone is not None:
            ratio = f"{alone['ratio']:.2f} ({alone['interval'][0]:.2f} to {alone['interval'][1]:.2f})"
            after = f", after what stands above it {upon['ratio']:.2f}" if upon is not None else ""
            told.append(f"{trial['name']}: {ratio}{after}")
    if "loader" in causes and not told:
        share = report["facts"]["phases"].get("data", 0.0)
        told.append(f"at most {1 / (1 - share):.3f}: {share:.2%} of a step is waiting for its batch")
    if "padding_side" in causes and not told:
        told.append("none: it moves padding, and takes none away")
    return "; ".join(told) or "not tried"


def section(told: str, better: str, report: Mapping[str, Any], rates: Mapping[str, Sequence[float]], asked: str) -> str:
    """The section of docs/doctor.md."""
    before, after = statistics.median(rates["before"]), statistics.median(rates["after"])
    ratios = [fast / slow for slow, fast in zip(rates["before"], rates["after"], strict=True)]
    rows = [f"| {what} | {guess} | {measured_times(causes, report)} |" for what, guess, causes in GUESSED]
    together = report["facts"]["together"]
    low, high = together["interval"]
    changed = "\n".join(line for line in better.splitlines() if line.strip())
    return f"""{HEADING}

The settings of that team once more, in [a config](../examples/docstrings/slow.yaml) for a small T5 and a CPU: rows
filled up to 320 tokens, one row at a time, fp32, blocks computed twice, eight threads on two cores.
`{asked}` ({time.strftime("%Y-%m-%d")}, two cores of an AMD EPYC; the figures are this machine's):

```text
{told.strip()}
```

What `--apply` wrote:

```yaml
{changed}
```

| factor | the team's guess | measured here, alone |
|---|---|---|
{chr(10).join(rows)}
| all together | 7 to 20 | **{statistics.median(ratios):.1f}** ({min(ratios):.1f} to {max(ratios):.1f}) |

The last line is `ganeum train`, by turns, {len(ratios)} rounds: {before:,.0f} tokens per second before,
{after:,.0f} after, padding not counted; the diagnosis had said {together["ratio"]:.1f} ({low:.1f} to {high:.1f}).
(`python benchmarks/twelve_times.py`, [result](../benchmarks/results/{RESULT.name}).)
"""


def put(text: str) -> None:
    """The section into its place in docs/doctor.md; in front of `## GPU health` the first time."""
    page = PAGE.read_text(encoding="utf-8")
    old = re.compile(rf"^{re.escape(HEADING)}\n.*?(?=^## )", re.MULTILINE | re.DOTALL)
    if old.search(page):
        page = old.sub(lambda _: text + "\n", page)
    else:
        page = page.replace("## GPU health\n", text + "\n## GPU health\n", 1)
    PAGE.write_text(page, encoding="utf-8")


def main() -> None:
    """Runs it all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0, help="that the diagnosis may take")
    parser.add_argument("--rounds", type=int, default=3, help="of training before and after, by turns")
    parser.add_argument("--write", action="store_true", help="into docs/doctor.md and benchmarks/results")
    asked = parser.parse_args()
    if not (SLOW.parent / "data" / "train.jsonl").exists():
        subprocess.run([sys.executable, str(SLOW.parent / "prepare.py")], env=surroundings({}), check=True)
    with tempfile.TemporaryDirectory() as directory:
        better, answer = Path(directory) / "better.yaml", Path(directory) / "doctor.json"
        name = str(SLOW.relative_to(ROOT))
        words = ["doctor", "run", name, "--minutes", f"{asked.minutes:g}", "--apply", str(better)]
        told = ganeum(*words, "-o", str(answer), env=SLOW_THREADS)
        print(told)
        if not better.exists():
            raise SystemExit("the doctor wrote no better config")
        report = json.loads(answer.read_text(encoding="utf-8"))
        threads = any(finding["cause"] == OVERSUBSCRIBED for finding in report["findings"])
        rates = by_turns(better, {} if threads else SLOW_THREADS, asked.rounds)
        text = re.sub(r"(?m)^base: .*$", f"base: {name}", better.read_text(encoding="utf-8"))  # as written beside it
    variables = " ".join(f"{key}={value}" for key, value in SLOW_THREADS.items())
    said = f"{variables} ganeum doctor run {name} --minutes {asked.minutes:g} --apply better.yaml"
    result = {"date": time.strftime("%Y-%m-%d"), "command": said, "rates": rates, "better": yaml.safe_load(text)}
    page = section(told, text, report, rates, said)
    print(page)
    if asked.write:
        RESULT.write_text(
            json.dumps(result | {"report": report}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        put(page)


if __name__ == "__main__":
    main()
