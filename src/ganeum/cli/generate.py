"""`ganeum generate`: a text for every row of a file, in batches, to a file that a later start goes on with."""

from __future__ import annotations

import sys
import time
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ganeum.inference.rows import Reading
    from ganeum.inference.work import Done


class Precision(str, Enum):
    """What weights and products are computed in."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


def command(
    run: Annotated[
        str,
        typer.Argument(help="a run's name or directory, a checkpoint's, an exported one, or a Hugging Face model's"),
    ],
    input: Annotated[
        str, typer.Option(help="rows: .jsonl, .json, .csv, .tsv, .parquet, .arrow, or lines of text; -: standard input")
    ],
    output: Annotated[str, typer.Option(help="JSON lines, the input's rows with their texts; -: standard output")],
    column: Annotated[
        str | None,
        typer.Option(help="what is read; without it the run's own, else source, prompt, text, input or document"),
    ] = None,
    into: Annotated[str, typer.Option(help="the column that the text goes into")] = "generated",
    prefix: Annotated[str | None, typer.Option(help="in front of every text; without it the run's own")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="tokens of what is read; longer is cut")] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="the most tokens of a text; without it as `sample:` of the run's config says"),
    ] = None,
    num_beams: Annotated[int | None, typer.Option(min=1, help="hypotheses kept, 1: no search; likewise")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: always the likeliest token")] = 0.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="draw only among the k likeliest tokens")] = None,
    top_p: Annotated[
        float | None,
        typer.Option(min=0.001, max=1.0, help="draw only among the likeliest that hold this probability together"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="of the draws; each row has its own")] = 1337,
    batch_size: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="rows at once; auto: as many as fit by the plan; likewise (`at_once`)"),
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="best, latest, a step, or a checkpoint's directory")] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps")] = "auto",
    precision: Annotated[Precision, typer.Option(help="auto: bf16 on a GPU that has it, else fp32")] = Precision.auto,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="run code that came with the model")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="begin the output again")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the figures as JSON at the end")] = False,
) -> None:
    """Write a text for every row of a file, with any model.

    The same command goes on where an earlier one was stopped, whatever stopped it. Each row's other columns are kept,
    the order is the input's, and what is drawn hangs on the seed and the row's number alone.
    """
    from ganeum import hardware
    from ganeum.config.trust import trusting
    from ganeum.inference.decoding import Decoding
    from ganeum.inference.opening import defaults, open_writer, precision_of
    from ganeum.inference.output import Output, kept_note
    from ganeum.inference.rows import reading
    from ganeum.inference.sizes import Sizes
    from ganeum.inference.work import write_all

    own = defaults(run, checkpoint)
    beams = num_beams or (1 if temperature else own.num_beams)
    decoding = Decoding(max_new_tokens or own.max_new_tokens, beams, temperature, top_k, top_p, seed)
    decoding.check()
    fixed = _batch_size(batch_size or str(own.at_once))
    with reading(input) as rows, trusting(trust_remote_code):
        if notice := hardware.check_torch(device):
            print(notice, file=sys.stderr)
        where = hardware.detect(device)
        kept_in = precision_of(precision.value, where)
        writer = open_writer(
            run, where, decoding, checkpoint=checkpoint, precision=kept_in, prefix=prefix, longest=max_length
        )
        settings = {
            **writer.identity,
            **vars(decoding),
            "column": column,
            "into": into,
            "prefix": writer.prompts.prefix,
            "max_length": writer.longest,
            "precision": kept_in,
        }
        out = Output(output, into, settings, source=input, overwrite=overwrite)
        if out.kept:
            say(kept_note(out))
        try:
            done = write_all(
                writer,
                rows,
                out,
                name=rows.name,
                column=column,
                decoding=decoding,
                sizes=Sizes(writer, decoding, where, fixed),
                say=say,
                progress=live(rows, where.name),
            )
        except KeyboardInterrupt:
            if output != "-":
                say(f"interrupted: what {output} has stays, and the same command goes on")
            raise
        finally:
            out.close()
    if as_json:
        import json

        print(
            json.dumps(done.figures() | {"output": output, "settings": settings}, indent=2),
            file=sys.stderr if output == "-" else sys.stdout,
        )
    else:
        say(_ending(done, output, writer.longest))


def say(text: str) -> None:
    """A line on standard error: standard output may be the texts'."""
    print(text, file=sys.stderr)


def live(rows: Reading, device: str) -> Callable[[Done], None]:
    """What shows how far it is: a line that moves on a terminal, elsewhere one every ten seconds."""
    moving, last = sys.stderr.isatty(), time.monotonic()

    def show(done: Done) -> None:
        nonlocal last
        if not done.rows or (not moving and time.monotonic() - last < 10):
            return
        last = time.monotonic()
        line = f"{_so_far(done)} on {device}"
        if rows.share and done.seconds and rows.share < 1:
            line += f"  {rows.share:.0%} of the input read"
        print(f"\r\x1b[K{line}" if moving else line, end="" if moving else "\n", file=sys.stderr, flush=True)

    return show


def _so_far(done: Done) -> str:
    from ganeum.units import things

    rate = f"{done.rows / done.seconds:,.1f} rows/s, {done.tokens / done.seconds:,.0f} tokens/s"
    return f"{things(done.rows, 'row')}, {things(done.tokens, 'new token')}: {rate}"


def _ending(done: Done, output: str, longest: int) -> str:
    from ganeum.units import duration, things

    lines = []
    if done.cut:
        lines.append(f"cut to {things(longest, 'token')}: {things(done.cut, 'text')}")
    if done.empty:
        lines.append(f"ended before their first token: {things(done.empty, 'text')}")
    if not done.rows and not done.kept:
        lines.append(f"there are no rows, so {output} is empty")
    elif not done.rows:
        lines.append(f"nothing was left to write: {output} has all {things(done.kept, 'row')}")
    else:
        padding = done.padding / done.places
        at_once = f"up to {done.largest:,} at once, {padding:.1%} padding"
        lines.append(f"{output}: {_so_far(done)}, {duration(done.seconds)}; {at_once}")
    return ("\r\x1b[K" if sys.stderr.isatty() else "") + "\n".join(lines)


def _batch_size(text: str) -> int | None:
    from ganeum.errors import ConfigError

    if text == "auto":
        return None
    if text.isdecimal() and int(text):
        return int(text)
    raise ConfigError(f"--batch-size is a number of rows or auto, but it is {text}")
