"""What `ganeum plan` refuses, and what it says then."""

from __future__ import annotations

import pytest
from asked import run_yaml, typed  # noqa: F401 (a fixture is there by its name)

from ganeum.errors import ConfigError
from ganeum.plan.question.ask import Question, answer
from ganeum.plan.question.compare import Prices

AVAILABLE = "--tokens-available"
REFUSED = [
    (Question(), "no config is named", 'ganeum plan configs/demo.yaml; ganeum plan t5-base; ganeum plan --gpu "RTX'),
    (Question(words=["a.yaml", "b.yaml"]), "one config is planned at a time, but 2 are named", "ganeum plan a.yaml,"),
    (
        Question(words=["run.yaml"], which_gpu=True, gpus=["RTX 4090"]),
        "--which-gpu and --gpu cannot be asked together",
        "the one asks for the cards, the other names them",
    ),
    (
        Question(words=["run.yaml"], which_gpu=True, explain=True),
        "--which-gpu and --explain cannot be asked together",
        "one plan is derived at a time",
    ),
    (
        Question(words=["run.yaml"], gpus=["RTX 3070", "RTX 4090"], explain=True),
        "several --gpu and --explain cannot be asked together",
        "one plan is derived at a time",
    ),
    (
        Question(hours=8, which_gpu=True),
        "--which-gpu and no config cannot be asked together",
        "a model is searched for one card",
    ),
    (
        Question(hours=8, purpose="inference"),
        "no config and --purpose cannot be asked together",
        "a model is searched for its training",
    ),
    (
        Question(words=["run.yaml"], parameters="100M"),
        "run.yaml and --parameters cannot be asked together",
        "it has the size that it has",
    ),
    (
        Question(words=["run.yaml"], models=["gpt2"]),
        "--models and run.yaml cannot be asked together",
        "a table has its models from --models",
    ),
    *(
        (question, f"{one} and {other} cannot be asked together", "why")
        for question, one, other in (
            (Question(hours=8, explain=True), "no config", "--explain"),
            (Question(hours=8, section="a"), "no config", "--config-section"),
            (Question(hours=8, may_shorten=True), "no config", "--may-shorten"),
            (Question(hours=8, prices=Prices(per_hour=2)), "no config", "--price-per-hour"),
            (Question(words=["run.yaml"], purpose="inference", hours=8), "--purpose inference", "--hours"),
            (Question(words=["gpt2"], purpose="evaluation", tokens="1M"), "--purpose evaluation", "--tokens"),
            (Question(words=["gpt2"], purpose="generation", tokens_available="1M"), "--purpose generation", AVAILABLE),
            (
                Question(models=["gpt2"], purpose="inference", prices=Prices(per_kwh=2)),
                "--purpose inference",
                "--price-per-kwh",
            ),
            (Question(models=["gpt2"], parameters="1M"), "--models", "--parameters"),
            (Question(models=["gpt2"], section="a"), "--models", "--config-section"),
            (Question(models=["gpt2"], may_shorten=True), "--models", "--may-shorten"),
            (Question(models=["gpt2"], prices=Prices(per_hour=2)), "--models", "--price-per-hour"),
            (Question(models=["gpt2"], tokens_available="1M"), "--models", AVAILABLE),
            (Question(words=["gpt2"], section="a"), "gpt2", "--config-section"),
            (Question(words=["gpt2"], tokens_available="1M"), "gpt2", AVAILABLE),
            (Question(words=["run.yaml"], tokens="1M", tokens_available="1M"), "--tokens", AVAILABLE),
        )
    ),
    *(
        (Question(words=["run.yaml"], prices=Prices(per_kwh=price)), f"--price-per-kwh must be a number {told}", "line")
        for price, told in ((-1, "above 0, but it is -1"), (float("nan"), "above 0, but it is nan"))
    ),
    (Question(words=["run.yaml"], hours=-1), "--hours must be a number above 0, but it is -1", "the command line"),
    (
        Question(words=["run.yaml"], tokens="many"),
        "--tokens must be a number above 0, but it is 'many'",
        "--tokens 300M, --tokens 1.5B or --tokens 130520",
    ),
    (Question(hours=1e300), "--hours must be at most 1,000,000, but it is 1e+300", "the command line"),
    (
        Question(words=["run.yaml"], tokens="1e300"),
        "--tokens must be at most 1,000,000,000,000,000,000, but it is 1e+300",
        "the command line: --tokens 1e300",
    ),
    (
        Question(hours=8, gpus=["RTX 4080"], settings=["n_layer=3"]),
        "a model that is searched has no n_layer to set",
        "one of block_size=…, context=…, vocab_size=…, optimizer=…, directory=…",
    ),
]


@pytest.mark.parametrize(("question", "what", "more"), REFUSED, ids=[what for _, what, _ in REFUSED])
def test_what_is_refused(question: Question, what: str, more: str) -> None:
    """A question that has no answer is refused with what is wrong and what to type."""
    with pytest.raises(ConfigError) as error:
        answer(question)
    assert error.value.what == what
    assert more in str(error.value)


def test_the_whole_text_of_a_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error with exit status 2, nothing on standard output."""
    status, out, err = typed("run.yaml", "--which-gpu", "--gpu", "RTX 4090", capsys=capsys)
    assert (2, "") == (status, out)
    assert err == (
        "ConfigError: --which-gpu and --gpu cannot be asked together\n"
        "  where  ganeum plan run.yaml\n"
        "  why    the one asks for the cards, the other names them\n"
    )
    status, out, err = typed("run.yaml", "--emit", "hf", "--json", capsys=capsys)
    assert (2, "") == (status, out)
    assert err == (
        "ConfigError: --emit and --format cannot be asked together\n"
        "  where  ganeum plan\n"
        "  why    what is emitted is one run's file, in a form of its own\n"
    )


@pytest.mark.parametrize(
    ("options", "what", "more"),
    [
        (["--json", "--format", "csv"], "--json and --format csv cannot", "an answer is printed in one form"),
        (["--explain", "--format", "csv"], "--explain and --format csv cannot", "a derivation is text, or Markdown"),
        (["--explain", "--json"], "--explain and --format json cannot", "a derivation is text, or Markdown"),
        (["--emit", "hf", "--gpus", "4090,4080"], "--emit and several --gpu cannot", "is one card's file"),
        (["--emit", "hf", "--price-per-kwh", "1"], "--emit and --price-per-kwh cannot", "one run's file"),
        (["--gpus", " , "], "--gpus names nothing", "the command line: --gpus ' , '"),
        (["--gpu", ""], "no GPU is named", "none is taken for it"),
    ],
)
def test_no_option_is_silently_unheard(
    options: list[str], what: str, more: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two options that contradict each other none wins in silence, and an empty list is no list."""
    status, out, err = typed("run.yaml", *options, capsys=capsys)
    assert (2, "") == (status, out)
    assert what in err
    assert more in err


def test_an_unknown_card_and_an_unknown_model_are_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """A card or a model of a name like others' is never taken for one of them."""
    status, out, err = typed("run.yaml", "--gpu", "RTX 4085", capsys=capsys)
    assert (2, "") == (status, out)
    assert err.startswith("DeviceError: no GPU called RTX 4085 is known\n  where  gpu\n")
    status, out, err = typed("t5-bas", capsys=capsys)
    assert (2, "") == (status, out)
    assert "no model called t5-bas is known" in err
    assert "t5-base" in err
