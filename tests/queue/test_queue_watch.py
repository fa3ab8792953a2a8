"""The live view, as text."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console

from ganeum.cli import main
from ganeum.hardware.card import card
from ganeum.queue.devices import Machine, Slot
from ganeum.queue.entry import Entry
from ganeum.queue.store import Store
from ganeum.queue.watch import Board, frame
from ganeum.record import MetricsLog, Status, write_json

NOW = datetime(2026, 11, 21, 16, 0).timestamp()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", "results")


def drawn(what: object) -> list[str]:
    console = Console(file=io.StringIO(), width=100, highlight=False)
    console.print(what)
    file = console.file
    assert isinstance(file, io.StringIO)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_a_picture_of_a_night() -> None:
    """A card, one that runs on it with its bar, one that waits for a time, one that failed, and the end of the log."""
    with Store.default() as store:
        store.add_all([Entry(name="exp1"), Entry(name="exp2", at=NOW + 7200), Entry(name="exp3")])
        store.update(1, state="running", device="GPU-8f2a11c3-aaaa-bbbb", started_at=NOW - 75, attempts=1)
        store.update(3, state="failed", note="RunError: the loss is NaN", ended_at=NOW - 600, attempts=1)
        run = store.run(store.get(1))
        run.queued_dir.mkdir(parents=True, exist_ok=True)
        run.queue_log_path.write_text("before\nstep 50\n")
        write_json(run.plan_path, {"data": {"steps": 100}})
        Status.of_this_process("running", 50).write(run.status_path)
        with MetricsLog(run.metrics_path) as log:
            log.write({"step": 50, "loss": 3.5, "val_loss": 3.25, "tokens_per_second": 12345.6, "step_time_s": 0.5})
        gpu = Slot("GPU-8f2a11c3-aaaa-bbbb", "GPU 0", card("RTX 4090"), 15.5)
        lines = drawn(frame(store, NOW, Machine((gpu,))))
    assert lines == [
        "results/queue.sqlite  16:00:00 " + "─" * 69,
        "1 running, 1 queued, 1 failed; no process works on it: ganeum queue run",
        "",
        "devices",
        "GPU 0    GeForce RTX 4090  15.5 of 24.0 GiB free  exp1",
        "",
        "runs     on                                     step      loss  val loss  tokens/s         for  left",
        "1  exp1  GPU 0  ━━━━━━━━━━━━━━━                 50/100  3.5000    3.2500    12,346  1 min 15 s  25 s",
        "",
        "next",
        "2  exp2  queued  not before 18:00",
        "",
        "lately",
        "3  exp3  failed  15:50  RunError: the loss is NaN",
        "",
        "log of exp1 " + "─" * 88,
        "before",
        "step 50",
    ]


def test_an_empty_queue_says_so() -> None:
    """Nothing runs, nothing waits."""
    with Store.default() as store:
        assert ["the queue is empty; no process works on it: ganeum queue run"] == drawn(frame(store, NOW))[1:]


def test_a_damaged_list_is_shown_and_does_not_end_the_view() -> None:
    """The next look may see more: somebody rebuilds it."""
    Path("results").mkdir()
    Path("results/queue.sqlite").write_bytes(b"no database" * 500)
    assert "QueueError: the list of the queue is damaged" == drawn(Board(Path("results/queue.sqlite")))[0]


def test_a_single_picture_of_a_damaged_list_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """`watch --once` in a script ends with exit status 2, and the error on standard error."""
    Path("results").mkdir()
    Path("results/queue.sqlite").write_bytes(b"no database" * 500)
    with pytest.raises(SystemExit) as exit:
        main(["queue", "watch", "--once"])
    out, err = capsys.readouterr()
    assert (2, "") == (exit.value.code, out)
    assert err == (
        "QueueError: the list of the queue is damaged\n"
        "  where  results/queue.sqlite\n"
        "  why    file is not a database\n"
        "  try    `ganeum queue rebuild` puts it aside and makes it again from what stands beside the runs\n"
    )
