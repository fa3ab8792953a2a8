"""`ganeum demo`: the whole journey in a few minutes, on whatever is there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ganeum.errors import RunError

if TYPE_CHECKING:
    from rich.console import Console

    from ganeum.config import Config

DATA = Path("data/pystdlib")
RESERVED_S = 70.0  # of the time: the start, the evaluation on all held-out text, and the samples
PROMPTS = ("def main(", "class Test", "import os\nimport sys\n", "    def __init__(self", "for i in")


def command(
    minutes: Annotated[float, typer.Option(min=1.0, help="how long it may take in all")] = 5.0,
    again: Annotated[bool, typer.Option("--again", help="throw the last demo's run away and train anew")] = False,
) -> None:
    """See everything once: text, tokenizer, plan, training, and what the model writes.

    The text is the source code of this machine's own Python standard library; nothing is downloaded. It ends with the
    bits per byte of held-out files beside what gzip and xz need for them. Interrupted, it goes on where it was.
    """
    from rich.console import Console

    from ganeum import record
    from ganeum.cli.prepare import command as prepare
    from ganeum.config import load
    from ganeum.data.meta import META
    from ganeum.train.interrupt import Interrupted
    from ganeum.train.run import train

    began, console = time.monotonic(), Console(highlight=False, soft_wrap=True)
    _heading(console, 1, "Text becomes tokens", "the Python standard library's own source, and a tokenizer for it")
    if (DATA / META).exists():
        console.print(f"{DATA} is prepared already")
    else:
        prepare(["pystdlib"], out=DATA)

    _heading(console, 2, "A plan, then the training", "what is predicted here is measured below")
    left_s = max(20.0, minutes * 60 - RESERVED_S - (time.monotonic() - began))
    config = load(_configs() / "demo.yaml", [f"train.hours={left_s / 3600:.6f}"])
    if not again and (stored := record.existing("demo")) is not None:
        config = config.model_copy(update={"train": config.train.model_copy(update={"hours": stored.train.hours})})
    try:
        train(config, overwrite=again)
    except Interrupted as stop:
        raise typer.Exit(stop.exit_status) from None
    except RunError as error:
        if "--overwrite" in (error.suggestion or ""):  # an older demo's run is in the way
            error.suggestion = "ganeum demo --again throws it away and trains anew"
        raise
    trained = record.existing("demo")
    assert trained is not None, "it was trained just now"

    _heading(console, 3, "What it has learnt", "on all of the held-out files; none of them was in the training")
    _compare(console, trained)
    _heading(console, 4, "What it writes", "the first text for each of five beginnings, as it came")
    _write(console)
    _heading(console, 5, f"Done in {(time.monotonic() - began) / 60:.1f} minutes", "what lies where, and what next")
    console.print(_NEXT)


_NEXT = """\
results/demo/                 the run: config, plan, metrics, checkpoints, samples
  summary.json                planned beside measured
  checkpoints/best            which checkpoint was the best
data/pystdlib/                train.bin, val.bin, meta.json, tokenizer/

ganeum sample demo --prompt "class Stack:" --num-samples 3
ganeum train configs/demo.yaml train.hours=0.5 name=demo-longer
ganeum prepare PATH… --out data/mine          your own text; then train with data.directory=data/mine
ganeum export demo demo-hf                    a directory that transformers loads
tensorboard --logdir results"""


def _heading(console: Console, number: int, title: str, what: str) -> None:
    console.print(f"\n[bold]{number}. {title}[/bold]  [dim]{what}[/dim]\n")


def _configs() -> Path:
    """The shipped configs: in the wheel beside the package's rooms, in a checkout at its root."""
    packed = Path(__file__).parents[1] / "configs"
    return packed if packed.is_dir() else Path(__file__).parents[3] / "configs"


def _compare(console: Console, config: Config) -> None:
    """Bits per byte of the held-out files: this model's, and those of compressors that see one file at a time."""
    import gzip
    import lzma

    from rich.table import Table

    from ganeum.data.meta import Meta, held_out_files

    meta = Meta.read(DATA)
    assert meta is not None, "it was prepared just now"
    texts = [path.read_bytes() for path in held_out_files(meta)]
    size = sum(map(len, texts))
    rows = [
        ("as it is", 8.0),
        ("gzip -9, each file alone", 8 * sum(len(gzip.compress(text, 9)) for text in texts) / size),
        ("xz -9, each file alone", 8 * sum(len(lzma.compress(text, preset=9)) for text in texts) / size),
        ("this model", _bits_per_byte(config)),
    ]
    table = Table("", "bits per byte", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for name, bits in rows:
        table.add_row(name, f"{bits:.3f}", style="bold" if name == "this model" else "")
    console.print(table)
    console.print(f"\n[dim]{len(texts)} files, {size:,} bytes[/dim]")


def _bits_per_byte(config: Config) -> float:
    """Of the best checkpoint, on every window of val.bin."""
    from ganeum import hardware
    from ganeum.config.change import change
    from ganeum.data.corpus import open_corpus
    from ganeum.models.place import locate
    from ganeum.models.weights import restore
    from ganeum.step.optimizer_step import OptimizerStep
    from ganeum.train.material import Text

    precision, batch_size = config.train.precision, config.train.eval_batch_size
    assert precision != "auto", "every key of a run that exists is resolved"
    assert batch_size != "auto", "every key of a run that exists is resolved"
    device = hardware.detect(config.device).torch_name
    model = restore(locate("demo", "best").weights).to(device)
    step = OptimizerStep(model, config.train, device, precision=precision)
    validation = Text(open_corpus(DATA)).validation(change(config, {"train.eval_tokens": "all"}))
    assert validation is not None, "the demo's text has a held-out part"
    bits = validation.evaluate(step, batch_size).val_bpb
    assert bits is not None, "its tokenizer lies beside it"
    return bits


def _write(console: Console) -> None:
    from ganeum.cli.sample import command as sample

    for prompt in PROMPTS:
        console.print(f"[dim]--- {prompt!r} ---[/dim]")
        sample("demo", prompt=prompt, num_samples=1, max_new_tokens=120)
        console.print()
