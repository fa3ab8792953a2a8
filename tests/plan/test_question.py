"""What `ganeum plan` can be asked, its answers in every form, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

import ganeum
from ganeum.cli import main
from ganeum.cli.examples import refreshed
from ganeum.errors import ConfigError, GaneumError
from ganeum.hardware import catalogue
from ganeum.plan.question import compare
from ganeum.plan.question.ask import Answer, Question, answer, emitted
from ganeum.plan.question.compare import Prices

CONFIG = """\
model: {n_layer: 12, n_head: 12, n_embd: 768, block_size: 1024, vocab_size: 50257}
data: {directory: nothing/here}
train: {batch_size: 64, max_iters: 1000, eval_tokens: 65536}
"""


@pytest.fixture(autouse=True)
def run_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "run.yaml").write_text(CONFIG)
    return tmp_path / "run.yaml"


def ask(*gpus: str, words: Sequence[str] = ("run.yaml",), **more: Any) -> Any:
    """The answer as a program gets it."""
    return json.loads(answer(Question(words=words, gpus=gpus, **more)).json())


def shown(found: Answer, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(found.text())
    return console.export_text()


def typed(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `ganeum plan`."""
    with pytest.raises(SystemExit) as end:
        main(["plan", *arguments])
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


def test_hours_and_money_are_the_arithmetic_of_the_plan() -> None:
    """Steps by the time of one are the hours; hours by the card's 450 W are its energy; each by its price is money."""
    plan = ask("RTX 4090", prices=Prices(per_hour=0.4, per_kwh=0.3))
    time, cost = plan["time"], plan["cost"]
    assert time["hours"] * 3600 >= 1000 * time["step_s"]  # the evaluations come on top: 10 · 65,536 tokens
    assert time["hours"] * 3600 == pytest.approx(1000 * time["step_s"], rel=0.02)
    assert time["tokens_per_second"] == pytest.approx(64 * 1024 / time["step_s"])
    assert time["low"] < time["step_s"] < time["high"]
    assert cost["kwh"] == pytest.approx(time["hours"] * 0.45)
    assert cost["energy"] == pytest.approx(cost["kwh"] * 0.3)
    assert cost["rent"] == pytest.approx(time["hours"] * 0.4)


def test_two_cards_stand_side_by_side_with_what_changes() -> None:
    """The second card is compared with the first, in figures that are those of the two plans."""
    small, large = ask("RTX 3070"), ask("RTX 4090")
    found = answer(Question(words=["run.yaml"], gpus=["RTX 3070", "RTX 4090"]))
    assert json.loads(found.json()) == [small, large]
    text = shown(found)
    assert max(map(len, text.splitlines())) <= 80
    times = large["time"]["tokens_per_second"] / small["time"]["tokens_per_second"]
    sentence = " ".join(text.split("With ")[1].split())
    at_once = f"{large['batch']['micro_batch_size']} at once instead of {small['batch']['micro_batch_size']}"
    assert sentence.startswith(f"GeForce RTX 4090: {at_once}; ")
    assert f"; {times:.2g} times as fast; " in sentence
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert ["GeForce RTX 3070", "GeForce RTX 4090"] == [row["gpu"] for row in rows]
    assert [small["time"]["step_s"], large["time"]["step_s"]] == [
        pytest.approx(plan["time"]["tokens_per_second"] / float(row["tokens_per_second"]) * plan["time"]["step_s"])
        for plan, row in zip((small, large), rows, strict=True)
    ]


def test_a_slower_card_takes_longer() -> None:
    """The other way round it is not a fraction as fast: it takes so many times as long."""
    small, large = ask("RTX 3070"), ask("RTX 4090")
    times = large["time"]["tokens_per_second"] / small["time"]["tokens_per_second"]
    assert f"; it takes {times:.2g} times as long; " in compare.changes(large, small)


def test_hundreds_of_times_are_written_out() -> None:
    """A CPU of 0.1 TFLOPS beside an RTX 4090: no 1.2e+03."""
    assert "e+" not in compare.changes(ask("RTX 4090"), ask("Slow: 24GB, bf16 0.1 TFLOPS, bandwidth 10 GB/s"))


def test_little_energy_is_not_none() -> None:
    """Six minutes of a card are 0.0457 kWh, and not 0.0."""
    column = next(column for column in compare.COLUMNS if column.key == "kwh")
    assert [column.cell({"kwh": kwh}) for kwh in (0.0457, 34.56, 12_345.6)] == ["0.0457", "34.6", "12,346"]


def test_a_price_takes_a_length() -> None:
    """Rent of a model whose training has no length cannot be told, and what would tell it is said."""
    with pytest.raises(ConfigError) as caught:
        ask("RTX 4090", words=["t5-base"], prices=Prices(per_hour=2))
    assert str(caught.value) == (
        "ConfigError: what it costs is not known\n"
        "  where  ganeum plan t5-base\n"
        "  why    nothing says how long it is trained\n"
        "  try    --tokens 300M, or --hours 8"
    )
    assert ask("RTX 4090", words=["t5-base"], prices=Prices(per_hour=2), hours=3)["cost"]["rent"] == pytest.approx(
        6, rel=0.01
    )


def test_one_of_a_thing_is_no_plural() -> None:
    """A batch of one sequence of one token."""
    alone = ["batch_size=1", "block_size=1", "n_layer=1", "n_head=1", "n_embd=16"]
    one = ["batch_size=1", "length=1", "source_length=1"]
    for word, settings in (("run.yaml", alone), ("t5-small", one), ("gpt2", one[:2])):
        text = " ".join(shown(answer(Question(words=[word], gpus=["RTX 4090"], settings=settings))).split())
        assert "1 sequence a step = 1 at once × 1; 1 token" in text
        assert not re.search(r"(?<![\d.,])1 (sequences|tokens)\b", text)


def test_nothing_changes_between_equal_cards() -> None:
    """Beside itself a card changes nothing, and that is what is said."""
    plan = ask("RTX 4090")
    assert compare.changes(plan, plan) == "With GeForce RTX 4090: nothing changes."


def test_what_changes_names_every_lever() -> None:
    """A card that is too small, one of an older kind and one with more room differ in all that is listed."""
    small, old, large = ask("RTX 2060 6GB"), ask("GTX 1080 Ti"), ask("A100 SXM4 80GB")
    assert "fp32 instead of fp16" in compare.changes(small, old)
    assert "bf16 instead of fp32" in compare.changes(old, large)
    too_large = ask("RTX 2060 6GB", settings=["n_layer=48", "n_embd=1600", "n_head=25"])
    enough = ask("A100 SXM4 80GB", settings=["n_layer=48", "n_embd=1600", "n_head=25"])
    assert "GeForce RTX 2060 6GB: it does not fit" in compare.changes(enough, too_large)
    assert compare.changes(too_large, enough).startswith("With A100 SXM4 80GB: it fits; ")


def test_which_gpu_lists_those_that_it_fits_on_the_smallest_first() -> None:
    """A model of 1.6 billion parameters fits on no 16 GB card in fp32 state, and is listed on larger ones only."""
    shape = ["n_layer=48", "n_embd=1600", "n_head=25"]
    found = ask(words=["run.yaml"], which_gpu=True, settings=shape)
    sizes = [row["memory_gib"] for row in found]
    assert sizes == sorted(sizes, key=round)
    assert min(sizes) > 24  # 16 bytes · 1.56e9 parameters are 23.2 GiB before the first activation
    assert all(row["fits"] for row in found)
    assert "A100 SXM4 80GB" in {row["gpu"] for row in found}
    every = sum(len(gpu.memory_gib) for gpu in catalogue.gpus())
    small = answer(Question(words=["run.yaml"], which_gpu=True, settings=["n_layer=1", "n_embd=64", "n_head=1"]))
    assert f"Fits on {every} of {every} cards, the smallest first" in shown(small, 100)


@pytest.mark.parametrize("question", [{}, {"gpus": ["RTX 3070", "RTX 4090"]}, {"which_gpu": True}])
def test_every_answer_has_every_form(question: dict[str, Any]) -> None:
    """Text of 80 columns, Markdown with a table, CSV with a head, JSON."""
    found = answer(Question(words=["run.yaml"], **question))
    assert max(map(len, shown(found).splitlines())) <= 80
    assert "| --" in found.markdown()
    assert len(list(csv.reader(io.StringIO(found.csv())))) >= 3
    assert json.loads(found.json())


def test_one_plan_as_csv_is_the_same_figures() -> None:
    """Each line is a key of plan.json and its value."""
    found = answer(Question(words=["run.yaml"], gpus=["RTX 4090"]))
    plan, lines = json.loads(found.json()), dict(csv.reader(io.StringIO(found.csv())))
    assert lines["parameters.total"] == str(plan["parameters"]["total"]) == "124337664"
    assert float(lines["memory_gib.high"]) == plan["memory_gib"]["high"]
    assert lines["choices.0.key"] == plan["choices"][0]["key"]


def test_the_memory_of_the_page_is_the_plans() -> None:
    """The page gives the peak, its bounds, the device's room and each component."""
    plan = ask("RTX 4090")
    memory, text = plan["memory_gib"], " ".join(shown(answer(Question(words=["run.yaml"], gpus=["RTX 4090"]))).split())
    assert f"{memory['peak_allocated']:.2f} GiB at the fullest moment, {memory['at']}: {memory['low']:.2f} to" in text
    assert f"{plan['device']['usable_gib']:.2f} GiB usable" in text
    for name, part in memory["by_component"].items():
        if part >= 0.005:
            assert f"{part:.2f} GiB {name.replace('_', ' ')} " in text


def bar(text: str) -> str:
    """The forty characters in front of what is usable."""
    return next(line for line in text.splitlines() if "GiB usable" in line).split()[0]


def test_the_bar_is_drawn_to_scale() -> None:
    """Forty characters are all that is usable: expected, up to the bound, left; and beyond it, what is lacking."""
    plan = ask("RTX 3070")
    memory, usable = plan["memory_gib"], plan["device"]["usable_gib"]
    drawn = bar(shown(answer(Question(words=["run.yaml"], gpus=["RTX 3070"]))))
    assert len(drawn) == 40
    assert drawn.count("█") == round(40 * memory["peak_allocated"] / usable)
    assert drawn.count("▒") == 40 - round(40 * memory["high"] / usable)
    lacking = ["n_layer=48", "n_embd=1600", "n_head=25"]
    memory = ask("RTX 3070", settings=lacking)["memory_gib"]
    drawn = bar(shown(answer(Question(words=["run.yaml"], gpus=["RTX 3070"], settings=lacking))))
    assert drawn.count("×") == 40 - round(40 * usable / memory["high"])
    assert drawn.strip("×") == "█" * (40 - drawn.count("×"))


def test_a_directory_of_a_run_is_its_config(tmp_path: Path) -> None:
    """What a run trained with can be planned for another card by naming its directory."""
    run = tmp_path / "results" / "one"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(CONFIG)
    assert ask("RTX 4090", words=[str(run)])["parameters"]["total"] == 124_337_664


def test_the_name_of_a_run_is_its_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ganeum plan one` plans results/one; a well-known model keeps its name."""
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path / "runs"))
    for name in ("one", "gpt2"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").write_text(CONFIG)
    assert ask("RTX 4090", words=["one"])["parameters"]["total"] == 124_337_664
    assert ask("RTX 4090", words=["gpt2"])["model"]["family"] == "gpt2"


def test_a_config_can_be_planned_for_more_than_training() -> None:
    """Without gradients and state the same network needs less than a third of the memory for one sequence."""
    training = ask("RTX 4090", settings=["micro_batch_size=1"])["memory_gib"]
    inference = ask("RTX 4090", purpose="inference")
    assert inference["parameters"]["total"] == 124_337_664
    assert "gradients" in training["by_component"]
    assert not {"gradients", "optimizer"} & set(inference["memory_gib"]["by_component"])


def test_emitting_a_config_that_trains(tmp_path: Path) -> None:
    """The YAML for ganeum train is planned to the same figures; that of another trainer is one section of YAML."""
    question = Question(words=["run.yaml"], gpus=["RTX 3070"])
    plan = json.loads(answer(question).json())
    (tmp_path / "again.yaml").write_text(emitted(question, "ganeum"))
    again = ask("RTX 3070", words=["again.yaml"])
    for part in ("parameters", "batch", "memory_gib", "time"):
        assert again[part] == plan[part]
    (section,) = yaml.safe_load(emitted(question, "hf")).values()
    assert section["training"]["per_device_train_batch_size"] == plan["batch"]["micro_batch_size"]
    assert json.loads(emitted(question, "deepspeed"))["train_batch_size"] == 64


def test_a_search_without_a_config_answers_with_one(tmp_path: Path) -> None:
    """Hours and a card are enough: the answer is a config whose plan takes those hours on that card."""
    question = Question(gpus=["RTX 4080"], hours=2, tokens_available="1B", settings=["block_size=512"])
    assert 512 == json.loads(answer(question).json())["config"]["model"]["block_size"]
    (tmp_path / "best.yaml").write_text(emitted(question, "ganeum"))
    plan = ask("RTX 4080", words=["best.yaml"], tokens="1B")
    assert plan["time"]["hours"] == pytest.approx(2, rel=0.03)
    assert plan["memory_gib"]["fits"]


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


def test_the_command_prints_what_the_question_answers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Options become the question; -o writes the JSON, or what is emitted, to a file besides."""
    status, out, _ = typed("run.yaml", "--gpu", "RTX 4090", "--json", "-o", "plan.json", capsys=capsys)
    assert status == 0
    assert json.loads(out) == json.loads((tmp_path / "plan.json").read_text()) == ask("RTX 4090")
    status, out, _ = typed("run.yaml", "--gpus", "RTX 3070,RTX 4090", "--format", "csv", capsys=capsys)
    assert out == answer(Question(words=["run.yaml"], gpus=["RTX 3070", "RTX 4090"])).csv() + "\n"
    status, out, _ = typed("run.yaml", "--gpu", "RTX 4090", "--emit", "deepspeed", "-o", "ds.json", capsys=capsys)
    assert (
        out
        == (tmp_path / "ds.json").read_text()
        == emitted(Question(words=["run.yaml"], gpus=["RTX 4090"]), "deepspeed")
    )


def test_a_card_with_its_own_figures_is_one_card(capsys: pytest.CaptureFixture[str]) -> None:
    """The commas inside a card's figures do not part cards."""
    own = "My Card: 24GB, bf16 165 TFLOPS, bandwidth 1008 GB/s"
    _, out, _ = typed("run.yaml", "--gpus", own, "--json", capsys=capsys)
    assert json.loads(out)["device"]["name"] == "My Card"


def test_where_it_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that is not there is named."""
    status, out, err = typed("run.yaml", "--gpu", "RTX 4090", "--json", "-o", "none/plan.json", capsys=capsys)
    assert (2, "") == (status, out)
    assert err == ("ConfigError: the plan cannot be written: No such file or directory\n  where  none/plan.json\n")
    status, out, err = typed("run.yaml", "--gpu", "RTX 4090", "--json", "-o", ".", capsys=capsys)
    assert (2, "") == (status, out)
    assert err == ("ConfigError: the plan cannot be written: Is a directory\n  where  .\n")


def test_a_link_is_written_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`-o /dev/stdout` and other links and devices are written to, and are what they were."""
    (tmp_path / "kept.json").touch()
    (tmp_path / "link.json").symlink_to("kept.json")
    typed("run.yaml", "--gpu", "RTX 4090", "-o", "link.json", capsys=capsys)
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "kept.json").read_text()) == ask("RTX 4090")


def test_a_question_is_never_answered_with_a_traceback() -> None:
    """Sizes no card can hold and names of nothing end in an error that says so, or in a plan that says it."""
    for settings in (["n_embd=100000", "n_head=1", "n_layer=1000"], ["block_size=10000000"], ["batch_size=1"]):
        found = ask("RTX 3070", settings=settings)
        assert found["memory_gib"]["fits"] == (settings == ["batch_size=1"])
    with pytest.raises(GaneumError):
        answer(Question(words=["run.yaml"], gpus=[""]))


def test_a_model_by_its_name_from_python() -> None:
    """`ganeum.plan("t5-base", …)` is the plan of the command; a file that is not there is still a config's."""
    found = ganeum.plan("t5-base", "length=64", gpu="RTX 4090")
    assert (found["parameters"]["total"], found["model"]["length"]) == (222_903_552, 64)
    assert found["batch"] == ask("RTX 4090", words=["t5-base"], settings=["length=64"])["batch"]
    with pytest.raises(ConfigError, match=r"there is no config nothing\.yaml"):
        ganeum.plan("nothing.yaml")


def test_the_page_shows_what_is_printed() -> None:
    """Every command of docs/plan.md prints what stands there: python -m ganeum.cli.examples docs/plan.md."""
    root = Path(__file__).parents[2]
    if any((root / "data" / name / "train.bin").exists() for name in ("one_book", "tinystories")):
        pytest.skip("data is prepared here, and the plan knows it")
    page = (root / "docs" / "plan.md").read_text(encoding="utf-8")
    assert refreshed(page, root) == page
