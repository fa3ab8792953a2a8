"""Every tracker sees what metrics.jsonl holds, also after a death, and never a key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_corpus import go, metrics

from ganeum.errors import MissingExtra, RunError


def test_tensorboard_reads_each_step_once_after_a_resume(yaml: Path) -> None:
    """Points that a process wrote after its last checkpoint and before its death are void for TensorBoard too."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from ganeum.train import loop

    save, saves = loop.Loop._save, []

    def dies_at_the_third(self: loop.Loop) -> Path:
        saves.append(self.progress.step)
        if len(saves) == 3:
            raise SystemExit
        return save(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Loop, "_save", dies_at_the_third)
        with pytest.raises(SystemExit):
            go(yaml)
    assert saves == [4, 5, 8]
    go(yaml)
    events = EventAccumulator("results/tiny/logs").Reload()
    points = events.Scalars("loss")
    assert [(p.step, pytest.approx(p.value, rel=1e-6)) for p in points] == [
        (m["step"], m["loss"]) for m in metrics("tiny")
    ]


def test_wandb_that_is_not_installed_gives_the_pip_line(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before there is a directory."""
    from ganeum.train import trackers

    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as error:
        go(yaml, "wandb.project=p")
    assert str(error.value) == (
        "MissingExtra: log.wandb.project is set, and the package wandb is not installed\n"
        '  try    pip install "ganeum[wandb]", or log.wandb.project=null'
    )
    assert not Path("results/tiny").exists()


def test_wandb_without_a_key_says_where_it_is_looked_for(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Online, with the package and no key in the environment or `.env`: before there is a directory."""
    from ganeum.train import trackers

    monkeypatch.setattr(trackers, "find_spec", lambda name: True)
    monkeypatch.setenv("WANDB_API_KEY", "")  # put back afterwards
    with pytest.raises(RunError) as error:
        go(yaml, "wandb.project=p")
    assert str(error.value) == (
        "RunError: Weights & Biases needs a key, and there is none\n"
        "  where  WANDB_API_KEY, in the environment or in .env\n"
        "  try    a line WANDB_API_KEY=… in .env, or log.wandb.mode=offline (`wandb sync` sends it later)"
    )
    assert not Path("results/tiny").exists()


def test_wandb_offline_is_one_run_and_knows_no_key(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id outlives a resume, and the key from `.env` is in no file of the run."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "")  # put back afterwards
    key = "0123456789abcdef" * 2 + "01234567"
    Path(".env").write_text(f"WANDB_API_KEY={key}\n")
    go(yaml, "wandb.project=p", "wandb.mode=offline", "max_iters=8")
    first = json.loads(Path("results/tiny/logs/wandb.json").read_text())
    go(yaml, "wandb.project=p", "wandb.mode=offline", "max_iters=12")
    assert first == json.loads(Path("results/tiny/logs/wandb.json").read_text())
    runs = {path.name.rpartition("-")[2] for path in Path("results/tiny/logs/wandb").glob("offline-run-*")}
    assert runs == {first["id"]}
    for path in Path("results").rglob("*"):
        assert not path.is_file() or key.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("package", ["mlflow", "trackio"])
def test_a_package_that_is_not_installed_gives_the_pip_line(
    yaml: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """Before there is a directory."""
    from ganeum.train import trackers

    key = {"mlflow": "log.mlflow.experiment", "trackio": "log.trackio.project"}[package]
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as error:
        go(yaml, f"{key}=p")
    assert str(error.value) == (
        f"MissingExtra: {key} is set, and the package {package} is not installed\n"
        f'  try    pip install "ganeum[{package}]", or {key}=null'
    )
    assert not Path("results/tiny").exists()


HUGGING_FACE = {"loss", "learning_rate", "grad_norm", "epoch"}  # on a logged step; at the end:
AT_THE_END = {
    "train_runtime",
    "train_samples_per_second",
    "train_steps_per_second",
    "train_loss",
    "total_flos",
    "epoch",
}


def test_the_summary_knows_hugging_faces_names(yaml: Path) -> None:
    """20 steps of 8 sequences of 32 tokens; the loss is the mean over all steps."""
    summary, _ = go(yaml, "log.interval=1")
    planned = json.loads(Path("results/tiny/plan.json").read_text())
    assert AT_THE_END <= summary.keys()
    assert summary["train_runtime"] == summary["elapsed_s"]
    assert summary["train_samples_per_second"] == pytest.approx(20 * 8 / summary["elapsed_s"])
    assert summary["train_steps_per_second"] == pytest.approx(20 / summary["elapsed_s"])
    assert summary["total_flos"] == 20 * 8 * 32 * planned["flops"]["per_token"]
    assert summary["epoch"] == 20 / planned["data"]["steps_per_epoch"]
    losses = [line["loss"] for line in metrics("tiny")]
    assert summary["train_loss"] == pytest.approx(sum(losses) / 20, rel=1e-6)
    epochs, _ = go(yaml, "name=epochs", "data.order=epochs", "train.epochs=0.2", "log.interval=1")
    more, _ = go(yaml, "name=epochs", "data.order=epochs", "train.epochs=1.1", "log.interval=1")
    assert more["epoch"] > 1 > epochs["epoch"]
    losses = [line["loss"] for line in metrics("epochs")]
    assert more["train_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)


def test_mlflow_in_a_directory_is_one_run(yaml: Path, here: Path) -> None:
    """The same run after a resume; parameters flat, our names and Hugging Face's, each step's numbers as logged."""
    mlflow = pytest.importorskip("mlflow")
    options = ("mlflow.experiment=e", f"mlflow.tracking_uri={here / 'tracked'}")
    go(yaml, *options, "max_iters=8")
    first = json.loads(Path("results/tiny/logs/mlflow.json").read_text())
    summary, _ = go(yaml, *options, "max_iters=12")
    assert first == json.loads(Path("results/tiny/logs/mlflow.json").read_text())
    client = mlflow.MlflowClient(f"sqlite:///{here / 'tracked' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("e")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (first["run_id"], "tiny", "FINISHED") == (run.info.run_id, run.info.run_name, run.info.status)
    assert ("8", "0.003") == (run.data.params["train.batch_size"], run.data.params["train.learning_rate"])
    assert {
        "eval_loss",
        "val_loss",
        "val_bpb",
        "tokens_per_second",
        *HUGGING_FACE,
        *AT_THE_END,
    } <= run.data.metrics.keys()
    assert run.data.metrics["train_loss"] == pytest.approx(summary["train_loss"])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m["step"], m["loss"]) for m in metrics("tiny")] == [(point.step, point.value) for point in history]


def test_mlflows_server_is_asked_before_there_is_a_run(yaml: Path) -> None:
    """Nobody listens at that address: the text, in seconds, and no directory."""
    pytest.importorskip("mlflow")
    with pytest.raises(RunError) as error:
        go(yaml, "mlflow.experiment=e", "mlflow.tracking_uri=http://127.0.0.1:9")
    lines = str(error.value).splitlines()
    assert lines[0].startswith("RunError: MLflow cannot be used: API request to http://127.0.0.1:9/")
    assert lines[1:] == [
        "  where  http://127.0.0.1:9",
        "  try    log.mlflow.tracking_uri=mlflow writes to a directory of that name; "
        "log.mlflow.experiment=null does without it",
    ]
    assert not Path("results/tiny").exists()


def test_mlflow_that_is_lost_on_the_way_ends_nothing(yaml: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said once, the training goes on, and what was sent before stands."""
    mlflow = pytest.importorskip("mlflow")
    whole = mlflow.MlflowClient.log_batch

    def goes_away(self: object, run_id: str, metrics: list[object] = (), **others: object) -> None:  # type: ignore[assignment]
        if metrics and metrics[0].step > 6:  # type: ignore[attr-defined]
            raise mlflow.exceptions.MlflowException("API request failed: connection refused\nand more")
        whole(self, run_id, metrics, **others)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", goes_away)
    summary, shown = go(yaml, "mlflow.experiment=e", f"mlflow.tracking_uri={here / 'tracked'}")
    assert summary["steps"] == 20
    assert 1 == shown.count(
        "MLflow gets no more of this run until it is started again: API request failed: connection refused\n"
    )


def test_trackio_is_one_run(yaml: Path, here: Path) -> None:
    """In a directory of this machine, the same run after a resume, and nothing of it on standard output; another
    run of that name, after --overwrite, is a new one."""
    pytest.importorskip("trackio")
    code = (
        "import sys\nfrom ganeum import train\n"
        "for steps in (8, 12):\n    train('tiny.yaml', f'max_iters={steps}', 'trackio.project=p', stream=sys.stderr)\n"
        "train('tiny.yaml', 'max_iters=4', 'trackio.project=p', stream=sys.stderr, overwrite=True)\n"
        "import json, trackio\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        "runs = SQLiteStorage.get_run_records('p')\n"
        "print(json.dumps([SQLiteStorage.get_logs('p', 'tiny', run_id=run['id']) for run in runs]))"
    )
    environment = os.environ | {"TRACKIO_DIR": str(here / "trackio")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    runs = sorted(json.loads(done.stdout), key=len)
    last = {name: value for line in runs[1] for name, value in line.items()}
    assert {"eval_loss", "val_loss", "val_bpb", *HUGGING_FACE, *AT_THE_END} <= last.keys()
    steps = [[line["step"] for line in lines if "loss" in line] for lines in runs]
    assert [[1, 2, 4], [1, 2, 4, 5, 6, 8, 10, 12]] == steps
