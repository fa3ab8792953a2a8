"""Small models of Hugging Face's with tokenizers of their own, made here: there is no hub in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

SPECIAL = ["<pad>", "</s>", "<unk>"]
ENCODED = ("t5", "bart")  # with an encoder
LETTERS = "abcdefghijklmnopqrstuvwxyz ."


def tokenizer(*, ends: bool) -> PreTrainedTokenizerFast:
    """A letter is a token; ``ends``: </s> stands behind every text, as T5 has it."""
    vocabulary = {token: id for id, token in enumerate([*SPECIAL, *LETTERS])}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    letters.decoder = decoders.Fuse()
    if ends:
        letters.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=letters, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def model(family: str, seed: int = 3) -> Any:
    """Weights far enough apart that the likeliest token is clear."""
    torch.manual_seed(seed)
    vocabulary = len(SPECIAL) + len(LETTERS)
    wide = {"vocab_size": vocabulary, "initializer_range": 0.4, "eos_token_id": 1, "pad_token_id": 0}
    llama = wide | {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": None,
        "max_position_embeddings": 64,
    }
    match family:
        case "t5":
            shape = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "initializer_factor": 1.3}
            made = T5ForConditionalGeneration(
                T5Config(vocab_size=vocabulary, decoder_start_token_id=0, tie_word_embeddings=False, **shape)
            )
        case "bart":
            layers = dict.fromkeys(("encoder_layers", "decoder_layers", "encoder_attention_heads"), 2)
            widths = {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "decoder_attention_heads": 2}
            ends = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": 0, "forced_eos_token_id": None}
            made = BartForConditionalGeneration(
                BartConfig(
                    vocab_size=vocabulary,
                    init_std=0.4,
                    max_position_embeddings=64,
                    decoder_start_token_id=1,
                    **layers,
                    **widths,
                    **ends,
                )
            )
        case "gpt2":
            shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
            made = GPT2LMHeadModel(GPT2Config(**wide, **shape, bos_token_id=1))
        case "llama":
            made = LlamaForCausalLM(LlamaConfig(**llama))
        case "qwen3":
            made = Qwen3ForCausalLM(Qwen3Config(**llama, head_dim=8))
    return made.eval()


def saved(family: str, directory: Path) -> Path:
    """The model and its tokenizer as ``from_pretrained`` reads them."""
    model(family).save_pretrained(directory)
    tokenizer(ends=family in ENCODED).save_pretrained(directory)
    return directory
