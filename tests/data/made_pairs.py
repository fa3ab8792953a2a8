"""What the tests of examples share: models without weights, their tokenizers, rows, and the config of a run."""

import json
import random
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ganeum.config.schema import Config
from ganeum.data.examples.examples import Examples, open_examples
from ganeum.errors import DataError

WORDS = ["the", "gauge", "sight", "run", "model", "loss", "step", "가늠", "토큰", "naïve", "learns", "a", "long", "way"]


def texts(count: int, most: int, seed: int = 0) -> list[str]:
    """That many, of 1 to ``most`` words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, most))) for _ in range(count)]


def pairs(count: int, seed: int = 0) -> list[dict[str, str]]:
    """That many, all sources different."""
    sources, targets = texts(count, 60, seed), texts(count, 12, seed + 1)
    return [{"source": f"{i} {s}", "target": t} for i, (s, t) in enumerate(zip(sources, targets, strict=True))]


def lines(path: Path, rows: Iterable[object]) -> str:
    """JSON lines of these rows in ``path``; its name."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def t5(directory: Path) -> str:
    """A T5 without weights: its config, and a unigram tokenizer that sets </s> behind every text."""
    from transformers import PreTrainedTokenizerFast, T5Config

    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=_unigram(), **names).save_pretrained(directory)
    shape = {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8, "d_ff": 16, "decoder_start_token_id": 0}
    T5Config(vocab_size=512, **shape).save_pretrained(directory)
    return str(directory)


def gpt2(directory: Path) -> str:
    """A GPT-2 without weights: its config, and a tokenizer of bytes that sets nothing around a text; PAD is EOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = Tokenizer(models.BPE(vocab={letter: id for id, letter in enumerate(letters)}, merges=[]))
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast, eos_token=end, pad_token=end)
    tokenizer.save_pretrained(directory)
    GPT2Config(vocab_size=257, n_embd=16, n_layer=1, n_head=2, n_positions=1024).save_pretrained(directory)
    return str(directory)


def config(source: str, train: str | Sequence[str], *, batch: dict[str, Any] | None = None, **data: Any) -> Config:
    """A run's config; ``batch``: keys of ``train``, ``data``: of ``data``."""
    return Config.model_validate(
        {"model": {"source": source, "fresh": True}, "data": {"train": train, **data}, "train": batch or {}}
    )


def opened(source: str, train: str | Sequence[str], **keys: Any) -> Examples:
    """The examples of such a run, tokenised by this process."""
    return open_examples(config(source, train, **keys), lambda line: None, workers=1)


def error(*arguments: Any, **keys: Any) -> str:
    """What is said where they cannot be opened."""
    with pytest.raises(DataError) as raised:
        opened(*arguments, **keys)
    return str(raised.value)


@cache
def _unigram() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    fast = Tokenizer(models.Unigram())
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    specials = ["<pad>", "</s>", "<unk>"]
    fast.train_from_iterator(
        [*texts(200, 20), *map(str, range(500))],
        trainers.UnigramTrainer(vocab_size=200, special_tokens=specials, unk_token="<unk>", show_progress=False),
    )
    fast.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return fast
