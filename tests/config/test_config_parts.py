"""Batch arithmetic, command-line words, the table of keys, the pages written from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeum.config import reference
from ganeum.config.arguments import split_arguments
from ganeum.config.batch import accumulation_steps, divisors
from ganeum.config.checks import name_error
from ganeum.config.keys import keys, matching, sections
from ganeum.config.names import ELSEWHERE, instead_of
from ganeum.errors import ConfigError

ROOT = Path(__file__).parents[2]


@given(st.integers(1, 5_000))
def test_a_batch_is_divided_without_a_remainder(batch_size: int) -> None:
    """Every divisor is found, in rising order, and each makes whole accumulation steps."""
    found = divisors(batch_size)
    assert found == [d for d in range(1, batch_size + 1) if batch_size % d == 0]
    assert all(accumulation_steps(batch_size, micro) * micro == batch_size for micro in found)


def test_divisors_of_480() -> None:
    """All 24 divisors of 480 in order."""
    assert divisors(480) == [
        1,
        2,
        3,
        4,
        5,
        6,
        8,
        10,
        12,
        15,
        16,
        20,
        24,
        30,
        32,
        40,
        48,
        60,
        80,
        96,
        120,
        160,
        240,
        480,
    ]


@pytest.mark.parametrize(
    ("alone", "overrides", "words"),
    [
        (["a.yaml"], ["max_iters=10"], "a.yaml --max_iters 10"),
        (["a.yaml"], ["max_iters=10"], "a.yaml --max_iters=10"),
        (["a.yaml"], ["max_iters=10"], "--max-iters 10 a.yaml"),
        (["a.yaml"], ["train.max_iters=10", "seed=3"], "--train.max_iters 10 a.yaml seed=3"),
        (["a.yaml"], ["eval_only=true"], "--eval_only a.yaml"),
        (["a.yaml"], ["eval_only=false"], "--eval_only false a.yaml"),
        (["a.yaml"], ["compile=False"], "a.yaml --compile=False"),
        (["a.yaml"], ["compile=auto", "eval_only=true"], "a.yaml --compile auto --eval_only"),
        ([], ["temperature=-1"], "--temperature -1"),
        (["a.yaml", "b.yaml"], [], "a.yaml b.yaml"),
    ],
)
def test_words_are_sorted_into_paths_and_overrides(alone: list[str], overrides: list[str], words: str) -> None:
    """nanoGPT's --key=value and --key value are key=value; a switch needs no value."""
    assert (alone, overrides) == split_arguments(words.split())


def test_a_path_with_an_equals_sign_is_still_a_path(tmp_path: Path) -> None:
    """A file that exists is a file, whatever its name."""
    path = tmp_path / "lr=1.yaml"
    path.touch()
    assert ([str(path)], []) == split_arguments([str(path)])


@pytest.mark.parametrize("words", [["--max_iters"], ["--max_iters", "--seed", "3"]])
def test_a_key_without_its_value_is_told(words: list[str]) -> None:
    """`--max_iters` alone says nothing."""
    with pytest.raises(ConfigError) as caught:
        split_arguments(words)
    assert str(caught.value) == (
        "ConfigError: --max_iters needs a value\n  where  the command line: --max_iters\n  try    --max_iters=VALUE"
    )


def test_every_name_from_elsewhere_leads_to_a_key_of_ours() -> None:
    """Each of the other projects' names is no key here, and its answer names one that is (or says to leave it out)."""
    for name, answer in ELSEWHERE.items():
        assert not matching(name), name
        assert "leave it out" in answer or any(word.strip(",:;") in keys() for word in answer.split()), name


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("dropout", ["model.dropout"]),
        ("lora.dropout", ["train.lora.dropout"]),
        ("train.lora.dropout", ["train.lora.dropout"]),
        ("rank", ["train.lora.rank"]),
        ("mode", ["log.wandb.mode"]),
        ("name", ["name"]),
        ("project", ["log.wandb.project", "log.trackio.project"]),
        ("interval", ["sample.interval", "log.interval"]),
        ("out", []),
        ("", []),
    ],
)
def test_a_bare_name_means_the_key_nearest_to_the_root(name: str, found: list[str]) -> None:
    """A key in a section of a section takes no bare name from one above it; of two equally near neither is meant."""
    assert matching(name) == found


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("train.lora.dropout", "lora.dropout"),
        ("model.dropout", "train.dropout"),
        ("train.batch_size", "train.batchsize"),
        ("train.learning_rate", "lerning_rate"),
        ("train.learning_rate", "model.learning_rate"),
        ("model.n_embd", "n_emb"),
        ("train.max_iters", "max-iter"),
        ("per_device_train_batch_size", "per_device_train_batchsize"),
        ("train.beta1", "adam_beta_1"),
        ("sample.interval or log.interval", "train.interval"),
        ("log.wandb.project", "wandb.proj"),
        (None, "qqqq"),
    ],
)
def test_a_misspelt_key_is_answered_with_the_nearest(answer: str | None, name: str) -> None:
    """Typing errors, wrong sections and foreign names all lead to the key that was meant."""
    assert answer == instead_of(name)


@pytest.mark.parametrize("name", ["exp1", "exp1_layer6", "한국어", "a b", "a.b", "2024-01-01", "x" * 200])
def test_names_that_directories_have(name: str) -> None:
    """Letters of any script, digits, spaces and dots inside are fine."""
    assert name_error(name) is None


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", ".x", "-x", "a/b", "a\\b", "a:b", "a\nb", "x.", "x ", "NUL", "com1.txt", "x" * 201]
)
def test_names_that_directories_cannot_have(name: str) -> None:
    """What Linux, macOS or Windows refuses, or what a shell takes for an option."""
    assert name_error(name)


def test_every_key_and_section_has_its_sentence() -> None:
    """No key without a description, no description with two lines."""
    for name, sentence in {**sections(), **{key.name: key.description for key in keys().values()}}.items():
        assert sentence, name
        assert "\n" not in sentence, name


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (reference.BASE, reference.base_yaml()),
        (reference.PAGE, reference.page()),
        (reference.NAMES, reference.names_page()),
    ],
)
def test_the_written_pages_are_up_to_date(path: Path, text: str) -> None:
    """What lies in configs/ and docs/ is what `python -m ganeum.config.reference` writes."""
    assert text == (ROOT / path).read_text(encoding="utf-8")
