"""plan.json, what it warns of, and how it is shown."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ganeum.config import to_yaml
from ganeum.config.change import change
from ganeum.config.schema import Config, Data, Model, Train
from ganeum.errors import DeviceError
from ganeum.hardware import look
from ganeum.hardware.device import Device
from ganeum.plan.closed_form import plan
from ganeum.plan.page.render import show

TOKENS = 130_520
ONE_BOOK = Config(
    name="one_book",
    model=Model(n_layer=12, n_head=12, n_embd=768, block_size=32, bias=True, qkv_bias=False, tie_embeddings=False),
    data=Data(directory="data/book", order="epochs", stride=4),
    train=Train(batch_size=128, epochs=20),
)
YAML = """\
model: {n_layer: 12, n_head: 12, n_embd: 768, block_size: 32, bias: true, qkv_bias: false, tie_embeddings: false}
data: {directory: data/book, order: epochs, stride: 4}
train: {batch_size: 128, epochs: 20}
"""
CPU = Device("a CPU", "cpu", 64.0, 50.0, {"fp32": 1e11}, "matrix products measured on this machine")
UNMEASURED = Device("a CPU", "cpu", 64.0, 50.0)
GPU = Device(
    "NVIDIA GeForce RTX 3080",
    "cuda",
    10.0,
    9.0,
    {"fp32": 29.8e12, "tf32": 29.8e12, "fp16": 59.5e12, "bf16": 59.5e12},
    "the catalogue",
    capability=(8, 6),
    memory_bandwidth_gb_s=760,
)


def warned(config: Config, device: Device = CPU, tokens: int | None = TOKENS, **more: Any) -> dict[str, dict[str, str]]:
    """The warnings of a plan by what they say."""
    return {w["what"]: w for w in plan(config, device=device, tokens=tokens, **more)["warnings"]}


def changed(section: str, **values: object) -> Config:
    """Document 000's config with other values in one section."""
    part = getattr(ONE_BOOK, section).model_copy(update=values)
    return ONE_BOOK.model_copy(update={section: part})


def test_document_000s_plan() -> None:
    """The figures of document 000's run, right: 162,247,680 parameters, 3.05 TFLOP a step, 32,622 windows, 254 steps an
    epoch, 5,080 in all."""
    found = plan(ONE_BOOK, device=CPU, tokens=TOKENS, vocab_size=50_257)
    assert json.loads(json.dumps(found)) == found
    assert found["method"] == "closed_form"
    assert found["parameters"]["total"] == 162_247_680
    assert found["flops"]["per_step"] == pytest.approx(3.05e12, rel=1e-3)
    assert found["flops"]["total"] == found["flops"]["per_step"] * 5_080
    data = found["data"]
    assert (32_622, 254, 5_080, 20.0) == tuple(data[k] for k in ("windows", "steps_per_epoch", "steps", "epochs"))
    assert data["repeats_per_token"] == pytest.approx(159.4, abs=0.05)
    batch = {"batch_size": 128, "micro_batch_size": 128, "gradient_accumulation_steps": 1, "tokens_per_step": 4096}
    assert batch.items() <= found["batch"].items()
    assert "time" not in plan(ONE_BOOK, device=UNMEASURED, tokens=TOKENS)


def test_the_sum_is_that_of_the_runs_config_yaml() -> None:
    """config_sha256 is what `sha256sum config.yaml` prints in the run's directory."""
    expected = hashlib.sha256(to_yaml(ONE_BOOK).encode()).hexdigest()
    assert expected == plan(ONE_BOOK, device=CPU)["config_sha256"]


def test_time_from_a_measured_step() -> None:
    """With a step measured at 6.77 s, document 000's run takes 9.55 h at 605 tokens/s, as its log says."""
    time = plan(ONE_BOOK, device=GPU, tokens=TOKENS, vocab_size=50_257, step_s=34_414.43 / 5_080)["time"]
    assert time["hours"] == pytest.approx(34_414.43 / 3600)
    assert time["tokens_per_second"] == pytest.approx(604.6, abs=0.1)
    assert time["mfu"] == pytest.approx(604.6 * 744_731_136 / 59.5e12, rel=1e-3)


def test_hours_are_steps_and_evaluations() -> None:
    """5,080 steps of a second and 200 s of evaluations are 5,280 s; whoever reads it sees where that comes from."""
    found = plan(ONE_BOOK, device=GPU, tokens=TOKENS, step_s=1.0, evaluations_s=200.0, time_source="a guess")["time"]
    assert found["hours"] == pytest.approx(5_280 / 3600)
    assert found["source"] == "a guess"


def test_a_plan_compiles_where_training_does() -> None:
    """A quarter of the steps' uncompiled time against a minute: one step more than that, and the plan's is compiled;
    `compile: false` and a CPU are not."""
    gpu, config = GPU, changed("train", epochs=None)
    eager = planned(config, gpu, compile=False, max_iters=1)["time"]["step_s"]
    enough = math.floor(60 / (0.25 * eager)) + 1
    for steps, compiled in ((enough - 1, False), (enough, True)):
        found = planned(config, gpu, max_iters=steps)
        assert ("train.compile" in {choice["key"] for choice in found["choices"]}) is compiled
        assert (found["time"]["step_s"] < eager) is compiled
        assert (found["time"]["step_s"] == eager) is not compiled
    assert planned(config, gpu, compile=False, max_iters=enough)["time"]["step_s"] == eager
    assert "train.compile" not in {choice["key"] for choice in planned(config, CPU, max_iters=10**9)["choices"]}


def test_what_is_missing_here_is_missing_in_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card in this machine cannot compile without Triton; of a catalogue's card that says nothing."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    gpu, config = GPU, changed("train", epochs=None, max_iters=10**7)
    assert "train.compile" in {choice["key"] for choice in planned(config, gpu)["choices"]}
    assert "train.compile" not in {choice["key"] for choice in planned(config, replace(gpu, here=True))["choices"]}


def planned(config: Config, device: Device, **train: object) -> dict[str, Any]:
    return plan(change(config, {f"train.{key}": value for key, value in train.items()}), device=device, tokens=TOKENS)


def test_memory_is_planned_as_it_will_be_measured() -> None:
    """A GPU's allocator counts tensors; a CPU's process also holds what it held before there was a model."""
    gib = 2**30
    gpu, cpu = (plan(ONE_BOOK, device=device, tokens=TOKENS, held_bytes=gib)["memory_gib"] for device in (GPU, CPU))
    assert gpu["peak_allocated"] == gpu["tensors"] > 16 * 162_247_680 / gib
    assert cpu["peak_allocated"] == cpu["tensors"] + cpu["framework"] + 1
    for found in (gpu, cpu):
        assert found["low"] <= found["peak_allocated"] <= found["high"]
        assert found["tensors"] == pytest.approx(sum(found["by_component"].values()))
    assert "peak_allocated" not in plan(ONE_BOOK, device=CPU, tokens=TOKENS)["memory_gib"]


def test_nothing_is_made_up() -> None:
    """Without data and without a known peak, what depends on them is absent, not null or zero."""
    unknown = Device("a GPU of next year", "cuda", 100.0, 99.0, capability=(13, 0))
    found = plan(ONE_BOOK, device=unknown, step_s=1.0)
    assert not {"tokens", "windows", "steps", "repeats_per_token"} & set(found["data"])
    assert "total" not in found["flops"]
    assert set(found["time"]) == {"step_s", "tokens_per_second", "source"}
    assert "null" not in json.dumps(found)


def test_what_is_auto_is_chosen_with_a_reason() -> None:
    """Vocabulary and micro-batch are chosen and listed after the choices made before; a value that was set is not."""
    before = {"key": "device", "value": "cpu", "reason": "there is no GPU"}
    found = plan(ONE_BOOK, device=CPU, tokens=TOKENS, vocab_size=50_257, choices=[before])
    chosen = ["train.precision", "train.activation_checkpointing", "train.micro_batch_size"]
    assert [before["key"], "model.vocab_size", *chosen] == [c["key"] for c in found["choices"]]
    settled = changed("model", vocab_size=1000)
    assert chosen == [c["key"] for c in plan(settled, device=CPU)["choices"]]


def test_document_000_is_told_before_it_starts() -> None:
    """Its run is called what it is: 8 epochs in one, each token seen 159 times, text that the weights can hold by
    heart, 43 hours on a CPU of 100 GFLOP/s."""
    found = warned(ONE_BOOK.model_copy(update={"train": Train(batch_size=128, epochs=20, precision="fp32")}))
    overlap = found["the windows overlap, so an epoch is several"]
    assert overlap["figure"] == "windows of 32 tokens start 4 apart: each token is trained on 8 times an epoch"
    assert overlap["try"] == "data.stride=auto: 4,078 windows, 31 steps an epoch instead of 254"
    assert found["the same text is repeated more often than it teaches"]["figure"].startswith(
        "each token is seen 159.4 times;"
    )
    assert "0.0008 tokens a parameter" in found["the model has room to learn the text by heart"]["figure"]
    long = found["it will take long"]["figure"]  # 3.0504e12 · 5,080 / 1e11 = 154,961 s
    assert long.startswith("15.5 PFLOP at this device's 100 GFLOP/s are 1 d 19 h at the very least, and about 4 d")
    assert "a token is predicted from the 32 before it at most" in found["the context is short"]["figure"]
    assert found["much of the model is vocabulary"]["figure"] == (
        "77.2M of 162.2M parameters and 31% of the arithmetic"
    )


def test_missing_data_comes_first() -> None:
    """That the data is missing is the first thing said, with what was assumed and the ways out."""
    first = plan(ONE_BOOK, device=CPU)["warnings"][0]
    assert first == {
        "severity": "error",
        "what": "there is no data in data/book yet",
        "figure": "windows, steps per epoch and repeats are not known; the vocabulary is taken to be GPT-2's 50,257",
        "try": "prepare it (ganeum prepare PATH… --out data/book --tokenizer gpt2), or give its size: --tokens N",
    }


def test_a_directory_with_a_script_of_its_own(tmp_path: Path) -> None:
    """Where the data's directory has a prepare.py, that is the way."""
    (tmp_path / "prepare.py").touch()
    config = ONE_BOOK.model_copy(update={"data": ONE_BOOK.data.model_copy(update={"directory": str(tmp_path)})})
    first = plan(config, device=CPU)["warnings"][0]
    assert first["try"] == f"prepare it (python {tmp_path}/prepare.py), or give its size: --tokens N"


def test_a_corpus_too_small() -> None:
    """Text shorter than a window, or an epoch shorter than a batch, is an error with the number to change."""
    short = warned(ONE_BOOK, tokens=32)["the text is shorter than one window"]
    assert ("error", "32 tokens; a window needs model.block_size + 1 = 33") == (short["severity"], short["figure"])
    few = warned(ONE_BOOK, tokens=133)["an epoch is shorter than one batch"]  # (133 - 33) // 4 + 1 = 26 windows
    assert ("26 windows, and train.batch_size is 128", "train.batch_size=26 at most, or data.order=random") == (
        few["figure"],
        few["try"],
    )


def test_precision_and_batch_on_a_gpu() -> None:
    """fp32 on a card with tensor cores is pointed out, with the factor; so is a batch small for the weights' update."""
    found = warned(changed("train", precision="fp32"), GPU)
    assert found["fp32 leaves most of this device unused"]["figure"] == (
        "it multiplies bf16 2 times as fast: 59.5 TFLOP/s instead of 29.8 TFLOP/s"
    )
    # 28 B · 162,247,680 / 760e9 B/s are 6 ms at the least: little of the whole batch's step, a third of an eighth's
    small = "the batch is small for the model: much of each step goes into the update of the weights"
    assert small not in warned(ONE_BOOK, GPU)
    config = changed("train", batch_size=16)
    time = plan(config, device=GPU, tokens=TOKENS)["time"]
    share = time["by_part"]["optimizer"] / time["step_s"]
    assert share > 0.25
    assert f"about {share:.0%} of the step" in warned(config, GPU)[small]["figure"]


def test_a_sensible_run_is_left_in_peace() -> None:
    """A run with enough text, no overlap and a context has nothing to mind."""
    config = Config(model=Model(vocab_size=8192), train=Train(batch_size=64, tokens=300e6))
    assert warned(config, GPU, tokens=300_000_000) == {}


def shown(config: Config, width: int = 100, **more: Any) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(show(plan(config, device=CPU, **more)))
    return console.export_text()


def test_the_page_at_80_columns() -> None:
    """The page fits 80 columns and holds the figures."""
    text = shown(ONE_BOOK, width=80, tokens=TOKENS, vocab_size=50_257)
    assert max(map(len, text.splitlines())) <= 80
    for figure in ("162,247,680", "32,622", "5,080", "159.4 times", "3.05 T", "Chosen", "To mind"):
        assert figure in text


def test_the_page_without_data() -> None:
    """Without data the page says so and still shows the model."""
    text = shown(ONE_BOOK)
    assert "data/book is not prepared" in text
    assert "162,247,680" in text


def run(arguments: list[str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    (tmp_path / "one_book.yaml").write_text(YAML)
    command = [sys.executable, "-m", "ganeum", "plan", *arguments]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_the_command(tmp_path: Path) -> None:
    """`ganeum plan` prints a page, or the JSON with --json, which -o also writes."""
    done = run(["one_book.yaml", "--tokens", "130520", "device=cpu", "--json", "-o", "plan.json"], tmp_path)
    assert (0, "") == (done.returncode, done.stderr)
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "plan.json").read_text())
    assert (162_247_680, 5_080) == (found["parameters"]["total"], found["data"]["steps"])
    page = run(["one_book.yaml", "--epochs", "2", "device=cpu", "--explain"], tmp_path)
    assert (0, "") == (page.returncode, page.stderr)
    assert "there is no data in data/book yet" in " ".join(page.stdout.split())
    assert "12·4·32·12·64" in page.stdout


def test_the_command_refuses_what_is_no_config(tmp_path: Path) -> None:
    """No config, or two, are refused with status 2 and nothing on standard output."""
    for arguments, what in ([["seed=1"], "no config is named"], [["a.yaml", "b.yaml"], "one config is planned"]):
        done = run(list(arguments), tmp_path)
        assert (2, "") == (done.returncode, done.stdout)
        assert f"ConfigError: {what}" in done.stderr


def test_the_command_needs_no_torch() -> None:
    """A plan is made without importing torch."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import ganeum.cli.plan, ganeum.plan.page.explain, ganeum.plan.page.render, ganeum.plan.corpus\n"
        "from ganeum.plan.closed_form import plan; from ganeum.hardware import look; from ganeum.config import Config\n"
        "print(plan(Config(), device=look('cpu'), tokens=10_000)['method'])\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "closed_form\n"


def test_an_absent_device_is_refused() -> None:
    """A plan for a GPU that is not here is refused, not made for another device."""
    with pytest.raises(DeviceError):
        look("cuda:99")
