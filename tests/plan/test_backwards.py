"""From hours to a model: what the search finds, that planning it gives the same figures, and what it refuses."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ganeum.cli.examples import refreshed
from ganeum.config import load
from ganeum.config.change import change
from ganeum.config.schema import Config
from ganeum.errors import ConfigError, GaneumError
from ganeum.hardware.device import Device
from ganeum.plan import backwards, closed_form, parameters, scaling_laws
from ganeum.plan.architecture import ours

ROOT = Path(__file__).parents[2]


def card(memory_gib: float = 16.0, **peaks: float) -> Device:
    """A 16 GB card of 97.5 dense bf16 TFLOP/s and 717 GB/s."""
    return Device(
        name="RTX 4080",
        kind="cuda",
        memory_gib=memory_gib,
        usable_gib=memory_gib - 0.8,
        peak_flops_per_second={"fp32": 48.7e12, "tf32": 48.7e12, "bf16": 97.5e12, "fp16": 97.5e12} | peaks,
        capability=(8, 9),
        memory_bandwidth_gb_s=717,
    )


@pytest.fixture(scope="module")
def eight_hours() -> backwards.Answer:
    return backwards.search(card(), hours=8)


SLOW = Device("a CPU", "cpu", 8.0, 6.0, {"fp32": 1e11})
QUESTIONS: dict[str, tuple[Device, dict[str, Any]]] = {
    "eight hours": (card(), {"hours": 8}),
    "a day, little text": (card(), {"hours": 24, "tokens_available": 100_000_000}),
    "a size and tokens": (card(24.0), {"parameters": 300e6, "tokens": 3_000_000_000, "context": 512}),
    "minutes on a CPU": (SLOW, {"hours": 0.1, "context": 256, "vocab_size": 4096}),
    "Muon": (card(8.0), {"hours": 2, "optimizer": "muon"}),
}


@pytest.mark.parametrize("case", QUESTIONS)
def test_planning_the_answer_gives_its_figures(case: str, tmp_path: Path) -> None:
    """`ganeum plan` of the config that is written says the same parameters, batch, steps, memory and hours."""
    device, asked = QUESTIONS[case]
    answer = backwards.search(device, **asked)
    file = tmp_path / "answer.yaml"
    file.write_text(answer.yaml(), encoding="utf-8")
    plan = closed_form.plan(load(file), device=device)
    best = answer.best
    assert plan["parameters"]["total"] == best.n_params
    assert plan["batch"]["batch_size"] == best.config.train.batch_size
    assert plan["batch"]["micro_batch_size"] == best.chosen("train.micro_batch_size")
    assert plan["data"]["steps"] == best.steps
    assert plan["data"]["tokens_seen"] == best.tokens
    assert plan["time"]["hours"] == pytest.approx(best.hours)
    assert sum(plan["memory_gib"]["by_component"].values()) == pytest.approx(best.planned.needed.expected / 2**30)


def test_it_reads_back_equal(eight_hours: backwards.Answer, tmp_path: Path) -> None:
    """The config that is written is the config that was planned."""
    file = tmp_path / "answer.yaml"
    file.write_text(eight_hours.yaml(), encoding="utf-8")
    assert load(file) == eight_hours.best.config


def test_it_fills_the_hours_and_fits(eight_hours: backwards.Answer) -> None:
    """The answer takes the eight hours, to a step, and no more memory than there is."""
    best = eight_hours.best
    assert best.hours == pytest.approx(8, abs=2 * best.planned.step.step_s / 3600)
    assert best.planned.needed.fits(card())


def test_no_other_size_is_better(eight_hours: backwards.Answer) -> None:
    """Half and twice the size, given the same hours, have a higher loss by the same laws."""
    best, smaller, larger = eight_hours.best, eight_hours.smaller, eight_hours.larger
    assert smaller is not None
    assert larger is not None
    assert smaller.n_params < 0.8 * best.n_params < 1.25 * best.n_params < larger.n_params
    assert best.loss.expected < smaller.loss.expected
    assert best.loss.expected < larger.loss.expected


def test_it_is_near_the_optimum_of_the_arithmetic_that_the_hours_hold(eight_hours: backwards.Answer) -> None:
    """With 6 N D arithmetic at the speed that it has, Hoffmann's closed form (eq. 4) asks for about the same size."""
    best = eight_hours.best
    least, _, most = sorted(law.optimum(6 * best.n_params * best.tokens)[0] for law in scaling_laws.LAWS)
    assert 0.6 * least < best.n_params < 1.6 * most


@pytest.mark.parametrize("hours", [0.02, 8, 200])
def test_batch_and_rate_are_the_recipes(hours: float) -> None:
    """The batch is the power of two nearest to 0.58 · D^0.571 tokens of the tokens that are seen, and the rate is
    1.79 · N^−0.713 · D^0.307, no higher than 4e-3, down to 1e-5."""
    best = backwards.search(card(), hours=hours).best
    train = best.config.train
    assert 2**-0.5 <= train.batch_size / (0.58 * best.tokens**0.571 / 1024) <= 2**0.5
    rate = 1.79 * best.non_embedding**-0.713 * best.tokens**0.307
    assert train.learning_rate == pytest.approx(min(rate, 4e-3), rel=0.02)
    assert train.min_learning_rate == 1e-5


def test_more_hours_make_a_larger_model_and_more_tokens() -> None:
    """A hundred times the time goes into both, about tenfold each (Hoffmann et al. 2022: equal scaling)."""
    short, long = backwards.search(card(), hours=1), backwards.search(card(), hours=100)
    assert 4 < long.best.n_params / short.best.n_params < 20
    assert 5 < long.best.tokens / short.best.tokens < 25


def test_little_text_makes_another_answer() -> None:
    """With 100M different tokens for a day, dropout is on, and the loss is higher than with text without end."""
    without, few = backwards.search(card(), hours=24), backwards.search(card(), hours=24, tokens_available=100_000_000)
    assert few.best.config.model.dropout == 0.1
    assert without.best.config.model.dropout is None
    assert few.best.loss.expected > without.best.loss.expected + 0.1


def test_text_is_not_repeated_for_nothing() -> None:
    """A day could repeat a million tokens thousands of times: it ends after 40, and the config says that it needs less
    time. As many tokens as are asked for are trained on, and it is said how many would do."""
    best = (answer := backwards.search(card(), hours=24, tokens_available=1_000_000)).best
    assert 39_000_000 < best.tokens <= 40_000_000
    assert best.hours < 0.1  # a larger model would be no better
    reason = answer.reasons["train.tokens"]
    assert reason.startswith("each 40 times, beyond which nothing is gained: ")
    assert reason.endswith(" tokens/s, of the 24 h that there are")
    answer = backwards.search(card(), tokens=100_000_000, tokens_available=1_000_000)
    assert answer.reasons["train.tokens"].endswith("; but 40.0M would do: beyond 40 times each, nothing is gained")
    assert "beyond 40 times" in answer.best.extrapolated


@pytest.mark.parametrize("vocab_size", [65, 50_257])
def test_a_loss_is_given_where_planning_the_answer_gives_one(vocab_size: int) -> None:
    """One rule says where the laws speak, and the text of a vocabulary of 65 is nothing like theirs."""
    best = backwards.search(card(), hours=24, vocab_size=vocab_size).best
    loss = closed_form.plan(best.config, device=card()).get("loss")
    assert (loss is None) == bool(best.extrapolated) == (vocab_size == 65)


@pytest.mark.parametrize(
    ("asked", "said"), [({"hours": 1e300}, "--hours is 1e+300"), ({"tokens": 10**30}, "--tokens is 1e+30")]
)
def test_more_than_anybody_trains_is_refused(asked: dict[str, Any], said: str) -> None:
    """Neither an overflow nor a search without end."""
    with pytest.raises(ConfigError) as raised:
        backwards.search(card(), **asked)
    assert str(raised.value) == (
        f"ConfigError: {said}, for which no model can be searched\n"
        "  where  ganeum plan\n"
        f"  why    it must be above 0, and no more than {1e6 if 'hours' in asked else 1e16:g}\n"
        "  try    --hours 8, or --tokens 2B"
    )


def test_two_billion_tokens() -> None:
    """An author's rule of 20 tokens a parameter made 100M parameters of 2 billion tokens; so does the search."""
    best = backwards.search(card(), tokens=2_000_000_000).best
    assert best.n_params == pytest.approx(100e6, rel=0.15)
    assert best.tokens == pytest.approx(2e9, rel=1e-3)


def test_the_authors_own_hundred_million_are_54() -> None:
    """12 layers × 512 with 32,000 tokens: 3.15M a layer, not 7M; 54M parameters tied, 70.5M untied."""
    own = change(
        Config(),
        {
            "model.n_layer": 12,
            "model.n_head": 8,
            "model.n_embd": 512,
            "model.block_size": 50,
            "model.vocab_size": 32_000,
        },
    ).model
    layer = 4 * 512 * 512 + 2 * 4 * 512 * 512  # queries, keys, values, output; up, down
    assert layer == 3_145_728
    small = (2 * 12 + 1) * 512 + 50 * 512  # norms' scales, positions
    assert parameters.of(ours.architecture(own)).total == 12 * layer + 32_000 * 512 + small == 54_171_136
    untied = own.model_copy(update={"tie_embeddings": False})
    assert parameters.of(ours.architecture(untied)).total == 54_171_136 + 32_000 * 512 == 70_555_136


def test_a_size_that_is_asked_for() -> None:
    """With a size and tokens, the nearest shape is taken and the hours are what it takes."""
    best = backwards.search(card(), parameters=100e6, tokens=2_000_000_000, vocab_size=32_000).best
    assert best.n_params == pytest.approx(100e6, rel=0.05)
    assert best.config.model.vocab_size == 32_000
    assert best.hours > 1


def test_another_optimizer_and_context() -> None:
    """Optimizer, context and data are as asked, and the config stays one that loads."""
    best = backwards.search(card(), hours=2, optimizer="muon", context=512, directory="data/text").best
    assert best.config.train.optimizer == "muon"
    assert best.config.model.block_size == 512
    assert best.config.data.directory == "data/text"


def test_the_page_fits_80_columns_and_says_why(eight_hours: backwards.Answer) -> None:
    """Nothing is cut off at 80 columns; the neighbours, the source and the loss are there."""
    out = io.StringIO()
    Console(file=out, width=80).print(backwards.show(eight_hours))
    text = out.getvalue()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    for said in ("smaller", "larger", "Li et al.", "nats a token of web", "tokens/s"):
        assert said in text


def test_json(eight_hours: backwards.Answer) -> None:
    """A program gets the question, the config, the figures and the neighbours."""
    found = json.loads(json.dumps(eight_hours.as_dict()))
    assert set(found) == {"question", "config", "choices", "best", "smaller", "larger"}
    assert Config.model_validate(found["config"]) == eight_hours.best.config
    assert found["best"]["hours_low"] < found["best"]["hours"] < found["best"]["hours_high"]
    assert "Hoffmann et al. 2022" in found["best"]["loss"]["law"]
    assert found["best"]["loss"]["low"] < found["best"]["loss"]["expected"] < found["best"]["loss"]["high"]


ERRORS = {
    "neither": (
        {},
        """\
ConfigError: nothing says how much may be trained
  where  ganeum plan
  why    the best model for a card depends on how long it may train
  try    --hours 8, or --tokens 2B""",
    ),
    "both": (
        {"hours": 8.0, "tokens": 10},
        """\
ConfigError: hours and tokens are both given
  where  ganeum plan
  why    each says when a training ends; the other follows from the speed
  try    one of them""",
    ),
    "too large": (
        {"hours": 8.0, "parameters": 70e9},
        """\
ConfigError: a model of 70.0B parameters does not fit into RTX 4080
  where  --parameters 70.0B
  why    the largest that fits has {largest}
  try    --parameters {largest}, a shorter context, or a larger card""",
    ),
    "too small": (
        {"hours": 8.0, "parameters": 100e3},
        """\
ConfigError: a model of 100.0k parameters is too small to have a shape
  where  --parameters 100.0k
  why    the smallest has 2.2M, with a vocabulary of 32,768
  try    --parameters 2.2M, or a smaller vocabulary""",
    ),
    "an optimizer": (
        {"hours": 8.0, "optimizer": "sgd"},
        """\
ConfigError: for the optimizer sgd there is no rule for the learning rate
  where  optimizer=sgd
  why    the rule is AdamW's, and holds where updates have its size
  try    optimizer=adamw or optimizer=adamw8bit or optimizer=muon""",
    ),
    "an instant": (
        {"hours": 1e-9},
        """\
ConfigError: there is not time for a single step
  where  --hours 1e-09
  try    more of it""",
    ),
}


def test_more_tokens_than_the_card_has_room_for() -> None:
    """For tokens that are the optimum of a model far too large, the largest that fits is taken, and that is said."""
    answer = backwards.search(card(8.0), tokens=1_000_000_000_000)
    assert answer.best.planned.needed.fits(card(8.0))
    assert answer.larger is None
    assert "parameters, the largest that fit; these tokens are the optimum for " in answer.reasons["model.n_embd"]


def test_a_name_that_a_directory_can_have() -> None:
    """Whatever the device is called, the run's name is one."""
    odd = Device("Intel(R) Xeon(R) CPU @ 2.20GHz / 2", "cpu", 8.0, 6.0, {"fp32": 1e11})
    best = backwards.search(odd, hours=0.1, context=64, vocab_size=4096).best
    assert best.config.name == "intel-r-xeon-r-cpu-2.20ghz-2-6min"


@pytest.mark.parametrize("case", ERRORS)
def test_bad_questions(case: str) -> None:
    """What cannot be answered is said in full."""
    asked, text = ERRORS[case]
    with pytest.raises(GaneumError) as caught:
        backwards.search(card(), **asked)
    largest = re.search(r"largest that fits has (\S+)", str(caught.value))
    assert str(caught.value) == (text.format(largest=largest[1]) if largest else text)


def test_nothing_fits() -> None:
    """A card without memory for any model says so."""
    with pytest.raises(GaneumError) as caught:
        backwards.search(card(memory_gib=0.9), hours=1, vocab_size=200_000)
    assert str(caught.value) == (
        "DeviceError: no model fits into RTX 4080\n"
        "  where  gpu\n"
        "  why    0.10 GiB are usable\n"
        "  try    a shorter context, or a smaller vocabulary"
    )


def test_an_unknown_speed() -> None:
    """Without the card's rates there is no answer, and what measures them is said."""
    slow = Device("A Card", "cuda", 16.0, 15.0, {}, capability=(8, 0))
    with pytest.raises(GaneumError) as caught:
        backwards.search(slow, hours=1)
    assert str(caught.value) == (
        "DeviceError: how fast A Card is is not known\n"
        "  where  gpu\n"
        "  why    without its speed nobody can say how many tokens some hours hold\n"
        "  try    ganeum gpus --measure, on the machine that has it"
    )


def test_the_page_shows_what_is_printed() -> None:
    """Every command of docs/backwards.md prints what stands there: python -m ganeum.cli.examples docs/backwards.md."""
    page = (ROOT / "docs" / "backwards.md").read_text(encoding="utf-8")
    assert page == refreshed(page, ROOT)


def test_torch_is_not_loaded() -> None:
    """A backwards plan needs no torch."""
    code = "import sys, ganeum.plan.backwards, ganeum.plan.emit; assert not {'torch', 'rich'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
