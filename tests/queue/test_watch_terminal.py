"""`ganeum queue watch` on a terminal: drawn, drawn again, and the screen given back."""

from __future__ import annotations

import os
import re
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

if os.name == "nt":
    pytest.skip("these terminals are POSIX", allow_module_level=True)

from rich.cells import cell_len
from terminal import Terminal, pictures

from ganeum.queue.entry import Entry
from ganeum.queue.store import Store
from ganeum.record import MetricsLog, Status, write_json

ENTERED, LEFT, CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
KOREAN = "실험-learning_rate-3e-4"
LONG = "a_name_that_is_long-learning_rate-3e-4-seed-12345-n_layer-12"


@pytest.fixture(autouse=True)
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that run, thirty that wait, ten that have ended, and a log of many lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", "results")
    with Store.default() as store:
        names = [KOREAN, LONG, *(f"next{i}" for i in range(30)), *(f"done{i}" for i in range(10))]
        store.add_all([Entry(name=name) for name in names])
        for id in (1, 2):
            store.update(id, state="running", device="cpu", started_at=time.time() - 75, attempts=1)
            run = store.run(store.get(id))
            run.queued_dir.mkdir(parents=True)
            run.queue_log_path.write_text("".join(f"step {i}  {'x' * 200}\n" for i in range(50)))
            write_json(run.plan_path, {"data": {"steps": 100}})
            Status.of_this_process("running", 50).write(run.status_path)
            with MetricsLog(run.metrics_path) as log:
                log.write({"step": 50, "loss": 3.5, "val_loss": 3.25, "tokens_per_second": 1e4, "step_time_s": 0.5})
        for id in range(33, 43):
            store.update(id, state="failed", note="RunError: the loss is NaN " + "y" * 100, ended_at=float(id))


def fits(picture: list[str], columns: int, rows: int) -> bool:
    return len(picture) <= rows and all(cell_len(line) <= columns for line in picture)


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40), (40, 10)])
def test_every_part_has_a_place_on_the_screen(columns: int, rows: int) -> None:
    """What runs, what is next, what ended and the log share the lines there are; q ends it, and all is as it was."""
    with Terminal("queue", "watch", "--interval", "0.2", columns=columns, rows=rows) as terminal:
        output = terminal.until(lambda output: len(pictures(output)) > 2)
        terminal.type("q")
        status, output = terminal.end()
        assert terminal.is_as_before()
    picture = pictures(output)[1]
    assert fits(picture, columns, rows), picture
    assert (0, [1, 1]) == (status, [output.count(ENTERED), output.count(LEFT)])
    assert output.rindex(CURSOR) < len(output)
    headings = [line.split()[0] for before, line in pairwise(picture) if before == "" and line]
    assert ["devices", "runs", "next", "lately", "log"][: len(headings)] == headings
    assert rows < 20 or 5 == len(headings)


def test_a_narrow_terminal_keeps_how_far_it_is_and_when_it_ends() -> None:
    """80 columns: names are cut in their middle, the columns that say least are left out."""
    with Terminal("queue", "watch", "--interval", "0.2") as terminal:
        terminal.until(lambda output: len(pictures(output)) > 2)
        terminal.type("q")
        _, output = terminal.end()
    picture = pictures(output)[1]
    place = next(number for number, line in enumerate(picture) if line.startswith("runs"))
    assert [re.sub(" +", " ", line) for line in picture[place : place + 3]] == [
        "runs step loss val loss left",
        f"1 {KOREAN} ━━━━━━━━╸━━━━━━━━ 50/100 3.5000 3.2500 25 s",
        "2 a_name_that_i…5-n_layer-12 ━━━━━━━━╸━━━━━━━━ 50/100 3.5000 3.2500 25 s",
    ]


def test_ctrl_c_ends_it_and_other_keys_do_nothing() -> None:
    """Exit status 0, as asked; what was typed is not shown; Ctrl-Z, which would leave the screen behind, is none."""
    with Terminal("queue", "watch", "--interval", "0.2") as terminal:
        terminal.until(lambda output: len(pictures(output)) > 1)
        terminal.type("zzz\x1a")
        before = len(pictures(terminal.output))
        output = terminal.until(lambda output: len(pictures(output)) > before + 1)
        assert "zzz" not in output
        terminal.type("\x03")
        status, output = terminal.end()
        assert (0, 1, True) == (status, output.count(LEFT), terminal.is_as_before())


def test_it_follows_the_size_of_the_terminal() -> None:
    """Made larger and smaller while it is watched, the next picture has that size."""
    with Terminal("queue", "watch", "--interval", "0.2") as terminal:
        for columns, rows in ((80, 24), (120, 40), (60, 12)):
            terminal.size(columns, rows)
            terminal.until(
                lambda output, columns=columns: (
                    cell_len(pictures(output)[-2][0]) == columns if len(pictures(output)) > 1 else False
                )
            )
            assert fits(pictures(terminal.output)[-2], columns, rows)
        terminal.type("q")
        assert 0 == terminal.end()[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_screen_back(number: int) -> None:
    """`kill` of the view leaves a usable terminal; the exit status says by what it was ended."""
    with Terminal("queue", "watch", "--interval", "0.2") as terminal:
        terminal.until(lambda output: len(pictures(output)) > 1)
        terminal.process.send_signal(number)
        status, output = terminal.end()
        assert (128 + number, 1, True) == (status, output.count(LEFT), terminal.is_as_before())


def test_a_terminal_that_is_closed_ends_it() -> None:
    """ssh is cut off: the view does not stay behind as a process that nobody sees."""
    with Terminal("queue", "watch", "--interval", "0.2") as terminal:
        terminal.until(lambda output: len(pictures(output)) > 1)
        terminal.hang_up()
        terminal.process.wait(timeout=30)
