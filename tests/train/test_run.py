"""Runs from their first start to their end: what they write, and what the same command does afterwards."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_corpus
from safetensors.torch import load_file
from tiny_corpus import go, metrics

from ganeum.config import load_stored
from ganeum.errors import ConfigError, RunError
from ganeum.record import RunDirectory, making
from ganeum.train import checkpoint


def test_a_run_leaves_what_the_contract_says(yaml: Path) -> None:
    """Every path of DESIGN §5 that training writes is there, and the loss went down."""
    summary, shown = go(yaml)
    there = {str(path.relative_to("results/tiny")).split(".tfevents")[0] for path in Path("results/tiny").rglob("*")}
    assert {
        *("config.yaml", "plan.json", "environment.json", "tokenizer", "status.json", "summary.json"),
        *("logs/metrics.jsonl", "logs/console.log", "logs/events.out", "samples/step-00000010.txt"),
        *("checkpoints/latest", "checkpoints/best", "checkpoints/step-00000020/model.safetensors"),
        *("checkpoints/step-00000020/training_state.pt", "checkpoints/step-00000020/meta.json"),
    } <= there
    assert not [path for path in there if "/." in f"/{path}"], "nothing temporary is left"
    lines = metrics("tiny")
    assert [line["step"] for line in lines] == [1, 2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 20]
    assert abs(lines[0]["loss"] - math.log(257)) < 0.1
    assert lines[-1]["loss"] < 4.0
    assert summary["val_loss"] == lines[-1]["val_loss"]
    assert json.loads(Path("results/tiny/status.json").read_text())["state"] == "finished"
    for text in ("[Step 1] Tokens seen: 256, Total elapsed:", "Training Finished!\nTotal Training Time:"):
        assert text in shown
    assert shown == Path("results/tiny/logs/console.log").read_text()


def test_the_parts_of_a_step_add_up_to_it(yaml: Path) -> None:
    """data + forward + backward + optimizer + other = step_time_s, and the rate is tokens over that time."""
    go(yaml)
    for line in metrics("tiny"):
        parts = sum(line[f"{name}_s"] for name in ("data", "forward", "backward", "optimizer", "other"))
        assert line["step_time_s"] == pytest.approx(parts, rel=1e-6)
        assert line["tokens_per_second"] == pytest.approx(256 / line["step_time_s"], rel=1e-6)


def test_bits_per_byte_count_the_bytes_of_the_evaluated_targets(yaml: Path) -> None:
    """With a tokenizer of bytes, bits per byte are nats per token / ln 2."""
    summary, _ = go(yaml)
    assert summary["val_loss"] / math.log(2) == pytest.approx(summary["val_bpb"])


def test_the_same_command_again_says_that_it_is_finished(yaml: Path) -> None:
    """With the figures, and nothing is trained."""
    first, _ = go(yaml)
    before = Path("results/tiny/logs/metrics.jsonl").stat().st_mtime_ns
    again, shown = go(yaml)
    assert again == json.loads(json.dumps(first))
    assert shown.startswith(f"tiny is finished: 20 steps, 5.1k tokens, loss {first['loss']:.4f}; best validation loss")
    assert before == Path("results/tiny/logs/metrics.jsonl").stat().st_mtime_ns


def test_a_raised_length_goes_on(yaml: Path) -> None:
    """max_iters 20 → 24: four more steps from the last checkpoint."""
    go(yaml)
    summary, shown = go(yaml, "max_iters=24")
    assert summary["steps"] == 24
    assert "going on from step 20" in shown
    assert metrics("tiny")[-1]["step"] == 24


@pytest.mark.parametrize(
    ("length", "steps"),
    [("tokens=2000", 8), ("epochs=0.1", None)],
    ids=["tokens", "epochs"],
)
def test_length_in_tokens_and_epochs(yaml: Path, data: Path, length: str, steps: int | None) -> None:
    """2,000 tokens at 256 a step are 8 steps; a tenth of an epoch is a tenth of the windows that fit once."""
    windows = (len(np.fromfile(data / "train.bin", "<u2")) - 33) // 32 + 1
    summary, _ = go(yaml, length)
    assert summary["steps"] == (steps or math.ceil(0.1 * (windows // 8)))


def test_hours_become_steps_once(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured before the start on a throwaway model, kept in config.yaml, and not measured again on a resume."""
    from ganeum.train import pace

    monkeypatch.setattr(pace, "MEASURE_S", 0.1)
    summary, _ = go(yaml, "hours=0.0005", "log.interval=10", "sample.interval=0")
    stored = load_steps()
    assert summary["steps"] == stored > 0
    chosen = {choice["key"]: choice for choice in json.loads(Path("results/tiny/plan.json").read_text())["choices"]}
    assert chosen["train.max_iters"]["value"] == stored
    assert "measured before the start" in chosen["train.max_iters"]["reason"]
    monkeypatch.setattr(pace, "measure", None)
    again, shown = go(yaml, "hours=0.0005", "log.interval=10", "sample.interval=0")
    assert again["steps"] == stored
    assert "is finished" in shown


def load_steps() -> int:
    return load_stored("results/tiny/config.yaml").train.max_iters or 0


def test_measuring_the_pace_changes_nothing_of_the_run(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps by max_iters and by hours: the same weights, bit for bit."""
    from ganeum.train import pace

    monkeypatch.setattr(pace, "MEASURE_S", 0.0)
    monkeypatch.setattr(pace.Pace, "steps_in", lambda self, hours: 8)
    go(yaml, "hours=1", "name=by_hours", "eval_interval=4")
    go(yaml, "max_iters=8", "name=by_steps", "eval_interval=4")
    one, other = (
        load_file(f"results/{name}/checkpoints/step-00000008/model.safetensors") for name in ("by_hours", "by_steps")
    )
    assert all((one[name] == other[name]).all() for name in other)


def test_epochs_end_with_their_average_and_times(yaml: Path) -> None:
    """`order: epochs`: each epoch's end prints document 000's lines; the average is that of the steps' losses."""
    _, shown = go(yaml, "data.order=epochs", "data.stride=16", "epochs=2", "batch_size=256", "log.interval=1")
    losses = [line["loss"] for line in metrics("tiny")]
    per_epoch = len(losses) // 2
    assert f"Epoch 1 completed.\n ➤ Avg Loss: {sum(losses[:per_epoch]) / per_epoch:.4f}\n ➤ Epoch Time: " in shown
    assert f"Epoch 2 completed.\n ➤ Avg Loss: {sum(losses[per_epoch:]) / per_epoch:.4f}\n" in shown
    assert " ➤ Total Time Elapsed: " in shown


def test_without_val_bin_nothing_is_evaluated(here: Path) -> None:
    """The run says so, trains, keeps the newest checkpoints, and none is the best."""
    bare = tiny_corpus.write(here / "bare", val_words=0)
    summary, shown = go(tiny_corpus.config(bare, here / "bare.yaml"))
    assert "There is no val.bin: nothing is evaluated" in shown
    assert (summary["val_loss"], summary["best_step"]) == (None, None)
    assert not Path("results/bare/checkpoints/best").exists()
    assert checkpoint.steps(RunDirectory(Path("results/bare"))) == [20, 16]


def test_early_stopping_keeps_the_best(yaml: Path) -> None:
    """A learning rate that ruins the model: after `patience` evaluations without a better one the run is over, and the
    best checkpoint is still there although keep_last is 1."""
    ruinous = ["learning_rate=0.3", "schedule=constant", "warmup_iters=8", "max_iters=60"]
    overrides = [*ruinous, "patience=2", "eval_interval=1", "keep_last=1", "checkpoint_interval=5"]
    summary, shown = go(yaml, *overrides)
    assert summary["ended_by"] == "patience"
    assert summary["steps"] == summary["best_step"] + 2 < 60
    assert "Stopped early" in shown
    run = RunDirectory(Path("results/tiny"))
    assert (run.checkpoints_dir / "best").read_text() == f"step-{summary['best_step']:08d}\n"
    assert checkpoint.check(run.checkpoint_dir(summary["best_step"]))
    assert go(yaml, *overrides)[0]["steps"] == summary["steps"]
    longer, _ = go(yaml, *(text for text in overrides if "max_iters" not in text), "max_iters=80")
    assert longer["steps"] > summary["steps"], "a raised length goes on"


def test_keep_last_bounds_the_disk(yaml: Path) -> None:
    """20 steps, a checkpoint every 2, keep_last 3: three remain (the last is the best one here)."""
    go(yaml, "checkpoint_interval=2", "keep_last=3")
    assert checkpoint.steps(RunDirectory(Path("results/tiny"))) == [20, 18, 16]


def test_eval_only_evaluates_what_is_there(yaml: Path) -> None:
    """The latest checkpoint of the run, or init_from in a new one: as the training's last evaluation found it."""
    trained, _ = go(yaml)
    evaluated, shown = go(yaml, "eval_only=true")
    assert evaluated["val_loss"] == pytest.approx(trained["val_loss"], abs=1e-9)
    assert shown.startswith("tiny, step-00000020: validation loss ")
    assert json.loads(Path("results/tiny/status.json").read_text())["state"] == "finished"
    other, _ = go(yaml, "eval_only=true", "name=other", "init_from=results/tiny/checkpoints/step-00000020")
    assert other["val_loss"] == pytest.approx(trained["val_loss"], abs=1e-9)
    assert not Path("results/other").exists(), "the name stays free for a training"
    assert go(yaml, "name=other", "init_from=tiny")[0]["steps"] == 20


def test_eval_only_of_nothing_is_refused(yaml: Path) -> None:
    """No run, no init_from: an error, and no directory."""
    with pytest.raises(RunError) as error:
        go(yaml, "eval_only=true")
    assert str(error.value) == (
        "RunError: there is nothing to evaluate: tiny is no run yet, and nothing says where to start from\n"
        "  try    train.init_from=…, or the config of a run that exists"
    )
    assert not Path("results/tiny").exists()


def test_init_from_starts_with_those_weights(yaml: Path) -> None:
    """A new run from another's checkpoint begins where that one ended, with a new optimizer and step 0."""
    trained, _ = go(yaml)
    go(yaml, "name=second", "init_from=tiny", "learning_rate=1e-6")
    first = metrics("second")[0]
    assert first["step"] == 1
    assert first["loss"] == pytest.approx(trained["val_loss"], abs=0.4)


def test_a_vocabulary_smaller_than_the_datas_is_refused(yaml: Path, data: Path) -> None:
    """Before there is a directory."""
    with pytest.raises(ConfigError) as error:
        go(yaml, "vocab_size=100")
    assert str(error.value) == (
        "ConfigError: model.vocab_size is 100, but the data has 257 tokens\n"
        f"  where  {data}\n"
        "  why    the model would have no embedding for some of them\n"
        "  try    model.vocab_size: auto"
    )
    assert not Path("results/tiny").exists()


@pytest.mark.parametrize("length", ["max_iters=60", "tokens=15360"])
def test_what_is_planned_is_measured_and_shown_beside_it(yaml: Path, length: str) -> None:
    """Step, rate, MFU, hours and memory of an ordinary run; lengthened, the hours are planned for all steps."""
    names = ("step_s", "tokens_per_second", "mfu", "hours", "peak_allocated_gib")
    summary, shown = go(yaml, length, "sample.interval=0")
    found = summary["planned_and_measured"]
    assert all(found[name]["planned"] and found[name]["measured"] for name in names)
    assert summary["time_planned_from"] == "measured before the start"
    assert all(word in shown.partition("off by")[2] for word in ("\na step", "tokens/s", "MFU", "in all", "allocated"))
    planned = summary["planned_and_measured"]["hours"]["planned"]
    longer, _ = go(yaml, "max_iters=120", "sample.interval=0")
    assert longer["planned_and_measured"]["hours"]["planned"] == pytest.approx(2 * planned)


def test_a_short_run_is_not_measured_before(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 steps: its time is the closed form's, from whatever is known of the device."""
    from ganeum.train import pace

    monkeypatch.setattr(pace, "measure", None)
    summary, _ = go(yaml)
    planned = json.loads(Path("results/tiny/plan.json").read_text())
    assert summary["time_planned_from"] == planned.get("time", {}).get("source") != "measured before the start"


def test_a_death_before_config_yaml_has_its_name_loses_no_choice(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """plan.json is on the disk by then, and is not in the way of the next start."""

    def dies(*_: object) -> None:
        assert json.loads(Path("results/tiny/plan.json").read_text())["choices"]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(making, "write_atomic", dies)
        with pytest.raises(KeyboardInterrupt):
            go(yaml)
    go(yaml)
    assert json.loads(Path("results/tiny/plan.json").read_text())["choices"]


@pytest.mark.parametrize("length", ["tokens=2000", "max_iters=8"])
def test_a_warm_up_longer_than_the_run_is_told(yaml: Path, length: str) -> None:
    """As in Hugging Face's trainer the rate goes up to the end: a file's 500 steps with --max_steps 10 are a trial."""
    go(yaml, length, "warmup_iters=100")
    assert load_stored("results/tiny/config.yaml").train.warmup_iters == 100
    warnings = json.loads(Path("results/tiny/plan.json").read_text())["warnings"]
    (warning,) = (warning for warning in warnings if warning["what"] == "the warm-up is longer than the run")
    assert warning["figure"] == (
        "train.warmup_iters is 100, and there are 8 steps: the learning rate ends at 8% of its peak"
    )
