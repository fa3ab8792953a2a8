"""A tokenizer's files as transformers' AutoTokenizer reads them, beside our own."""

from __future__ import annotations

import json
from pathlib import Path

from ganeum.data.bpe import BPE
from ganeum.data.tokenizer import END_OF_TEXT, Characters, Tokenizer


def save_for_transformers(tokenizer: Tokenizer, out: Path, *, block_size: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json, and what `load_tokenizer` reads, into the directory `out`.

    The ids are the same for every text that does not spell out a special token such as `<|endoftext|>`: to us that is
    only text, to transformers it is the token. A SentencePiece model is written as it is, tokenizer.model, and no more:
    which of transformers' classes reads it as sentencepiece does hangs on the model.
    """
    if tokenizer.kind == "bytes":  # a byte-level BPE without merges
        BPE.from_ranks({bytes([byte]): byte for byte in range(256)}, tokenizer.kind).save(out)
    else:
        tokenizer.save(out)
    if tokenizer.kind == "sentencepiece":
        return
    if tokenizer.kind == "huggingface":
        _save_bare(out / "tokenizer.json")
    if isinstance(tokenizer, Characters):
        _save_characters(tokenizer, out / "tokenizer.json")
    config: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
    }
    if tokenizer.end_of_text is not None:
        config |= dict.fromkeys(("bos_token", "eos_token", "pad_token"), tokenizer.end_text)
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _save_bare(path: Path) -> None:
    """Without what would set tokens around a text, cut it or fill it up: the model was trained on none of that."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content |= dict.fromkeys(("post_processor", "truncation", "padding"))
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _save_characters(tokenizer: Characters, path: Path) -> None:
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Fast

    fast = Fast(models.WordLevel(vocab={character: id for id, character in enumerate(tokenizer.characters)}))
    fast.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    fast.decoder = decoders.Fuse()
    if tokenizer.end_of_text is not None:
        fast.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    fast.save(str(path))
