"""The tokenizer of a model's examples, transformers' or ganeum's, and the tokens that it sets around a text."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ganeum.config.trust import not_run
from ganeum.data.examples.encoding import Encoder, Fast, Ours, Slow
from ganeum.data.tokenizer import Tokenizer, load_tokenizer
from ganeum.errors import DataError, MissingExtra
from ganeum.hardware import hub

_PROBES = ("a", "b c")  # texts whose tokens show what is set around every text


@dataclass(frozen=True)
class Around:
    """The special tokens in front of every text and behind it."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many."""
        return len(self.before) + len(self.after)


@dataclass(frozen=True)
class ExampleTokenizer:
    """Text to the ids that a model takes, and back.

    Attributes:
        kind: whose it is.
        encoder: what workers encode with.
        source, target: what stands around a source, and around a target or a single text, the end among it.
        end_of_text: the token that ends a text; None: there is none.
        pad: what places without a token are filled with; masks say where they are, never this id.
        vocab_size: ids there are.
        side: which side of a text is kept when it is cut.
        transformers: transformers' tokenizer; None for one of ganeum's.
        ours: ganeum's; None for one of transformers'.
    """

    kind: Literal["transformers", "ganeum"]
    encoder: Encoder
    source: Around
    target: Around
    end_of_text: int | None
    pad: int
    vocab_size: int
    side: Literal["left", "right"] = "right"
    transformers: Any = None
    ours: Tokenizer | None = None

    def encode(self, text: str) -> list[int]:
        """The ids of a text alone, nothing around it."""
        return list(self.encoder.encode([text.encode("utf-8", "replace").decode()])[0])

    def encode_source(self, text: str, *, prefix: str = "", max_length: int | None = None) -> list[int]:
        """A source as the model is trained on it: behind the prefix, cut, with what stands around it."""
        ids = self.encode(prefix + text)
        if max_length is not None:
            ids = cut(ids, max_length - self.source.count, self.side)
        return [*self.source.before, *ids, *self.source.after]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``, special tokens left out."""
        if self.ours is not None:
            return self.ours.decode(id for id in ids if id != self.end_of_text)
        text: str = self.transformers.decode(list(map(int, ids)), skip_special_tokens=True)
        return text

    def save(self, directory: Path) -> None:
        """Write what reads it again: AutoTokenizer's files, or ganeum's."""
        if self.ours is not None:
            self.ours.save(directory)
        else:
            self.transformers.save_pretrained(directory)

    def identity(self) -> list[object]:
        """What tells its tokens from those of any other, for JSON."""
        around = [self.source.before, self.source.after, self.target.before, self.target.after]
        return [self.kind, self.encoder.digest(), *map(list, around), self.side]


def cut(ids: Sequence[int], room: int, side: Literal["left", "right"]) -> list[int]:
    """At most ``room`` of the ids."""
    return list(ids[:room] if side == "right" else ids[max(0, len(ids) - room) :])


def open_tokenizer(place: str, *, key: str, trust_remote_code: bool = False) -> ExampleTokenizer:
    """The tokenizer in a directory, or of a name on the hub.

    A directory that ganeum wrote is read as ganeum's own, without transformers; anything else by AutoTokenizer. Where
    that sets no end behind a text, as causal models' do not, it is set behind targets and single texts: a model that
    never learns an end never stops.

    Args:
        key: of the config, that names it.

    Raises:
        CheckpointError: it comes with code of its own.
        DataError: there is none, or it has no end of text.
        MissingExtra: transformers is needed and not installed.
    """
    if (Path(place) / "ganeum.json").is_file():
        return _ours(Path(place))
    if find_spec("transformers") is None:
        raise MissingExtra(
            f"{key}={place} needs the package transformers, which is not installed",
            suggestion='pip install "ganeum[hf]"',
        )
    from transformers import AutoTokenizer

    try:
        opened = AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code, **hub.looking_for(place))
    except Exception as error:  # the library's own errors, the hub's, the network's
        if "trust_remote_code" in str(error):
            raise not_run(f"the tokenizer {place}", key) from error
        raise DataError(
            f"the tokenizer {place} cannot be had",
            where=key,
            why=hub.why_not(place, error),
            suggestion="data.tokenizer: a directory with tokenizer.json (from another machine, say), or another name",
        ) from error
    return _transformers(opened, place, key, trust_remote_code)


def _ours(directory: Path) -> ExampleTokenizer:
    tokenizer = load_tokenizer(directory)
    end = tokenizer.end_of_text
    around = Around((), () if end is None else (end,))
    encoder = Ours(directory)
    encoder.start()
    return ExampleTokenizer(
        kind="ganeum",
        encoder=encoder,
        source=Around(),
        target=around,
        end_of_text=end,
        pad=0 if end is None else end,
        vocab_size=tokenizer.vocab_size,
        ours=tokenizer,
    )


def _transformers(opened: Any, place: str, key: str, trust_remote_code: bool) -> ExampleTokenizer:
    if len(opened.get_vocab()) - len(opened.added_tokens_decoder) <= 1:
        raise DataError(
            f"the tokenizer {place} knows no words",
            where=key,
            why="its files are not there, and transformers makes an empty one instead",
            suggestion="data.tokenizer: the name or the directory of the one that belongs to model.source",
        )
    end = opened.eos_token_id
    if end is None:
        raise DataError(
            f"the tokenizer {place} has no token that ends a text",
            where=key,
            why="its eos_token is not set, and a model that never learns an end never stops",
            suggestion="data.tokenizer: a copy of it with eos_token in tokenizer_config.json",
        )
    source, target = _around(opened, "text", place), _around(opened, "text_target", place)
    if end not in target.after:
        target = Around(target.before, (*target.after, end))
    encoder: Encoder
    if opened.is_fast:
        encoder = Fast(_plain(opened.backend_tokenizer.to_str()))
    else:
        directory = Path(tempfile.mkdtemp(prefix="ganeum-tokenizer-"))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        opened.save_pretrained(directory)
        encoder = Slow(directory, trust_remote_code)
    encoder.start()
    return ExampleTokenizer(
        kind="transformers",
        encoder=encoder,
        source=source,
        target=target,
        end_of_text=end,
        pad=end if opened.pad_token_id is None else opened.pad_token_id,
        vocab_size=len(opened),
        side="left" if opened.truncation_side == "left" else "right",
        transformers=opened,
    )


def _around(opened: Any, argument: str, place: str) -> Around:
    """What the tokenizer sets around a text, found by looking: the same for every text, or it is refused."""
    found = set()
    for probe in _PROBES:
        whole = opened(**{argument: probe}, add_special_tokens=True)["input_ids"]
        bare = opened(**{argument: probe}, add_special_tokens=False)["input_ids"]
        start = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), None)
        found.add(None if start is None else Around(tuple(whole[:start]), tuple(whole[start + len(bare) :])))
    (around,) = found if len(found) == 1 else (None,)
    if around is None:
        raise DataError(
            f"what the tokenizer {place} sets around a text hangs on the text",
            why="examples are cut to length between what stands in front and what stands behind",
            suggestion="another data.tokenizer",
        )
    return around


def _plain(description: str) -> str:
    """The description in one form, whatever order its keys came in, so that equal tokenizers have equal digests."""
    return json.dumps(json.loads(description), sort_keys=True, ensure_ascii=False)
