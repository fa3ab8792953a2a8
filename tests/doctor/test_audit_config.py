"""A config is audited by planning it twice; a YAML file for Hugging Face's Trainer by its keys."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ganeum.config import load
from ganeum.doctor import audit
from ganeum.doctor.audit import config, foreign
from ganeum.doctor.finding import Finding, Report
from ganeum.errors import ConfigError
from ganeum.hardware.card import card

ROOT = Path(__file__).parents[2]
SANE = ("train.max_iters=20000", "model.n_layer=12", "model.n_head=12", "model.n_embd=768", "model.block_size=1024")


def audited(*settings: str, file: str = "base.yaml", gpu: str = "RTX 4090", tokens: int = 4_000_000_000) -> Report:
    given = settings if file != "base.yaml" else (*SANE, *settings)
    return audit.report(config.read(load(ROOT / "configs" / file, given), card(gpu), tokens), file)


def found(cause: str, report: Report) -> Finding | None:
    return next((finding for finding in report.findings if finding.cause == cause), None)


def test_a_sane_config_has_nothing_to_change() -> None:
    """GPT-2's size on 4B tokens with everything left free, on a card that it is meant for."""
    assert () == audited().alarms


@pytest.mark.parametrize(
    ("setting", "cause", "least"),
    [
        ("train.precision=fp32", "fp32", 1.5),
        ("train.compile=false", "not_compiled", 1.1),
        ("train.micro_batch_size=1", "small_micro_batch", 1.05),
        ("train.activation_checkpointing=whole", "checkpointing_for_nothing", 1.1),
    ],
)
def test_a_setting_that_costs_time_is_told_with_its_price(setting: str, cause: str, least: float) -> None:
    """The ratio of two plans, with the key and what would be chosen; the same key left free is silent."""
    finding = found(cause, audited(setting))
    assert finding is not None
    assert finding.size is not None
    assert ("computed", setting.partition("=")[0]) == (finding.sure, finding.where)
    assert finding.size > least
    assert found(cause, audited(setting.partition("=")[0] + "=auto")) is None


def test_texts_in_every_few_steps_are_told() -> None:
    """128 tokens a text, one after the other; with every evaluation they are no finding."""
    finding = found("too_often", audited("sample.interval=5", "sample.num_samples=2"))
    assert finding is not None
    assert ("texts are generated every 5 steps", "sample.interval") == (finding.title, finding.where)
    assert ("256 tokens, one after the other, each with a pass of its own",) == finding.evidence
    assert found("too_often", audited()) is None


def test_data_on_a_network_s_disk_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Linux lists its mounts; on this machine's own disk nothing is."""
    for kind, told in (("nfs4", "note"), ("ext4", None)):
        (tmp_path / "mounts").write_text(f"server:/data {tmp_path} {kind} rw 0 0\n")
        monkeypatch.setattr("ganeum.hardware.mounts.MOUNTS", tmp_path / "mounts")
        finding = found("slow_disk", audited(f"data.directory={tmp_path}"))
        assert (finding and finding.severity) == told


def test_the_price_is_that_of_two_plans() -> None:
    """Checked against `ganeum plan`, asked twice."""
    import ganeum

    file = ROOT / "configs" / "base.yaml"
    slow, fast = (
        ganeum.plan(file, *SANE, f"train.compile={free}", gpu="RTX 4090", tokens=4_000_000_000)["time"]["step_s"]
        for free in ("false", "auto")
    )
    finding = found("not_compiled", audited("train.compile=false"))
    assert finding is not None
    assert finding.size == pytest.approx(slow / fast)


def test_the_book_of_one_text_is_told_its_overlap() -> None:
    """32 tokens, 4 apart: exactly 8 times the steps of an epoch; and that it is learnt by heart."""
    report = audited(file="one_book.yaml", tokens=130_520)
    overlap = found("overlapping_windows", report)
    assert overlap is not None
    assert 8 == overlap.size
    assert "repeated_text" in [finding.cause for finding in report.alarms]
    assert found("overlapping_windows", audited("data.stride=auto", file="one_book.yaml", tokens=130_520)) is None


def test_every_warning_of_the_plan_has_a_cause() -> None:
    """Only those about learning fall under `learning`: a look that is renamed is seen here."""
    for start in config.CAUSES:
        texts = "".join(path.read_text() for path in (ROOT / "src/ganeum/plan/critique").glob("*.py"))
        assert (
            start.replace("fp32 leaves", "leaves")
            .replace("tf32 leaves", "leaves")
            .replace("it may not fit", "not fit")
            .replace("it does not fit", "not fit")
            in texts
        ), start


TEAM = """
tokenization:
  max_length: 320
  padding: "max_length"
training:
  per_device_train_batch_size: 2
  dataloader_num_workers: 8
  dataloader_pin_memory: true
  dataloader_prefetch_factor: 2
  save_steps: 10
  seed: 42
"""


def test_a_file_for_the_trainer_is_read_by_its_keys() -> None:
    """Somebody's own YAML: keys wherever they stand, each finding with its line; a default is no finding."""
    report = audit.report(foreign.read(foreign.settings(TEAM, "training.yml")), "training.yml")
    assert [("padding", "training.yml, line 4"), ("too_often", "training.yml, line 10")] == sorted(
        (finding.cause, finding.where) for finding in report.alarms
    )
    assert any("dataloader_prefetch_factor=2: the default" in text for text in report.without_effect)
    clean = TEAM.replace('"max_length"', "false").replace("save_steps: 10", "save_steps: 500")
    assert () == audit.report(foreign.read(foreign.settings(clean, "training.yml")), "").alarms


def test_a_yaml_file_without_a_known_key_is_an_error() -> None:
    """It says what to do instead; a learning rate alone may be anybody's."""
    for text in ("a: 1\nb: [2, 3]\n", "learning_rate: 0.05\n"):
        with pytest.raises(ConfigError, match="no key in it is known"):
            foreign.settings(text, "other.yml")


def test_rates_and_evaluations_in_a_file_for_the_trainer() -> None:
    """A rate and a warm-up that no model bears; an evaluation with each logged step, where it has none of its own."""
    rates = "bf16: true\noptim: adamw_torch_fused\nlearning_rate: 5e-2\nwarmup_ratio: 1.0\n"
    often = "eval_strategy: steps\nlogging_steps: 5\n"
    for text, causes in (
        (rates + often, ["learning", "schedule", "too_often"]),
        (rates.replace("5e-2", "5e-5").replace("1.0", "0.1") + often + "eval_steps: 500\n", []),
        (often.replace("steps\n", "epoch\n", 1), []),
    ):
        report = audit.report(foreign.read(foreign.settings(text, "training.yml")), "training.yml")
        assert causes == sorted(finding.cause for finding in report.alarms)


def test_a_wrong_key_in_a_config_of_ours_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key of Trainer's beside it makes no file for Trainer of it: the wrong key would be passed over."""
    from ganeum.cli.doctor.config import command

    file = tmp_path / "mine.yaml"
    file.write_text("model: {n_layer: 6}\ntrain: {dtype: float32, gradient_checkpointing: true}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"there is no key train\.dtype"):
        command([str(file)], "RTX 4090")
    assert "" == capsys.readouterr().out


def test_the_command_prints_and_writes_the_same(tmp_path: Path) -> None:
    """Text, --json and -o alike; a file that is neither ours nor the Trainer's is our own error about it."""
    team = tmp_path / "training.yml"
    team.write_text(TEAM)
    out = tmp_path / "doctor.json"
    command = [sys.executable, "-m", "ganeum", "doctor", "config", str(team), "-o", str(out)]
    text = subprocess.run(command, capture_output=True, text=True)
    assert (0, "") == (text.returncode, text.stderr)
    assert "every row is filled up to the longest that is allowed" in text.stdout
    printed = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert json.loads(printed.stdout) == json.loads(out.read_text())
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("train:\n  batchsize: 8\n")
    error = subprocess.run([*command[:5], str(wrong)], capture_output=True, text=True)
    assert 2 == error.returncode
    assert error.stderr.startswith("ConfigError: ")
