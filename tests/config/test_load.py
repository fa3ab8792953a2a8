"""YAML, bases and overrides become one config."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ganeum.config import Config, load, load_stored, to_yaml
from ganeum.config.keys import keys, value_of
from ganeum.config.schema import Data, Model, Sample, Train
from ganeum.errors import GaneumError

# Document 004, section 3, word for word.
DOCUMENT_004 = """\
model:
  n_layer: 6
  n_head: 6
  n_embd: 384
  block_size: 256
  dropout: 0.0

train:
  batch_size: 64
  learning_rate: 1e-3
  max_iters: 5000
  weight_decay: 0.1 # V100 학습 안정성 핵심
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_document_004_loads_word_for_word() -> None:
    """The YAML of document 004 is a config; what it does not say comes from the defaults, its name from the file."""
    config = load(write("test_run.yaml", DOCUMENT_004))
    assert (6, 6, 384, 256, 0.0) == (
        config.model.n_layer,
        config.model.n_head,
        config.model.n_embd,
        config.model.block_size,
        config.model.dropout,
    )
    assert (64, 0.001, 5000, 0.1) == (
        config.train.batch_size,
        config.train.learning_rate,
        config.train.max_iters,
        config.train.weight_decay,
    )
    assert ("test_run", "data/tinystories") == (config.name, config.data.directory)


def test_the_shipped_test_run_is_document_004() -> None:
    """configs/exp_v100/test_run.yaml holds document 004's YAML to the letter, below a comment."""
    text = (ROOT / "configs/exp_v100/test_run.yaml").read_text(encoding="utf-8")
    comment, _, rest = text.partition("model:\n")
    assert all(line.startswith("#") for line in comment.splitlines())
    assert "model:\n" + rest == DOCUMENT_004


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_explains_itself(path: Path) -> None:
    """Every config in configs/ loads (base.yaml with a length, which it leaves open) and begins with a comment."""
    config = load(path, ["max_iters=10"] if path.name == "base.yaml" else [])
    assert path.stem == config.name
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_the_two_experiments_differ_in_depth_alone() -> None:
    """exp2_layer12 is exp1_layer6 with 12 layers and another name."""
    one, two = (load(ROOT / f"configs/exp_v100/{name}.yaml") for name in ("exp1_layer6", "exp2_layer12"))
    different = {key for key in keys() if value_of(one, key) != value_of(two, key)}
    assert {"name", "model.n_layer"} == different


def test_a_base_is_laid_under_key_by_key_from_its_own_directory() -> None:
    """`base:` is a path from the file it stands in; only the keys a file says replace those below it."""
    write("configs/deep/grand.yaml", "seed: 1\nmodel: {n_layer: 1, n_head: 1}\ntrain: {max_iters: 9}")
    write("configs/parent.yaml", "base: deep/grand.yaml\nmodel: {n_layer: 2}")
    config = load(write("configs/exp/child.yaml", "base: ../parent.yaml\nmodel: {n_embd: 32}"))
    assert (1, 2, 1, 32, 9) == (
        config.seed,
        config.model.n_layer,
        config.model.n_head,
        config.model.n_embd,
        config.train.max_iters,
    )


def test_a_name_is_not_inherited() -> None:
    """Two files with one base are two runs, even if the base has a name."""
    write("a.yaml", "name: special\ntrain: {max_iters: 1}")
    assert "b" == load(write("b.yaml", "base: a.yaml")).name
    assert "special" == load("a.yaml").name


@pytest.mark.parametrize(
    ("lengths", "text", "overrides"),
    [
        ((5, None, None, None), "train: {max_iters: 5}", []),
        ((None, 2.0, None, None), "base: a.yaml\ntrain: {epochs: 2}", []),
        ((None, None, None, 0.5), "base: a.yaml\ntrain: {epochs: 2}", ["hours=0.5"]),
        ((7, None, None, None), "base: a.yaml", ["max_iters=7"]),
    ],
)
def test_the_last_layer_that_says_a_length_decides(
    lengths: tuple[float | None, ...], text: str, overrides: list[str]
) -> None:
    """epochs over a base with max_iters means epochs; on the command line hours means hours."""
    write("a.yaml", "train: {max_iters: 100}")
    train = load(write("b.yaml", text), overrides).train
    assert lengths == (train.max_iters, train.epochs, train.tokens, train.hours)


@pytest.mark.parametrize(
    ("value", "key", "written"),
    [
        (1e-3, "train.learning_rate", "1e-3"),
        (1e-3, "train.learning_rate", "1E-3"),
        (0.5, "train.learning_rate", ".5"),
        (2.0, "train.learning_rate", "2"),
        (10_000, "train.max_iters", "1e4"),
        (10_000, "train.max_iters", "10_000"),
        (64, "train.batch_size", "64.0"),
        (True, "train.compile", "yes"),
        (False, "train.compile", "off"),
        ("auto", "train.compile", "auto"),
        ("all", "train.eval_tokens", "all"),
        (None, "sample.top_k", "null"),
        (None, "sample.top_k", "~"),
        (None, "sample.top_k", ""),
        ("007", "name", "007"),
        ("2024-01-01", "name", "2024-01-01"),
        ("1:30", "sample.prompt", "1:30"),
        ("yes", "sample.prompt", "yes"),
        ("", "sample.prompt", ""),
        ("12", "sample.prompt", '"12"'),
        ("가나다", "sample.prompt", "가나다"),
    ],
)
def test_a_value_means_what_people_mean(value: object, key: str, written: str) -> None:
    """Numbers with exponents are numbers, 1e4 is a whole one, and text needs no quotes: in a file and on the command
    line alike."""
    section, _, name = key.rpartition(".")
    line = f"{section}:\n  {name}: {written}" if section else f"{name}: {written}"
    in_file = load(write("a.yaml", line + "\n"), [] if key == "train.max_iters" else ["train.max_iters=3"])
    on_line = load(write("b.yaml", "train: {max_iters: 3}"), [f"{key}={written}"])
    assert (value, type(value)) == (value_of(in_file, key), type(value_of(in_file, key)))
    assert value == value_of(on_line, key)


def test_an_override_may_hold_what_yaml_would_take_for_syntax() -> None:
    """Text on the command line is taken as it stands: colons, hashes, braces."""
    path = write("a.yaml", "train: {max_iters: 3}")
    for text in ("a: b", "# no comment", "{x}", "[1, 2", "a=b", "- x", "*"):
        assert text == load(path, [f"prompt={text}"]).sample.prompt


def test_a_key_may_be_written_with_its_dots() -> None:
    """`train.max_iters: 3` in a file is the key of that name, as errors print it."""
    assert 3 == load(write("a.yaml", "train.max_iters: 3")).train.max_iters


def test_an_empty_section_says_nothing() -> None:
    """A section whose keys are all commented out is as if it were not there."""
    assert None is load(write("a.yaml", "model:\n  # dropout: 0.1\ntrain:\n  max_iters: 3")).model.dropout


def test_a_config_does_not_change() -> None:
    """Values of a loaded config cannot be set."""
    config = load(write("a.yaml", DOCUMENT_004))
    with pytest.raises(ValidationError):
        config.train.batch_size = 3  # type: ignore[misc]


text = st.text(st.characters(codec="utf-8"), max_size=30)
numbers = st.floats(min_value=1e-12, max_value=1e12)
configs = st.builds(
    Config,
    name=st.none() | st.from_regex(r"[a-z0-9가-힣][a-z0-9._ 가-힣-]{0,20}[a-z0-9]", fullmatch=True),
    seed=st.integers(0, 2**32 - 1),
    model=st.builds(
        Model, n_layer=st.integers(1, 10**6), dropout=st.floats(0, 0.99), qkv_bias=st.none() | st.booleans()
    ),
    data=st.builds(Data, directory=text),
    train=st.builds(
        Train,
        learning_rate=numbers,
        tokens=numbers | st.none(),
        epochs=numbers | st.none(),
        micro_batch_size=st.just("auto") | st.integers(1, 10**9),
        init_from=st.none() | text,
    ),
    sample=st.builds(Sample, prompt=text, top_p=st.none() | st.floats(0.001, 1.0)),
)


@settings(max_examples=200, deadline=None)
@given(configs)
def test_what_is_written_reads_back_equal(config: Config) -> None:
    """Every config that there can be survives `to_yaml` and `load_stored`, whatever text it holds."""
    Path("stored.yaml").write_text(to_yaml(config), encoding="utf-8", newline="")
    assert config == load_stored("stored.yaml")


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60)
    | text.map(str.encode)
    | st.text("ab:-{}[]#&*!|>'\"%@`,? \n\t01.e~<", max_size=40).map(str.encode)
)
def test_any_bytes_are_a_config_or_an_error_of_ours(content: bytes) -> None:
    """No content of a file leads to a traceback."""
    Path("any.yaml").write_bytes(content)
    with suppress(GaneumError):
        load("any.yaml")


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(keys())), st.text(max_size=20) | st.sampled_from(["1e999", "-1", "nan", ".inf", "9" * 5000])
)
def test_any_override_is_taken_or_an_error_of_ours(key: str, value: str) -> None:
    """No value on the command line leads to a traceback."""
    Path("a.yaml").write_text("train: {max_iters: 3}")
    with suppress(GaneumError):
        load("a.yaml", [f"{key}={value}"])
