"""`ganeum prepare`: text → tokens."""

from __future__ import annotations

import json as jsonlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ganeum.errors import DataError
from ganeum.units import things

if TYPE_CHECKING:
    from ganeum.data.files import Source
    from ganeum.data.prepare import Prepared, Progress

_LINE_EVERY_S = 5.0  # where there is no terminal to draw a bar on


def command(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE…",
            help="tinystories, pystdlib, shakespeare_char, or files and directories: text, .jsonl, .json, .csv, .tsv, "
            ".parquet, .arrow, each also as .gz, .zst, .bz2 or .xz",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="directory to fill; default: data/text, or data/ and the name")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="bpe (trained on this text), gpt2, bytes, characters, or where one lies: a directory, a "
            "tokenizer.json, a SentencePiece .model; default: bpe, for shakespeare_char characters"
        ),
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option(help="ids wanted of a BPE trained here; default: 8192, for pystdlib 4096")
    ] = None,
    val: Annotated[
        list[Path] | None, typer.Option(help="validation text, a file or directory; may be repeated")
    ] = None,
    val_share: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="share of the documents held out where --val names none")
    ] = 0.05,
    split_on: Annotated[
        str | None,
        typer.Option(help="what stands between documents in a text file (\\n is a line break); default: nothing"),
    ] = None,
    column: Annotated[str, typer.Option(help="that holds the text of a row (JSON lines, tables, datasets)")] = "text",
    skip_bad_rows: Annotated[
        bool,
        typer.Option("--skip-bad-rows", help="leave broken rows out and count them; default: the first is an error"),
    ] = False,
    as_text: Annotated[
        bool, typer.Option("--as-text", help="files that hold rows are text as they stand, one document each")
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME[:CONFIG]", help="rows of a Hugging Face dataset, or of a directory that holds one"),
    ] = None,
    split: Annotated[str, typer.Option(help="of --dataset: what is trained on")] = "train",
    val_split: Annotated[
        str | None, typer.Option(help="of --dataset: what is validated on; default: --val-share of --split")
    ] = None,
    pattern: Annotated[
        list[str] | None, typer.Option(help="only files in directories whose name matches, such as '*.py'; repeatable")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--source", "--input", help="tinystories or shakespeare_char from this file, not from the network"
        ),
    ] = None,
    end_of_text: Annotated[
        str | None,
        typer.Option(help="token that ends a document, where the tokenizer's files name none ('': nothing does)"),
    ] = None,
    gpt2_vocabulary: Annotated[
        Path | None,
        typer.Option(help="file or directory with GPT-2's vocabulary; default: tiktoken's cache or download"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the split and of the sample that BPE is trained on")] = 1337,
    workers: Annotated[
        int | None, typer.Option(min=1, help="processes; default: one a core; the result does not depend on it")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="refuse bytes that are not UTF-8, not replace them")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="prepare anew, over whatever is there")] = False,
    inspect: Annotated[
        str | None, typer.Option(help="print what this text becomes; without SOURCE, of what --out or --tokenizer name")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print the answer as JSON")] = False,
) -> None:
    """Text → tokens: train.bin, val.bin, meta.json and tokenizer/.

    A document is a file, or what stands between two --split-on strings; each ends with an end-of-text token, and is
    either trained on or held out, never divided. A row of JSON lines, a table or a dataset is a document too. The same
    text, options and seed give the same bytes.
    """
    from ganeum.data.prepare import Preparation, prepare

    if sources == ["shakespeare_char"]:
        tokenizer, end_of_text = tokenizer or "characters", "" if end_of_text is None else end_of_text
    tokenizer = tokenizer or "bpe"
    if not sources and dataset is None:
        if inspect is None:
            raise DataError(
                "there is nothing to prepare",
                why="no SOURCE was named",
                suggestion="ganeum prepare tinystories, ganeum prepare pystdlib, or ganeum prepare PATH…",
            )
        _show_text(inspect, out, tokenizer, gpt2_vocabulary, end_of_text, json)
        return
    if val_split is not None and dataset is None:
        raise DataError("--val-split belongs to --dataset", suggestion="--val PATH for other text")
    chosen, named_out, separator = _sources(sources or [], source, tuple(pattern or ()), tuple(val or ()))
    if dataset is not None:
        from ganeum.data.hub import dataset as opened

        held_out = any(one.part == "val" for one in chosen) or val_split is not None
        chosen = [opened(dataset, split, "train" if held_out else "split"), *chosen]
        chosen += [opened(dataset, val_split, "val")] if val_split is not None else []
    if split_on is not None:
        separator = split_on.replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t") or None
    out = out or named_out
    wanted = vocab_size if vocab_size is not None else 4096 if sources == ["pystdlib"] else 8192
    started = time.perf_counter()
    with _progress() as progress:
        prepared = prepare(
            Preparation(
                sources=tuple(chosen),
                out=out,
                tokenizer=tokenizer,
                vocab_size=wanted,
                val_share=val_share,
                separator=separator,
                seed=seed,
                workers=workers or _cores(),
                strict=strict,
                overwrite=overwrite,
                gpt2_vocabulary=gpt2_vocabulary,
                column=column,
                skip_bad_rows=skip_bad_rows,
                as_text=as_text,
                end_of_text=end_of_text,
            ),
            progress,
        )
    if inspect is not None:
        _show_text(inspect, out, tokenizer, gpt2_vocabulary, end_of_text, json)
    elif json:
        print(
            jsonlib.dumps(
                {"directory": str(out), "unchanged": prepared.unchanged, **prepared.meta.model_dump()},
                ensure_ascii=False,
                indent=2,
            )
        )
    else:
        print("\n".join(_lines(prepared, out, wanted if tokenizer == "bpe" else None, time.perf_counter() - started)))


def _sources(
    names: list[str], local: Path | None, patterns: tuple[str, ...], val: tuple[Path, ...]
) -> tuple[list[Source], Path, str | None]:
    """What to read, the directory it goes to unless another is named, and the separator it comes with."""
    from ganeum.data.files import Source
    from ganeum.data.known import TINYSTORIES_SEPARATOR, pystdlib, shakespeare_char, tinystories

    known = [name for name in names if name in ("tinystories", "pystdlib", "shakespeare_char")]
    if known and len(names) > 1:
        raise DataError(
            f"{known[0]} cannot be mixed with other text",
            why="its documents and its split are its own",
            suggestion=f"ganeum prepare {known[0]} alone; a directory of that name is ./{known[0]}",
        )
    if local is not None and known not in (["tinystories"], ["shakespeare_char"]):
        raise DataError(
            "--source belongs to tinystories and shakespeare_char",
            suggestion="name other text directly: ganeum prepare PATH…",
        )
    separator: str | None = None
    if known == ["tinystories"]:
        chosen, out, separator = tinystories(local), Path("data/tinystories"), TINYSTORIES_SEPARATOR
    elif known == ["shakespeare_char"]:
        chosen, out = shakespeare_char(local), Path("data/shakespeare_char")
    elif known:
        chosen, out = pystdlib(), Path("data/pystdlib")
    else:
        chosen, out = [Source(Path(name), patterns=patterns) for name in names], Path("data/text")
    if val:
        chosen = [Source(one.path, "train", one.patterns, one.without) for one in chosen if one.part != "val"]
        chosen += [Source(path, "val", patterns) for path in val]
    return chosen, out, separator


def _show_text(
    text: str,
    directory: Path | None,
    tokenizer: str,
    gpt2_vocabulary: Path | None,
    end_of_text: str | None,
    json: bool,
) -> None:
    from dataclasses import asdict

    from ganeum.data.corpus import open_corpus
    from ganeum.data.gpt2 import gpt2
    from ganeum.data.inspect import inspect
    from ganeum.data.tokenizer import Bytes, load_tokenizer

    if directory is not None:
        corpus = open_corpus(directory)
        if corpus.tokenizer is None:
            raise DataError("nothing says what these tokens stand for", where=str(directory))
        found = inspect(text, corpus.tokenizer, corpus)
    elif tokenizer in ("gpt2", "bytes") or Path(tokenizer).exists():
        chosen = gpt2(gpt2_vocabulary) if tokenizer == "gpt2" else Bytes()
        found = inspect(text, chosen if tokenizer in ("gpt2", "bytes") else load_tokenizer(tokenizer, end_of_text))
    else:
        raise DataError(
            f"a {tokenizer} tokenizer needs a corpus to come from",
            suggestion="--out with a prepared directory, or --tokenizer gpt2, bytes or a directory that holds one",
        )
    print(jsonlib.dumps(asdict(found), ensure_ascii=False, indent=2) if json else "\n".join(found.lines()))


def _lines(prepared: Prepared, out: Path, wanted: int | None, seconds: float) -> list[str]:
    from ganeum.data.files import iconv, shown

    meta = prepared.meta
    lines = []
    for name, part in (("train.bin", meta.train), ("val.bin", meta.val)):
        if part is not None:
            noun = "document" if part.documents == 1 else "documents"
            lines.append(
                f"{name:<10} {part.tokens:>13,} tokens  {part.bytes / 1e6:>9,.1f} MB of text  "
                f"{part.documents:>9,} {noun:<9}  {part.bytes / part.tokens:.2f} bytes a token"
            )
    if meta.val is None:
        why, which = "there is one document only, and a document is never divided", "what"
        if meta.split.val_share == 0:
            why = "--val-share is 0"
        elif meta.split.separator:
            why = f"there is one document only: {meta.split.separator!r} occurs nowhere between two"
            which = "another string that"
            if "\n" in meta.split.separator.replace("\r\n", ""):
                why += " (in a file from Windows a line ends with '\\r\\n')"
        lines += [
            f"val.bin    none: {why}",
            "           for a validation loss: --val PATH with other text, or --split-on with "
            f"{which} divides this one",
        ]
    fewer = ""
    if wanted is not None and meta.vocab_size < wanted:
        fewer = f" (not {wanted:,}: no other pair of tokens occurs twice)"
    lines.append(f"tokenizer  {meta.tokenizer}, vocabulary {meta.vocab_size:,}{fewer}, written as {meta.dtype}")
    if meta.replaced_bytes:
        lines.append(f"replaced   bytes that are not UTF-8, by U+FFFD: {meta.replaced_bytes:,} (--strict refuses them)")
        if prepared.worst is not None:
            path, share = prepared.worst
            lines.append(f"           most in {shown(path)}, {share:.1%} of it; to convert it: {iconv(path)}")
    if meta.rows_without_text or meta.bad_rows:
        lines.append(
            f"left out   of {things(meta.rows, 'row')}: "
            f"{meta.rows_without_text:,} without text, {meta.bad_rows:,} broken"
        )
    if meta.skipped_files:
        more = meta.skipped_files - len(prepared.skipped_names)
        names = ", ".join(prepared.skipped_names) + (f" and {more:,} more" if more else "")
        lines.append(f"left out   files that are not text: {meta.skipped_files:,} ({names})")
    if prepared.prepared:
        lines.append(f"left out   what `ganeum prepare` wrote: {', '.join(prepared.prepared)}")
    if prepared.unchanged:
        lines.append(f"unchanged  {out} was prepared from the same files in the same way; --overwrite prepares it anew")
    else:
        read = meta.train.bytes + (meta.val.bytes if meta.val else 0)
        lines.append(f"written    {out}, {seconds:.1f} s, {read / 1e6 / seconds:.1f} MB/s")
    return lines


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar with MB/s and time left on a terminal, a line every few seconds elsewhere; both on standard error."""
    if not sys.stderr.isatty():
        yield _plain()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        tasks: dict[str, object] = {}

        def show(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total)
            bars.update(tasks[phase], completed=done)  # type: ignore[arg-type]

        yield show


def _plain() -> Progress:
    started: dict[str, float] = {}
    last = time.perf_counter()

    def show(phase: str, done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        begun = started.setdefault(phase, now)
        if now - last >= _LINE_EVERY_S and done:
            last = now
            rate = done / (now - begun) if now > begun else float("inf")
            left = (total - done) / rate
            print(
                f"{phase:<10} {done / 1e6:,.0f} of {total / 1e6:,.0f} MB, {rate / 1e6:.1f} MB/s, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    return show
