"""`ganeum runs`: whole output, from the files of the runs alone."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from ganeum.cli import main
from ganeum.config import Config
from ganeum.config.schema import Model, Train
from ganeum.record import MetricsLog, Status, create, write_json


def run(name: str, state: str | None, *, n_layer: int = 2, loss: float = 2.0, alive: bool = True) -> None:
    config = Config(name=name, model=Model(n_layer=n_layer), train=Train(max_iters=5000))
    directory, _, _ = create(config, config)
    directory.release()
    if state is not None:
        with MetricsLog(directory.metrics_path) as log:
            log.write({"step": 900, "loss": loss + 1, "val_loss": 2.5, "val_bpb": 1.25, "elapsed_s": 100.0})
            log.write({"step": 1000, "loss": loss, "tokens_per_second": 12345.6, "elapsed_s": 111.0})
        write_json(directory.plan_path, {"parameters": {"total": 162_247_680}})
        status = Status.of_this_process(state, 1000)  # type: ignore[arg-type]
        (status if alive else Status(status.state, 1000, None, status.pid, 1.0, status.boot_id)).write(
            directory.status_path
        )
    for path in (directory.config_path, directory.status_path, directory.metrics_path):
        if path.exists():
            os.utime(path, (1_700_000_000, 1_700_000_000))


@pytest.fixture
def three() -> None:
    run("beta", "finished", n_layer=4, loss=1.5)
    run("alpha", "running", alive=False)
    run("gamma", None)


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    with pytest.raises(SystemExit) as exit:
        main(["runs", *arguments])
    captured = capsys.readouterr()
    assert status == exit.value.code, captured.err
    return "\n".join(line.rstrip() for line in (captured.err if status else captured.out).splitlines())


def test_the_table(three: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Every run with what is known of it; one whose process is gone has died."""
    moment = datetime.fromtimestamp(1_700_000_000).strftime("%m-%d %H:%M")
    assert said(capsys).splitlines() == [
        "run    state            step    loss  val loss  val bpb  tokens/s        time  params  modified",
        f"alpha  died      1,000/5,000  2.0000    2.5000    1.250    12,346  1 min 51 s  162.2M  {moment}",
        f"beta   finished  1,000/5,000  1.5000    2.5000    1.250    12,346  1 min 51 s  162.2M  {moment}",
        f"gamma  new           0/5,000                                                           {moment}",
    ]


def test_the_same_as_json(three: None, capsys: pytest.CaptureFixture[str]) -> None:
    """--json gives every figure unrounded."""
    alpha = json.loads(said(capsys, "--json"))[0]
    assert alpha.pop("hours") == pytest.approx(111 / 3600)
    assert alpha == {
        "name": "alpha",
        "state": "died",
        "step": 1000,
        "max_iters": 5000,
        "loss": 2.0,
        "val_loss": 2.5,
        "val_bpb": 1.25,
        "tokens_per_second": 12345.6,
        "parameters": 162_247_680,
        "modified": 1_700_000_000.0,
        "error": None,
    }


@pytest.mark.parametrize(
    ("names", "arguments"),
    [
        (["alpha", "beta", "gamma"], []),
        (["gamma", "beta", "alpha"], ["--sort", "-name"]),
        (["beta", "alpha", "gamma"], ["--sort", "loss"]),
        (["alpha", "beta", "gamma"], ["--sort=-loss"]),
        (["beta"], ["--filter", "state=finished"]),
        (["beta"], ["--filter", "n_layer=4"]),
        (["alpha"], ["--filter", "model.n_layer=2", "--filter", "state=died"]),
        ([], ["--filter", "state=failed"]),
    ],
)
def test_sorted_and_filtered(
    three: None, capsys: pytest.CaptureFixture[str], names: list[str], arguments: list[str]
) -> None:
    """By any column, unknown values last; by columns and keys of the config."""
    assert names == [row["name"] for row in json.loads(said(capsys, *arguments, "--json"))]


def test_no_runs(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is nothing, it says so and what to do."""
    assert f"there are no runs yet in {results}; `ganeum demo` makes one" == said(capsys)
    run("one", None)
    assert f"no run is so in {results}" == said(capsys, "--filter", "state=failed")


def test_a_damaged_run_is_shown_as_such(three: None, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run whose files are damaged does not hide the others."""
    (results / "alpha/config.yaml").write_text("{")
    (results / "beta/status.json").write_text("{")
    (results / "beta/plan.json").write_text("[]")
    rows = json.loads(said(capsys, "--json"))
    assert [("alpha", "unreadable"), ("beta", "new"), ("gamma", "new")] == [(row["name"], row["state"]) for row in rows]


def test_what_cannot_be_sorted_or_filtered_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """The columns there are, and the form of a filter."""
    assert said(capsys, "--sort", "colour", status=2) == (
        "RunError: runs cannot be sorted by colour\n  where  --sort\n"
        "  try    name, state, step, loss, val_loss, val_bpb, tokens_per_second, hours, parameters, modified"
    )
    assert said(capsys, "--filter", "interval=3", status=2) == (
        "RunError: 'interval=3' is no filter\n  where  --filter\n"
        "  why    it reads KEY=VALUE; KEY is a column of the table or a key of the config\n"
        "  try    sample.interval=3 or log.interval=3"
    )
