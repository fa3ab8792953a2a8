"""Pairs to learn from on every machine: of a function of Python's standard library what it is told to do, and its name.

    python examples/docstrings/prepare.py

writes into ``data/`` beside this file ``train.jsonl``, ``val.jsonl`` and ``test.jsonl`` (``source``: arguments and the
docstring's first paragraph; ``target``: the name) and ``model/``: a small T5's config.json, and a tokenizer trained on
the pairs to learn from.

``val`` is to choose by (an optimizer, a learning rate, a checkpoint), ``test`` to look at once, when all is chosen. A
module is in one of the three with all its functions (its path's hash decides). Out are functions whose docstring spells
out the name, test modules, and of those held out every one whose source is also in a file before.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent / "data"
HELD_OUT = 0.08  # of the modules, in each of val and test
LONGEST = 300  # characters of a docstring's first paragraph
VOCABULARY = 4096
WITHOUT = {"test", "tests", "idle_test", "site-packages", "__pycache__", "lib2to3", "turtledemo"}


def functions(file: Path) -> Iterator[tuple[str, str]]:
    """(source, target) of every function of a module that has a docstring without its name."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        first = (ast.get_docstring(node) or "").split("\n\n")[0]
        said = " ".join(first.split())[:LONGEST]
        if len(said) < 10 or re.search(rf"\b{re.escape(node.name)}\b", said):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        yield f"({', '.join(argument.arg for argument in arguments)}) {said}", node.name


def pairs() -> dict[str, list[tuple[str, str]]]:
    """Those to learn from (``train``), to choose by (``val``), and to look at once (``test``)."""
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, dict[tuple[str, str], None]] = {"train": {}, "val": {}, "test": {}}
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root).as_posix()
        if WITHOUT.isdisjoint(name.split("/")):
            share = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
            part = "val" if share < HELD_OUT else "test" if share < 2 * HELD_OUT else "train"
            found[part].update(dict.fromkeys(functions(file)))
    seen: set[str] = set()
    kept = {}
    for part, those in found.items():
        kept[part] = [pair for pair in those if pair[0] not in seen]
        seen.update(source for source, _ in those)
    return kept


def write_rows(path: Path, rows: list[tuple[str, str]]) -> None:
    """JSON lines."""
    lines = (json.dumps({"source": source, "target": target}) + "\n" for source, target in rows)
    path.write_text("".join(lines), encoding="utf-8")


def write_model(directory: Path, texts: list[str]) -> None:
    """A T5 of 1.7M parameters, its shape alone, and a unigram tokenizer with T5's three special tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, T5Config

    special = ["<pad>", "</s>", "<unk>"]
    unigram = Tokenizer(models.Unigram())
    unigram.normalizer = normalizers.NFKC()
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    unigram.train_from_iterator(texts, trainer)
    unigram.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", unigram.token_to_id("</s>"))]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=unigram, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    ).save_pretrained(directory)
    T5Config(
        vocab_size=VOCABULARY,
        d_model=128,
        d_kv=32,
        d_ff=384,
        num_layers=3,
        num_decoder_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=True,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    ).save_pretrained(directory)


def main() -> None:
    """Writes all of it and says what there is."""
    found = pairs()
    HERE.mkdir(exist_ok=True)
    for part, rows in found.items():
        write_rows(HERE / f"{part}.jsonl", rows)
    train, val, test = found.values()
    write_model(HERE / "model", [text for pair in train for text in pair])
    (name, count), *_ = Counter(target for _, target in train).most_common()
    right = [sum(target == name for _, target in rows) / len(rows) for rows in (val, test)]
    print(f"{len(train):,} pairs to learn from, {len(val):,} to choose by, {len(test):,} to look at once")
    print(f"always the most frequent name, {name} ({count:,} times): {right[0]:.1%} and {right[1]:.1%} of the latter")


if __name__ == "__main__":
    main()
