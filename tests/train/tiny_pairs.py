"""A T5 and a GPT-2 of transformers, small enough to train in a second, with a tokenizer, pairs and texts."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GPT2Config,
    PreTrainedTokenizerFast,
    T5Config,
)

WORDS = ["small", "large", "cat", "dog", "house", "tree", "sees", "finds", "under", "over", "gauge", "sight", "loss"]


def write(directory: Path) -> Path:
    """pairs.jsonl, texts.jsonl, t5/ and gpt2/: config, fresh weights, tokenizer."""
    directory.mkdir(parents=True)
    draw = random.Random(0)
    rows = [[draw.choice(WORDS) for _ in range(draw.randint(2, 14))] for _ in range(120)]
    pairs = [{"source": f"{n} " + " ".join(row), "target": " ".join(row[:4])} for n, row in enumerate(rows)]
    (directory / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (directory / "texts.jsonl").write_text("".join(json.dumps({"text": pair["source"]}) + "\n" for pair in pairs))
    tokenizer = _tokenizer([pair["source"] for pair in pairs])
    torch.manual_seed(0)
    t5 = T5Config(
        d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=128, decoder_start_token_id=0,
        pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    gpt2 = GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=128, n_positions=64, bos_token_id=1, eos_token_id=1, pad_token_id=0
    )
    for name, kind, config in (("t5", AutoModelForSeq2SeqLM, t5), ("gpt2", AutoModelForCausalLM, gpt2)):
        kind.from_config(config).save_pretrained(directory / name)
        tokenizer.save_pretrained(directory / name)
    return directory


def _tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Unigram, with </s> behind every text, as T5's."""
    fast = Tokenizer(models.Unigram())
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    fast.train_from_iterator(
        texts, trainers.UnigramTrainer(vocab_size=110, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    fast.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=fast, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def config(data: Path, path: Path, kind: str = "t5") -> Path:
    """A YAML file of 8 steps of 8 pairs (t5) or texts (gpt2), a checkpoint every 4."""
    train = data / ("pairs.jsonl" if kind == "t5" else "texts.jsonl")
    path.write_text(
        f"model: {{source: {json.dumps(str(data / kind))}}}\n"
        f"data: {{train: {json.dumps(str(train))}, val_share: 0.1, max_length: 32, max_target_length: 12}}\n"
        "train: {batch_size: 8, micro_batch_size: 4, max_iters: 8, eval_interval: 4, checkpoint_interval: 4,\n"
        "        eval_batch_size: 8, learning_rate: 3e-3, precision: fp32, compile: false,\n"
        "        activation_checkpointing: none}\n"
        "sample: {interval: 0, max_new_tokens: 8}\n"
        "log: {interval: 1}\n"
        "device: cpu\n"
    )
    return path
