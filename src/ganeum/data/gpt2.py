"""GPT-2's vocabulary: from tiktoken's cache or download, or from a file the user has."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ganeum.data.bpe import BPE, BYTES, bytes_of
from ganeum.errors import DataError

# Of OpenAI's r50k_base.tiktoken, which lists the same merges (tiktoken, tiktoken_ext/openai_public.py).
SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
_PUBLISHED = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"  # tiktoken caches by address
_NAMES = ("gpt2.tiktoken", "r50k_base.tiktoken", "encoder.json", "vocab.json", "vocab.bpe", "merges.txt")


def gpt2(vocabulary: Path | None = None) -> BPE:
    """GPT-2's tokenizer: 50,257 ids, of which 50256 ends a text.

    Args:
        vocabulary: one of OpenAI's or Hugging Face's files (``.tiktoken``, ``encoder.json`` or ``vocab.json``,
            ``vocab.bpe`` or ``merges.txt``), or a directory with one; None: tiktoken's cache, else its download.

    Raises:
        DataError: it cannot be had, or what is there is not GPT-2's.
    """
    if vocabulary is not None:
        return _checked(_read(vocabulary), str(vocabulary))
    import tiktoken

    try:
        ranks: Mapping[bytes, int] = tiktoken.get_encoding("gpt2")._mergeable_ranks
    except Exception as error:  # whatever the network, the cache or a proxy comes up with
        raise DataError(
            "GPT-2's vocabulary cannot be had",
            where=_PUBLISHED + "vocab.bpe",
            why=f"it is not in tiktoken's cache ({_cache()}), and fetching it failed: {_short(error)}",
            suggestion="--gpt2-vocabulary FILE with one of " + ", ".join(_NAMES) + " from a machine that has it\n"
            "(the PyPI package openai-whisper holds gpt2.tiktoken),\n"
            "or --tokenizer bpe, which is trained on your own text",
        ) from error
    return _checked(ranks, "tiktoken")


def gpt2_if_cached() -> BPE | None:
    """The same where tiktoken has it on disk already; None, without a look at the network, where not."""
    cached = [
        _cache() / hashlib.sha1((_PUBLISHED + name).encode()).hexdigest() for name in ("vocab.bpe", "encoder.json")
    ]
    return gpt2() if all(path.is_file() for path in cached) else None


def _cache() -> Path:
    named = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    return Path(named) if named else Path(tempfile.gettempdir()) / "data-gym-cache"


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 160 else text[:160] + '…'}"


def _read(path: Path) -> dict[bytes, int]:
    files = [path / name for name in _NAMES if (path / name).is_file()] if path.is_dir() else [path]
    try:
        if not files:
            raise ValueError("none of " + ", ".join(_NAMES) + " is there")
        text = files[0].read_text(encoding="utf-8")
        if files[0].suffix == ".json":
            return {bytes_of(token): id for token, id in json.loads(text).items() if token != "<|endoftext|>"}
        lines = [line.split() for line in text.splitlines() if line and not line.startswith("#version")]
        if files[0].suffix == ".tiktoken":
            return {base64.b64decode(token): int(rank) for token, rank in lines}
        tokens = [bytes([byte]) for byte in BYTES] + [bytes_of(left + right) for left, right in lines]
        return {token: id for id, token in enumerate(tokens)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"no GPT-2 vocabulary can be read from {path}",
            where=str(files[0] if files else path),
            why=str(error),
            suggestion="one of " + ", ".join(_NAMES),
        ) from error


def _checked(ranks: Mapping[bytes, int], where: str) -> BPE:
    in_order = sorted(ranks.items(), key=lambda item: item[1])
    lines = b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in in_order)
    if hashlib.sha256(lines).hexdigest() != SHA256:
        raise DataError(
            "this vocabulary is not GPT-2's",
            where=where,
            why=f"it has {len(ranks):,} tokens, or others in another order; GPT-2 has 50,256",
            suggestion="GPT-2's own file, or --tokenizer bpe, which is trained on your own text",
        )
    return BPE.from_ranks(ranks, "gpt2")
