"""Where a model's config comes from: a file, a known name, the hub; and what is said when it comes from none."""

from __future__ import annotations

import doctest
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ganeum.errors import ConfigError, GaneumError, MissingExtra
from ganeum.plan import parameters
from ganeum.plan.architecture import FAMILIES, find, from_config_json
from ganeum.plan.architecture import known as known_models
from ganeum.plan.architecture.known import known
from ganeum.plan.question.subject import config_file

GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2}


def said(error: pytest.ExceptionInfo[GaneumError]) -> str:
    return str(error.value)


def test_a_directory_or_a_file(tmp_path: Path) -> None:
    """A directory with a config.json and the file itself are the same model, called by the directory's name."""
    home = tmp_path / "mine"
    home.mkdir()
    (home / "config.json").write_text(json.dumps(GPT2))
    assert find(str(home)) == find(str(home / "config.json"))
    assert find(str(home)).name == "mine"


@pytest.mark.parametrize("name", ["T5-base", "google-t5/t5-base", "Google-T5/T5-BASE"])
def test_a_known_name_with_or_without_its_owner(name: str) -> None:
    """Case and owner do not matter."""
    assert "t5-base" == find(name).name


@pytest.mark.parametrize("module", [known_models, parameters], ids=lambda module: module.__name__)
def test_the_examples_in_docstrings(module: ModuleType) -> None:
    """They run, and give what stands there."""
    failed, tried = doctest.testmod(module)
    assert (0, True) == (failed, tried > 0)


def test_a_size_that_misleads_is_told() -> None:
    """Document 002's "1.2B" summarizer is mt5-base, and whoever plans it is told so."""
    note = "fine-tuned from mt5-base: 582M parameters, not 1.2B, which is mt5-large"
    assert note == find("csebuetnlp/mT5_multilingual_XLSum").note
    assert "" == find("mt5-base").note


@pytest.mark.parametrize("model", known(), ids=lambda model: model.name)
def test_every_known_model_can_be_counted_and_has_a_source(model: object) -> None:
    """The file of known models is sound: each has a type that is known, and an address or a paper to check it by."""
    architecture = find(model.name)  # type: ignore[attr-defined]
    assert parameters.of(architecture).total > 50_000_000
    assert architecture.source.startswith(("https://huggingface.co/", "Gunasekar et al. 2023, arXiv 2306.11644"))


def test_the_manuals_table_is_true() -> None:
    """docs/arithmetic.md lists every known model with its counts and its note."""
    page = (Path(__file__).parents[2] / "docs" / "arithmetic.md").read_text(encoding="utf-8")
    for model in known():
        counted = parameters.of(find(model.name))
        hub = f" {model.hub}" if "/" in model.hub else ""
        note = f" {model.note}" if model.note else ""
        assert f"| {model.name} |{hub} | {counted.total:,} | {counted.non_embedding:,} |{note} |" in page


def test_a_name_that_is_nearly_known() -> None:
    """A mistyped name gets the nearest ones."""
    with pytest.raises(ConfigError) as error:
        find("t5-bas")
    assert said(error) == (
        "ConfigError: no model called t5-bas is known\n"
        "  where  the name of a model\n"
        "  why    it is neither a directory with a config.json nor one of the models that are known by name\n"
        "  try    t5-base or mt5-base or t5-3b"
    )


def test_a_name_nobody_heard_of() -> None:
    """Without a near name, what can be given instead."""
    with pytest.raises(ConfigError) as error:
        find("zzzz.yaml")
    assert said(error) == (
        "ConfigError: no model called zzzz.yaml is known\n"
        "  where  the name of a model\n"
        "  why    it is neither a directory with a config.json nor one of the models that are known by name\n"
        "  try    owner/name, as on the Hugging Face hub, or a directory with a config.json"
    )


def test_a_name_too_long_for_a_file() -> None:
    """What no file system can hold is neither a config nor a model, and no traceback."""
    assert config_file("a" * 5_000) is None
    with pytest.raises(ConfigError) as error:
        find("a" * 5_000)
    assert error.value.what == f"no model called {'a' * 40}… is known"


def test_a_directory_without_a_config(tmp_path: Path) -> None:
    """A directory is never looked up on the hub."""
    with pytest.raises(ConfigError) as error:
        find(str(tmp_path))
    assert said(error) == (
        f"ConfigError: there is no config.json in {tmp_path}\n"
        "  where  the name of a model\n"
        "  why    a directory of a model in Hugging Face's format has one\n"
        "  try    owner/name, as on the Hugging Face hub, or a directory with a config.json"
    )


def test_a_damaged_config(tmp_path: Path) -> None:
    """A file that is no JSON, and one that is no object."""
    file = tmp_path / "config.json"
    file.write_text("{")
    with pytest.raises(ConfigError) as error:
        find(str(file))
    assert said(error).startswith(f"ConfigError: the config of {tmp_path.name} cannot be read: Expecting property name")
    file.write_text("[]")
    with pytest.raises(ConfigError) as error:
        find(str(file))
    assert said(error) == (
        f"ConfigError: the config of {tmp_path.name} is not an object with keys\n  where  {tmp_path}/config.json"
    )


def test_a_type_of_model_that_is_not_known() -> None:
    """The error names those that are."""
    with pytest.raises(ConfigError) as error:
        from_config_json({"model_type": "gpt_neox"}, name="pythia-70m", source="pythia-70m/config.json")
    assert said(error) == (
        "ConfigError: pythia-70m is a model of type gpt_neox, whose parts are not known here\n"
        "  where  pythia-70m/config.json\n"
        f"  why    counted are {', '.join(FAMILIES)}"
    )


def test_a_config_that_does_not_say_what_it_is() -> None:
    """model_type decides; without it nothing is guessed."""
    with pytest.raises(ConfigError) as error:
        from_config_json({"n_embd": 8}, name="mine", source="config.json")
    assert said(error) == (
        "ConfigError: the config of mine does not say what kind of model it is\n"
        "  where  config.json\n"
        "  why    model_type is missing\n"
        f'  try    "model_type": one of {", ".join(FAMILIES)}'
    )


@pytest.mark.parametrize(
    ("written", "suggestion"), [("GPT-2", "gpt2"), ("mamba", None), ("mixtral", None), ("qwen2_moe", None)]
)
def test_another_spelling_is_corrected_and_another_model_is_not(written: str, suggestion: str | None) -> None:
    """GPT-2 is gpt2; mamba looks like llama, and mixtral like mistral, and neither has its shape."""
    with pytest.raises(ConfigError) as error:
        from_config_json({"model_type": written}, name="mine", source="config.json")
    assert said(error) == (
        f"ConfigError: mine is a model of type {written}, whose parts are not known here\n"
        "  where  config.json\n"
        f"  why    counted are {', '.join(FAMILIES)}"
        + (f'\n  try    "model_type": "{suggestion}"' if suggestion else "")
    )


def test_a_type_that_is_no_word() -> None:
    """What stands there is said."""
    with pytest.raises(ConfigError) as error:
        from_config_json({"model_type": 5}, name="mine", source="config.json")
    assert said(error) == (
        "ConfigError: the config of mine does not say what kind of model it is\n"
        "  where  config.json\n"
        "  why    model_type is 5, no word in quotation marks\n"
        f'  try    "model_type": one of {", ".join(FAMILIES)}'
    )


def test_two_names_of_one_thing() -> None:
    """The same number twice is one; two numbers are a contradiction (transformers takes the later name's)."""
    assert 8 == from_config_json({**GPT2, "hidden_size": 8}, name="mine").width
    with pytest.raises(ConfigError) as error:
        from_config_json({**GPT2, "hidden_size": 16}, name="mine", source="config.json")
    assert said(error) == (
        "ConfigError: n_embd in the config of mine is 8, and hidden_size is 16\n"
        "  where  config.json\n"
        "  why    they are two names of one thing\n"
        "  try    one of them"
    )


def test_brackets_without_end(tmp_path: Path) -> None:
    """A file that nests deeper than Python reads is a file that cannot be read."""
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError) as error:
        find(str(tmp_path))
    assert said(error).startswith(f"ConfigError: the config of {tmp_path.name} cannot be read: ")


def test_t5_says_its_mlp_twice() -> None:
    """is_gated_act and dense_act_fn, which transformers writes beside feed_forward_proj, are what it builds from."""
    keys = {"model_type": "t5", "feed_forward_proj": "relu", "is_gated_act": True, "dense_act_fn": "silu"}
    block = from_config_json(keys, name="mine").blocks[0]
    assert (True, "silu") == (block.gated, block.activation)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"n_embd": -8}, "n_embd in the config of mine is -8, not a whole number of at least 1"),
        ({"n_layer": 1.5}, "n_layer in the config of mine is 1.5, not a whole number of at least 1"),
        ({"n_head": True}, "n_head in the config of mine is True, not a whole number of at least 1"),
        ({"resid_pdrop": 2}, "resid_pdrop in the config of mine is 2, not a number from 0 to 1"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings in the config of mine is 'no', not true or false"),
        ({"activation_function": 3}, "activation_function in the config of mine is 3, not a word in quotation marks"),
    ],
)
def test_impossible_values(keys: dict[str, object], text: str) -> None:
    """A value that no model has is named with its key."""
    with pytest.raises(ConfigError) as error:
        from_config_json({**GPT2, **keys}, name="mine", source="config.json")
    assert said(error) == f"ConfigError: {text}\n  where  config.json"


def test_a_width_that_heads_cannot_share() -> None:
    """10 numbers cannot be divided among 4 heads."""
    with pytest.raises(ConfigError) as error:
        from_config_json({**GPT2, "n_embd": 10, "n_head": 4}, name="mine", source="config.json")
    assert said(error) == (
        "ConfigError: mine is 10 wide, which 4 heads cannot share\n"
        "  where  config.json\n"
        "  why    each head takes an equal part of the width"
    )


def test_heads_that_cannot_share_keys() -> None:
    """6 heads of queries cannot be served evenly by 4 of keys."""
    keys = {"model_type": "llama", "num_attention_heads": 6, "num_key_value_heads": 4, "hidden_size": 12}
    with pytest.raises(ConfigError) as error:
        from_config_json(keys, name="mine", source="config.json")
    assert said(error) == (
        "ConfigError: 6 heads of mine cannot share 4 heads of keys\n"
        "  where  config.json\n"
        "  why    each head of keys and values serves as many heads of queries"
    )


def test_an_mlp_that_t5_does_not_have() -> None:
    """T5's MLP is a function's name, gated or not."""
    with pytest.raises(ConfigError) as error:
        from_config_json({"model_type": "t5", "feed_forward_proj": "gelu-new"}, name="mine", source="config.json")
    assert said(error) == (
        "ConfigError: feed_forward_proj in the config of mine is 'gelu-new', not a function's name, or gated- and such "
        "a name\n  where  config.json"
    )


def test_networks_that_transformers_would_not_build() -> None:
    """MPT without ALiBi and a GPT-2 that looks at an encoder are refused, not counted as something else."""
    with pytest.raises(ConfigError) as error:
        from_config_json({"model_type": "mpt", "attn_config": {"alibi": False}}, name="mine", source="config.json")
    assert said(error) == (
        "ConfigError: attn_config.alibi in the config of mine is False, and transformers builds MPT only with True\n"
        "  where  config.json\n"
        "  why    it leaves the key out of account, so the model would not be the one that the config describes"
    )
    with pytest.raises(ConfigError) as error:
        from_config_json({**GPT2, "add_cross_attention": True}, name="mine", source="config.json")
    assert said(error) == (
        "ConfigError: mine looks across at an encoder (add_cross_attention: true), which is not counted for this "
        "family\n  where  config.json"
    )


class Hub:
    """Stands for the hub: answers with a file, refuses as huggingface_hub does, or (an OSError) does not answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> None:
        self.answer = answer
        self.fetched: list[tuple[str, str]] = []
        monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", self.ask)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", self.fetch)

    def ask(self, url: str, *, timeout: float) -> None:
        assert timeout <= 5, "one who waits must not wait long"
        names = "(someone/mine|someone/gpt2-larg|distilgpt2|bert-base)"
        assert re.fullmatch(rf"https://huggingface.co/{names}/resolve/main/config.json", url)
        if isinstance(self.answer, Exception):
            raise self.answer

    def fetch(self, repository: str, file: str, *, local_files_only: bool) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        if local_files_only:
            raise LocalEntryNotFoundError("not in the cache")
        self.fetched.append((repository, file))
        return str(self.answer)


def test_the_hub_is_asked_for_config_json_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name with an owner that is not known here is fetched, and nothing else of the model is."""
    (tmp_path / "config.json").write_text(json.dumps(GPT2))
    hub = Hub(monkeypatch, tmp_path / "config.json")
    assert "someone/mine" == find("someone/mine").name
    assert [("someone/mine", "config.json")] == hub.fetched


def test_a_name_without_an_owner_may_be_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the hub's oldest models have it; bert-base, which only sounds like t5-base, is asked for."""
    (tmp_path / "config.json").write_text(json.dumps(GPT2))
    hub = Hub(monkeypatch, tmp_path / "config.json")
    assert ("distilgpt2", "bert-base") == tuple(find(name).name for name in ("distilgpt2", "bert-base"))
    assert [("distilgpt2", "config.json"), ("bert-base", "config.json")] == hub.fetched


def refusal(kind: str) -> Exception:
    """An error of huggingface_hub, without the response that only its text needs."""
    from huggingface_hub import errors

    if kind == "no answer":
        return OSError("Name or service not known")
    error: type[Exception] = getattr(errors, kind)
    return error.__new__(error, "no")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (
            "no answer",
            "ConfigError: the config of someone/mine cannot be fetched\n"
            "  where  https://huggingface.co/someone/mine\n"
            "  why    the Hugging Face hub does not answer, and no copy was kept on this machine\n"
            "  try    a directory with the model's config.json",
        ),
        (
            "RepositoryNotFoundError",
            "ConfigError: there is no model someone/mine on the Hugging Face hub, or it is private\n"
            "  where  https://huggingface.co/someone/mine",
        ),
        (
            "GatedRepoError",
            "ConfigError: someone/mine is shown only to those who accepted its licence\n"
            "  where  https://huggingface.co/someone/mine\n"
            "  try    accept it on that page, then: hf auth login",
        ),
        (
            "RemoteEntryNotFoundError",
            "ConfigError: someone/mine has no config.json\n"
            "  where  https://huggingface.co/someone/mine\n"
            "  why    it is not a transformers model",
        ),
    ],
)
def test_what_the_hub_refuses(monkeypatch: pytest.MonkeyPatch, kind: str, text: str) -> None:
    """Each way in which the hub says no is told in words of its own."""
    Hub(monkeypatch, refusal(kind))
    with pytest.raises(ConfigError) as error:
        find("someone/mine")
    assert said(error) == text


def test_offline_with_a_known_model_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the hub, the nearest models whose configs are built in are offered."""
    Hub(monkeypatch, refusal("no answer"))
    with pytest.raises(ConfigError) as error:
        find("someone/gpt2-larg")
    assert said(error).endswith("  try    gpt2-large or gpt2-xl or t5-large, whose config is built in")


def test_without_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that is missing is named with the line that installs it."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra) as error:
        find("someone/mine")
    assert said(error) == (
        "MissingExtra: someone/mine is looked up on the Hugging Face hub, which takes huggingface_hub\n"
        "  where  the name of a model\n"
        "  try    pip install huggingface-hub"
    )
