"""Names of Hugging Face's example scripts for summaries and translations: which model, which files, how they are cut.

run_summarization.py, run_translation.py and run_clm.py (transformers 5.23, examples/pytorch), what TRL's and PEFT's
scripts add to them, and the `tokenization:` section of configs that a script reads by itself.
"""

from __future__ import annotations

from ganeum.config.huggingface_rules import Given, Meaning, Rule, Setting, first, number, refusal, truth, whole, word

OFF = (None, False, "", 0, 0.0)
MEETING = frozenset({"text_column"})  # ours as well, and another thing where summary_column stands beside it


def columns(given: Given) -> Meaning:
    """The two columns of a pair; `text_column` alone is that of single texts."""
    text, summary = (first(given, name) for name in ("text_column", "summary_column"))
    settings = []
    if text:
        settings.append(Setting("data.source_column" if summary else "data.text_column", given[text].text))
    if summary:
        settings.append(Setting("data.target_column", given[summary].text))
    return Meaning(tuple(settings))


def batching(given: Given) -> Meaning:
    """How sequences of unlike lengths become a batch. Without a word on it, scripts pad to the longest of a batch."""
    said = word(given, "tokenization.padding")
    if said not in (None, "max_length", "longest", "true", "false", "no", "do_not_pad"):
        raise refusal(
            given,
            "tokenization.padding",
            why="it is one of max_length, longest and do_not_pad",
            suggestion="data.batching: buckets, padded, fixed or packed",
        )
    to_the_most = truth(given, "pad_to_max_length")
    fixed, packed = said == "max_length" or to_the_most is True, truth(given, "packing") is True
    if fixed and packed:
        padding = "tokenization.padding" if said == "max_length" else "pad_to_max_length"
        raise refusal(given, padding, "packing", why="packed rows need no padding", suggestion="data.batching: packed")
    if fixed:
        return Meaning((Setting("data.batching", "fixed"),))
    if packed:
        return Meaning((Setting("data.batching", "packed"),))
    if truth(given, "group_by_length"):
        return Meaning((Setting("data.batching", "buckets"),))
    if said in ("longest", "true"):
        return Meaning((Setting("data.batching", "padded"),))
    return Meaning((Setting("data.batching", "padded", implied=True),) if to_the_most is False else ())


def held_out(given: Given) -> Meaning:
    """validation_split_percentage as a share."""
    if (percent := number(given, "validation_split_percentage")) is None:
        return Meaning()
    return Meaning((Setting("data.val_share", percent / 100),))


def targets(given: Given) -> Meaning:
    """The most of a target."""
    most = whole(given, "max_target_length")
    return Meaning((Setting("data.max_target_length", most),) if most else ())


def written(given: Given) -> Meaning:
    """How much is written at most, which is the new tokens alone here."""
    most = whole(given, "generation_max_length", "val_max_target_length", "inference.max_length")
    return Meaning((Setting("sample.max_new_tokens", most),) if most else (), "of new tokens" if most else "")


def beams(given: Given) -> Meaning:
    """Hypotheses of a sequence."""
    count = whole(given, "inference.num_beams", "generation_num_beams", "num_beams")
    return Meaning((Setting("sample.num_beams", count),) if count else ())


def greedy(given: Given) -> Meaning:
    """Without sampling the likeliest token is taken."""
    if truth(given, "inference.do_sample") is False:
        return Meaning((Setting("sample.temperature", 0.0, implied=True),))
    return Meaning()


RENAMED = {
    "model_name_or_path": "model.source",
    "model_name": "model.source",
    "tokenizer_name": "data.tokenizer",
    "dataset_name": "data.train",
    "train_file": "data.train",
    "validation_file": "data.val",
    "dataset_text_field": "data.text_column",
    "source_prefix": "data.prefix",
    "max_train_samples": "data.max_examples",
    "max_source_length": "data.max_length",
    "max_seq_length": "data.max_length",
    "tokenization.max_length": "data.max_length",
    "inference.batch_size": "sample.at_once",
    "lora_r": "train.lora.rank",
    "lora_alpha": "train.lora.alpha",
    "lora_dropout": "train.lora.dropout",
}

TURNED: dict[Rule, dict[str, str]] = {
    columns: {
        "text_column": "data.source_column; without summary_column, data.text_column",
        "summary_column": "data.target_column",
    },
    batching: {
        "tokenization.padding": "data.batching; max_length: fixed; longest or true: padded",
        "pad_to_max_length": "data.batching; true: fixed",
        "group_by_length": "data.batching; true: buckets",
        "packing": "data.batching; true: packed",
    },
    held_out: {"validation_split_percentage": "data.val_share"},
    targets: {"max_target_length": "data.max_target_length"},
    written: {
        "generation_max_length": "sample.max_new_tokens",
        "val_max_target_length": "sample.max_new_tokens",
        "inference.max_length": "sample.max_new_tokens",
    },
    beams: {
        "generation_num_beams": "sample.num_beams",
        "num_beams": "sample.num_beams",
        "inference.num_beams": "sample.num_beams",
    },
    greedy: {"inference.do_sample": "sample.temperature; false: 0"},
}

NEEDLESS = {
    "what is tokenised is kept under everything that shaped it, and made by all cores": (
        "overwrite_cache",
        "preprocessing_num_workers",
    ),
    "the hub's own settings say it: HF_HOME, HF_TOKEN or `hf auth login`": ("cache_dir", "token", "use_auth_token"),
    "`ganeum generate RUN --input FILE` reads it": ("test_file", "max_predict_samples"),
    "samples are written at every evaluation, references beside them; `ganeum generate` scores them": (
        "predict_with_generate",
    ),
    "ids and lengths are all that a model is given": (
        "tokenization.return_length",
        "tokenization.return_attention_mask",
        "tokenization.return_tensors",
        "tokenization.return_token_type_ids",
    ),
    "train.lora.rank says it": ("use_peft",),
}

REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "trust_remote_code": (
        OFF,
        "code that came with a model runs only by `ganeum train … --trust-remote-code`, not by a file or a queue",
    ),
    "config_name": (OFF, "a model has the config that lies beside it; model.fresh takes that alone"),
    "config_overrides": (OFF, "a model has the config that lies beside it"),
    "keep_linebreaks": ((None, True), "a text is learnt as it stands"),
    "model_revision": ((None, "main"), "the hub's newest is taken; a directory holds any other"),
    "use_fast_tokenizer": ((None, True), "tokenizers are the fast ones"),
    "resize_position_embeddings": (OFF, "a model knows the positions that it was made with"),
    "dataset_config_name": (OFF, "data.train takes files; `ganeum prepare` takes a configuration of a data set"),
    "streaming": (OFF, "examples are tokenised once and then read from the disk, with flat memory"),
    "max_eval_samples": (OFF, "train.eval_tokens says how much is evaluated, in tokens"),
    "ignore_pad_token_for_loss": ((None, True), "what is padded carries no loss"),
    "forced_bos_token": (OFF, "the decoder begins with what the model's config says"),
    "lang": (OFF, "no language is set on a tokenizer: models that need it (mBART, M2M100) are not here"),
    "source_lang": (OFF, "a pair is two columns: data.source_column, data.target_column and data.prefix"),
    "target_lang": (OFF, "a pair is two columns: data.source_column, data.target_column and data.prefix"),
    "lora_target_modules": ((None, "all-linear", "all"), "train.lora.targets: all or attention"),
    "load_in_4bit": (OFF, "weights that are trained lie in fp32 or bf16: train.weights"),
    "load_in_8bit": (OFF, "weights that are trained lie in fp32 or bf16: train.weights"),
    "tokenization.truncation": (
        (None, True, "longest_first", "only_first"),
        "what is longer than data.max_length is cut, and counted",
    ),
    "tokenization.add_special_tokens": ((None, True), "a model that never sees the end of a text never stops"),
    "tokenization.padding_side": ((None, "right"), "in training the end is padded, in generation the beginning"),
}

SWITCHES = frozenset(
    """ignore_pad_token_for_loss keep_linebreaks load_in_4bit load_in_8bit overwrite_cache packing pad_to_max_length
    streaming trust_remote_code use_auth_token use_fast_tokenizer use_peft""".split()  # noqa: SIM905
)
