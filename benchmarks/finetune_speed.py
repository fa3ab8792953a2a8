"""Fine-tuning beside transformers' Seq2SeqTrainer: same T5, weights, pairs, batch and steps, by turns, a process each.

    python examples/docstrings/prepare.py
    python benchmarks/finetune_speed.py

Both learn from the same examples in the same order, without dropout. Two comparisons. `equal`: fp32, padded to the
longest of a batch, the same AdamW, learning rate of every step, weight decay of every weight, and clipping, so that the
losses agree. `default`: each as it comes (the Trainer: fp32, padded, a line to zero, beta2 0.999; ganeum: `auto`
precision and batching, a cosine to a tenth, beta2 0.95), but for batch, length and peak learning rate.

Speed is tokens that are no padding, sources and targets, over the time of the steps after the warm-up, and over the
CPU's time for them, which other programs on the machine change less. Memory is the most that the process ever held. The
loss is that of the held-out pairs under transformers after the last step, for both sides by the same few lines. A round
runs each once; ratios are taken within a round, and their median counts.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from ganeum.config import Config
from ganeum.data.examples.epochs import shuffled
from ganeum.hardware.machine import cpu_name
from ganeum.step.schedule import learning_rate

ROOT = Path(__file__).resolve().parent.parent
PAIRS = ROOT / "examples" / "docstrings" / "data"
RESULT = Path(__file__).resolve().parent / "results" / "finetune-cpu.json"
LENGTHS = (96, 16)  # tokens of a source and of a target at most
SPEEDS = ("tokens_per_second", "tokens_per_cpu_second")
SEED = 1
SAID = {"learning_rate": 1e-3, "warmup_steps": 10, "weight_decay": 0.1, "max_grad_norm": 1.0}


class Clock:
    """Times of the ends of steps, by the wall and by the CPU."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def tick(self) -> None:
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def behind(self, warm: int) -> dict[str, float]:
        """Seconds of all steps behind the warm-up."""
        return {"seconds": self.wall[-1] - self.wall[warm - 1], "cpu_seconds": self.cpu[-1] - self.cpu[warm - 1]}


def trainer(model: str, out: Path, steps: int, warm: int, batch: int, mode: str) -> dict[str, float]:
    """Seq2SeqTrainer in this process → seconds and tokens of the steps behind the warm-up."""
    from datasets import load_dataset
    from transformers import (
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
        TrainerCallback,
    )

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSeq2SeqLM.from_pretrained(model)
    rows = load_dataset("json", data_files=str(PAIRS / "train.jsonl"), split="train")

    def tokens(row: dict[str, Any]) -> dict[str, Any]:
        found = tokenizer(row["source"], truncation=True, max_length=LENGTHS[0])
        found["labels"] = tokenizer(text_target=row["target"], truncation=True, max_length=LENGTHS[1])["input_ids"]
        return {name: found[name] for name in ("input_ids", "attention_mask", "labels")}

    pad, counted, clock = DataCollatorForSeq2Seq(tokenizer, model=network), [], Clock()

    def collate(batch: list[dict[str, Any]]) -> Any:
        made = pad(batch)
        counted.append(int(made["attention_mask"].sum() + (made["labels"] != -100).sum()))
        return made

    class Ticking(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    class AsGaneum(Seq2SeqTrainer):
        """With ganeum's learning rates (the Trainer's first is 0, its warm-up a step behind), and weight decay on all
        matrices, T5's table of relative positions among them."""

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            share = functools.partial(learning_rate, train=train, total=num_training_steps)
            schedule = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: share(step) / train.learning_rate
            )
            self.lr_scheduler = schedule
            return schedule

        def get_decay_parameter_names(self, model: Any) -> list[str]:
            return [name for name, parameter in model.named_parameters() if parameter.dim() >= 2]

    train = Config.model_validate(ganeum_config(model, steps, batch, "equal")).train
    order = shuffled(len(rows), SEED, 0)[: steps * batch]
    if steps > len(rows) // batch:
        raise SystemExit(f"--steps {len(rows) // batch} at most: both sides learn from one epoch in one order")
    # Seq2SeqTrainer's own AdamW, beta 0.9 and 0.999; ganeum's are set to the same where settings are equal.
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(out / "trainer"),
        max_steps=steps,
        per_device_train_batch_size=batch,
        train_sampling_strategy="sequential",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=SEED,
        **SAID,
    )
    (AsGaneum if mode == "equal" else Seq2SeqTrainer)(
        model=network,
        args=arguments,
        train_dataset=rows.map(tokens, remove_columns=rows.column_names).select(order),
        data_collator=collate,
        callbacks=[Ticking()],
    ).train()
    network.save_pretrained(out / "model")
    return clock.behind(warm) | {"tokens": sum(counted[warm:steps])}


def ganeum_train(config: Path, warm: int) -> dict[str, float]:
    """`ganeum.train`, the loop of `ganeum train`, in this process → the same."""
    import ganeum

    clock = Clock()

    class Ticking(ganeum.Callback):
        def on_step(self, step: int) -> None:
            clock.tick()

    run = ganeum.train(str(config), callbacks=[Ticking()]).run
    return clock.behind(warm) | ganeum_figures(run.path / "logs" / "metrics.jsonl", warm)


def ganeum_config(model: str, steps: int, batch: int, mode: str) -> dict[str, Any]:
    """The same run as a config of ours."""
    equal = {"precision": "fp32", "compile": False, "beta2": 0.999, "min_learning_rate": 0.0}
    return {
        "name": "speed",
        "seed": SEED,
        "device": "cpu",
        "model": {"source": model},
        "data": {
            "train": str(PAIRS / "train.jsonl"),
            "val": str(PAIRS / "val.jsonl"),
            "max_length": LENGTHS[0],
            "max_target_length": LENGTHS[1],
            **({"batching": "padded"} if mode == "equal" else {}),
        },
        "train": {
            "max_iters": steps,
            "batch_size": batch,
            "learning_rate": SAID["learning_rate"],
            "warmup_iters": SAID["warmup_steps"],
            "eval_interval": steps,
            **(equal if mode == "equal" else {}),
        },
        "sample": {"interval": 0},
        "log": {"interval": 1, "tensorboard": False},
    }


def ganeum_figures(metrics: Path, warm: int) -> dict[str, float]:
    """From a run's metrics: tokens of the steps behind the warm-up, and their padding."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = {line["step"]: line for line in lines}  # an evaluation's line is the step's
    later = [line for step, line in sorted(steps.items()) if step > warm]
    padding = [line["padding"] for line in later if line.get("padding") is not None]
    return {
        "tokens": later[-1]["tokens_seen"] - steps[warm]["tokens_seen"],
        **({"padding": statistics.mean(padding)} if padding else {}),
    }


@torch.no_grad()
def held_out_loss(directory: Path, tokenizer_at: str) -> float:
    """Nats a target token over the held-out pairs, by transformers alone."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(tokenizer_at), AutoModelForSeq2SeqLM.from_pretrained(directory)
    rows = [json.loads(line) for line in (PAIRS / "val.jsonl").read_text().splitlines()]
    nats = count = 0.0
    for at in range(0, len(rows), 32):
        some = rows[at : at + 32]
        asked = tokenizer([row["source"] for row in some], truncation=True, max_length=LENGTHS[0], padding=True)
        told = tokenizer(text_target=[r["target"] for r in some], truncation=True, max_length=LENGTHS[1], padding=True)
        seen = torch.tensor(told["attention_mask"]).bool()
        labels = torch.tensor(told["input_ids"]).masked_fill(~seen, -100)
        inputs = {name: torch.tensor(asked[name]) for name in ("input_ids", "attention_mask")}
        nats += model.eval()(**inputs, labels=labels).loss.item() * int(seen.sum())
        count += int(seen.sum())
    return nats / count


def run(command: list[str], environment: dict[str, str]) -> float:
    """Runs a program → the most memory that it held, GiB; its words are shown where it fails."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = process.stdout.read() if process.stdout else ""
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(said[-3000:])
    return used.ru_maxrss / 2**20


def ganeum_run(config: dict[str, Any], model: str, room: Path, warm: int) -> dict[str, float]:
    """Training and `ganeum export` → its figures, memory and held-out loss."""
    environment = {**os.environ, "GANEUM_RESULTS": str(room)}
    (room / "config.yaml").write_text(yaml.safe_dump(config))
    memory = run([sys.executable, __file__, "--side", "ganeum", "--out", str(room), "--warm", str(warm)], environment)
    export = [sys.executable, "-m", "ganeum", "export", "speed", str(room / "model"), "--format", "hf"]
    run([*export, "--checkpoint", "latest"], environment)
    return figures(room, model, memory)


def trainer_run(model: str, room: Path, given: argparse.Namespace, mode: str) -> dict[str, float]:
    """The same of Seq2SeqTrainer."""
    options = ["--steps", str(given.steps), "--warm", str(given.warm), "--batch", str(given.batch), "--mode", mode]
    command = [sys.executable, __file__, "--side", "trainer", "--model", model, "--out", str(room), *options]
    return figures(room, model, run(command, {**os.environ}))


def figures(room: Path, model: str, memory: float) -> dict[str, float]:
    """What a side wrote, with speeds, memory and the loss of what it left."""
    found: dict[str, float] = json.loads((room / "figures.json").read_text())
    found["tokens_per_second"] = found["tokens"] / found["seconds"]
    found["tokens_per_cpu_second"] = found["tokens"] / found["cpu_seconds"]
    return found | {"memory_gib": memory, "loss": held_out_loss(room / "model", model)}


def fresh_model(directory: Path) -> str:
    """Weights that both sides begin with, and the tokenizer; no dropout, which each would draw in its own way."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(PAIRS / "model", dropout_rate=0.0)
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(directory)
    AutoTokenizer.from_pretrained(PAIRS / "model").save_pretrained(directory)
    return str(directory)


def main() -> None:
    """Rounds of both sides, a table, and a result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warm", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--mode", choices=("equal", "default"), nargs="*", default=["equal", "default"])
    parser.add_argument("--side", choices=("trainer", "ganeum"), help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    if given.side:
        if given.side == "trainer":
            found = trainer(given.model, given.out, given.steps, given.warm, given.batch, given.mode[0])
        else:
            found = ganeum_train(given.out / "config.yaml", given.warm)
        (given.out / "figures.json").write_text(json.dumps(found))
        return
    rounds: dict[str, list[dict[str, dict[str, float]]]] = {mode: [] for mode in given.mode}
    with tempfile.TemporaryDirectory() as directory:
        model = fresh_model(Path(directory) / "fresh")
        for number in range(given.rounds):
            for mode in given.mode:
                sides = {}
                for side in ("trainer", "ganeum"):
                    room = Path(directory) / f"{number}-{mode}-{side}"
                    room.mkdir()
                    if side == "trainer":
                        sides[side] = trainer_run(model, room, given, mode)
                    else:
                        config = ganeum_config(model, given.steps, given.batch, mode)
                        sides[side] = ganeum_run(config, model, room, given.warm)
                    print(mode, side, {name: round(value, 4) for name, value in sides[side].items()}, flush=True)
                rounds[mode].append(sides)
    ratios = {
        mode: {by: statistics.median(one["ganeum"][by] / one["trainer"][by] for one in some) for by in SPEEDS}
        for mode, some in rounds.items()
    }
    for mode, ratio in ratios.items():
        wall, cpu = ratio.values()
        print(f"{mode}: ganeum is {wall:.2f} times as fast, by the CPU's time {cpu:.2f}; median of {given.rounds}")
    about = {"machine": cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    about |= {"python": platform.python_version(), "date": time.strftime("%Y-%m-%d"), "command": " ".join(sys.argv)}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps({"about": about, "ratios": ratios, "rounds": rounds}, indent=2) + "\n")


if __name__ == "__main__":
    main()
