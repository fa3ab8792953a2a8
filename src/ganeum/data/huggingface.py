"""Any tokenizer that Hugging Face's library describes in a ``tokenizer.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ganeum.data.bpe import BPE, bytes_of
from ganeum.data.tokenizer import END_OF_TEXT, Ids, Tokenizer, unreadable
from ganeum.errors import DataError

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")  # either may name the token that ends a text


class HuggingFace(Tokenizer):
    """What ``tokenizers`` makes of a ``tokenizer.json``: its ids, without tokens added around a text.

    Where it normalises text (lower case, Unicode's NFKC), decoding gives the text as normalised, and bytes are counted
    of that. Where it sets a space in front of every text, decoding shows it.

    Args:
        description: the content of ``tokenizer.json``.
        end_of_text: the token that ends a document; empty: none does.

    Raises:
        ValueError: the library cannot read it.
        DataError: there is no such token.
    """

    kind = "huggingface"
    cuts = False

    def __init__(self, description: str, end_of_text: str) -> None:
        import tokenizers

        content = json.loads(description)
        added = {token["content"]: token for token in content["added_tokens"]}
        try:
            self._fast = tokenizers.Tokenizer.from_str(_unspeakable(content))
        except Exception as error:  # the library raises Exception itself
            raise ValueError(f"tokenizers cannot read it: {error}") from error
        self._fast.no_truncation()
        self._fast.no_padding()
        self._fast.encode_special_tokens = True  # text that spells a special token is text
        if getattr(self._fast.model, "dropout", None):
            self._fast.model.dropout = None
        self._description = description
        ids = self._fast.get_vocab(with_added_tokens=True) | {text: token["id"] for text, token in added.items()}
        if end_of_text and end_of_text not in ids:
            raise no_such_token(end_of_text, _specials(content))
        token_bytes = [b""] * (1 + max(ids.values(), default=-1))  # an id that no token has stands for nothing
        stands_for = _decoder(content.get("decoder"))
        for text, id in ids.items():
            if text not in added:
                token_bytes[id] = stands_for(text)
            elif not added[text]["special"]:
                token_bytes[id] = text.encode()
        if end_of_text:
            token_bytes[ids[end_of_text]] = b""
        super().__init__(token_bytes, ids[end_of_text] if end_of_text else None, end_of_text)

    def encode_array(self, text: str) -> Ids:
        (found,) = self._fast.encode_batch_fast([text], add_special_tokens=False)
        return np.array(found.ids, np.uint32)

    def settings(self) -> dict[str, object]:
        return {"end_of_text": self.end_text}

    def save(self, directory: Path) -> None:
        super().save(directory)
        (directory / "tokenizer.json").write_text(self._description, encoding="utf-8")


def read_huggingface(file: Path, end_of_text: str | None) -> Tokenizer:
    """The tokenizer in ``file``: as a ``BPE``, which encodes faster, where it is one that splits words as GPT-2 does.

    Args:
        file: a ``tokenizer.json``; the configs beside it may name the token that ends a text.
        end_of_text: that token, where the user names it; empty: none.

    Raises:
        FileNotFoundError: it is not there.
        ValueError, KeyError, TypeError: it is damaged.
        DataError: nothing says what ends a text.
    """
    description = file.read_text(encoding="utf-8")
    content = json.loads(description)
    specials = _specials(content)
    end = end_of_text if end_of_text is not None else _named_end(file.parent)
    if end is None and END_OF_TEXT in specials:
        end = END_OF_TEXT
    if end is None:
        raise DataError(
            f"nothing says which token ends a text in {file}",
            where=str(file.parent / _CONFIGS[0]),
            why="there is no eos_token in it" if (file.parent / _CONFIGS[0]).exists() else "the file is not there",
            suggestion=f"--end-of-text TOKEN; the special tokens are {_listed(specials)}\n"
            "(--end-of-text '' where nothing is to stand between documents)",
        )
    if [END_OF_TEXT] == [token["content"] for token in content["added_tokens"]] == [end] and _merges_follow_ids(
        content
    ):
        try:
            return BPE(description)
        except ValueError:
            pass  # it splits words in another way
    return HuggingFace(description, end)


def no_such_token(token: str, specials: Iterable[str]) -> DataError:
    """The error for an end of text that the vocabulary lacks."""
    return DataError(
        f"the vocabulary has no token {token!r} to end a text with",
        suggestion=f"--end-of-text with another; the special tokens are {_listed(specials)}",
    )


def _listed(tokens: Iterable[str]) -> str:
    names = list(tokens)
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "") if names else "none"


def _specials(content: dict[str, Any]) -> list[str]:
    return [token["content"] for token in content["added_tokens"] if token["special"]]


def _unspeakable(content: dict[str, Any]) -> str:
    """The description with special tokens that no text spells: a unigram model takes them for pieces like others."""
    if content["model"]["type"] != "Unigram":
        return json.dumps(content)
    pieces = [list(piece) for piece in content["model"]["vocab"]]
    for token in content["added_tokens"]:
        if token["special"] and token["id"] < len(pieces):
            pieces[token["id"]][0] = f"\ufdd0{token['id']}"  # begins with what Unicode never assigns
    kept = [token for token in content["added_tokens"] if not token["special"]]
    model = content["model"] | {"vocab": pieces}
    return json.dumps(content | {"model": model, "added_tokens": kept, "post_processor": None})


def _named_end(directory: Path) -> str | None:
    for name in _CONFIGS:
        if (directory / name).is_file():
            try:
                named = json.loads((directory / name).read_bytes()).get("eos_token")
                if named:
                    return str(named["content"] if isinstance(named, dict) else named)
            except (ValueError, KeyError, AttributeError) as error:
                raise unreadable(directory / name, error) from error
    return None


def _merges_follow_ids(content: dict[str, Any]) -> bool:
    """Whether merging by id, as ``tiktoken`` does, is merging in the order that the file gives."""
    model = content["model"]
    if model["type"] != "BPE" or model.get("dropout") or model.get("ignore_merges"):
        return False
    pairs = (merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"])
    ids = [model["vocab"]["".join(pair)] for pair in pairs]
    return all(before < after for before, after in pairwise(ids))


def _decoder(description: dict[str, Any] | None) -> Callable[[str], bytes]:
    """What a token's text stands for, by the steps that the library decodes with."""
    steps = description.get("decoders", [description]) if description else []
    kinds = {step["type"]: step for step in steps}
    if "ByteLevel" in kinds:
        return _byte_level
    spaces = {step["pattern"].get("String"): step["content"] for step in steps if step["type"] == "Replace"}
    if "Metaspace" in kinds:
        spaces[kinds["Metaspace"]["replacement"]] = " "
    if "BPEDecoder" in kinds:
        spaces[kinds["BPEDecoder"]["suffix"]] = " "
    joins = None if spaces or "Fuse" in kinds else kinds.get("WordPiece", {}).get("prefix", "")

    def stands_for(token: str) -> bytes:
        if "ByteFallback" in kinds and (byte := _BYTE.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        for mark, text in spaces.items():
            token = token.replace(mark, text) if mark else token
        if joins is None:
            return token.encode()
        within = joins and token.startswith(joins)  # words stand apart but for those that go on
        return (token.removeprefix(joins) if within else " " + token).encode()

    return stands_for


def _byte_level(token: str) -> bytes:
    try:
        return bytes_of(token)
    except KeyError:  # a token that is not in GPT-2's letters is its own text
        return token.encode()
