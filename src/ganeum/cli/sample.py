"""`ganeum sample`: text from a run's checkpoint or an exported model, printed as it is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from ganeum.errors import CheckpointError, ConfigError, DataError

if TYPE_CHECKING:
    from ganeum.config.schema import Sample
    from ganeum.data.tokenizer import Tokenizer


def command(
    run: Annotated[str, typer.Argument(help="a run's name or directory, a checkpoint's, or an exported one")],
    prompt: Annotated[str | None, typer.Option(help="what the text starts with; empty: the start of a text")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="a file with the prompt, UTF-8")] = None,
    num_samples: Annotated[int | None, typer.Option(min=1, help="texts")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="length of each, tokens")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="0: always the likeliest token")] = None,
    top_k: Annotated[int | None, typer.Option(min=0, help="only among the k likeliest tokens; 0: all")] = None,
    top_p: Annotated[
        float | None,
        typer.Option(min=0.001, max=1.0, help="only among the likeliest that hold this probability together; 1: all"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="the same seed writes the same text")] = 1337,
    checkpoint: Annotated[str, typer.Option(help="best, latest, a step, or a checkpoint's directory")] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print the texts as JSON, when all are written")] = False,
) -> None:
    """Write text with a trained model.

    What is not set comes from the run's own `sample:` keys. A text ends where the model ends it, or at its full length.
    It may be longer than the model's context: then the model reads the last half again and goes on.
    """
    import json

    import torch

    from ganeum import hardware
    from ganeum.config import load_stored
    from ganeum.config.schema import Sample
    from ganeum.data.tokenizer import load_tokenizer
    from ganeum.models.generate import generate
    from ganeum.models.place import locate
    from ganeum.models.weights import restore_gpt

    place = locate(run, checkpoint)
    if place.tokenizer_dir is None:
        raise CheckpointError(
            "these weights have no tokenizer, so nothing can be read or written with them",
            where=str(place.weights),
            suggestion="the run, or `ganeum export --format hf` of it",
        )
    defaults = load_stored(place.run.config_path).sample if place.run else Sample()
    asked = {
        "prompt": _prompt(prompt, prompt_file),
        "num_samples": num_samples,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
    }
    settings = defaults.model_copy(update={key: value for key, value in asked.items() if value is not None})
    tokenizer = load_tokenizer(place.tokenizer_dir)
    end = tokenizer.end_of_text
    # An empty prompt is the end-of-text token, after which a document begins; without one, the first token there is.
    ids = tokenizer.encode(settings.prompt) or [end if end is not None else 0]

    if notice := hardware.check_torch(device):
        print(notice, file=sys.stderr)
    model = restore_gpt(place.weights).to(hardware.detect(device).torch_name)
    if len(ids) > model.config.block_size:
        print(
            f"the prompt has {len(ids):,} tokens: the model reads its last {model.config.block_size:,}", file=sys.stderr
        )
    writer = None if as_json else Writer(tokenizer, settings, sys.stdout)
    texts = generate(
        model,
        ids,
        num_samples=settings.num_samples,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_k=settings.top_k or None,
        top_p=settings.top_p,
        generator=torch.Generator().manual_seed(seed),
        end_of_text=end,
        on_token=writer,
    )
    if as_json:
        answer = {
            "weights": str(place.weights),
            "step": place.step,
            "settings": settings.model_dump(include=set(asked)) | {"seed": seed},
            "samples": [{"text": settings.prompt + tokenizer.decode(text), "new_tokens": len(text)} for text in texts],
        }
        print(json.dumps(answer, indent=2, ensure_ascii=False))


class Writer:
    """Prints several texts that grow at once, one after the other: the first unfinished one as it grows.

    A token may be a part of a character: it waits for the rest.
    """

    def __init__(self, tokenizer: Tokenizer, settings: Sample, out: TextIO) -> None:
        self.tokenizer, self.settings, self.out = tokenizer, settings, out
        self.waiting: list[list[int]] = [[] for _ in range(settings.num_samples)]  # tokens not yet printed
        self.ended = [False] * settings.num_samples
        self.current = 0
        self._begin()

    def __call__(self, text: int, token: int | None) -> None:
        if token is None:
            self.ended[text] = True
        else:
            self.waiting[text].append(token)
        while self.current < len(self.waiting):
            self._print_what_is_whole()
            if not self.ended[self.current]:
                return
            print(file=self.out, flush=True)
            self.current += 1
            if self.current < len(self.waiting):
                self._begin()

    def _begin(self) -> None:
        if len(self.waiting) > 1:
            print(f"{chr(10) * (self.current > 0)}--- {self.current + 1} ---", file=self.out)
        print(self.settings.prompt, end="", file=self.out, flush=True)

    def _print_what_is_whole(self) -> None:
        piece = self.tokenizer.decode(self.waiting[self.current])
        if piece and (self.ended[self.current] or not piece.endswith("\ufffd")):
            print(piece, end="", file=self.out, flush=True)
            self.waiting[self.current].clear()


def _prompt(prompt: str | None, file: Path | None) -> str | None:
    if file is None:
        return prompt
    if prompt is not None:
        raise ConfigError("there are two prompts, --prompt and --prompt-file", suggestion="one of them")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError("the prompt is not UTF-8", where=str(file), why=str(error)) from None
    except OSError as error:
        raise DataError(
            f"the prompt cannot be read: {(error.strerror or str(error)).lower()}", where=str(file)
        ) from None
