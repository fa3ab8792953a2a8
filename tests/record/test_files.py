"""Atomic files, the metrics file and the status."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganeum.record import MetricsLog, Status, read_json, read_metrics, write_atomic, write_json
from ganeum.record.metrics import newest

WRITER = """
import sys
from pathlib import Path
from ganeum.record import write_atomic
print("ready", flush=True)
for letter in "ab" * 100_000:
    write_atomic(Path(sys.argv[1]), letter * 300_000)
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is POSIX")
def test_a_killed_writer_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    """Ten writers, killed at random moments: what is read is always one whole content."""
    path = tmp_path / "file"
    for delay in random.Random(0).choices([0.001, 0.01, 0.03], k=10):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            while not path.exists():
                time.sleep(0.001)
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        assert path.read_text() in ("a" * 300_000, "b" * 300_000)


@pytest.mark.parametrize("broken", ["fsync", "fdopen"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """An error while writing is passed on, the old content still stands, and nothing lies beside it."""

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    write_atomic(path, "old")
    monkeypatch.setattr(os, broken, full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    monkeypatch.undo()
    assert "old" == path.read_text()
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_a_written_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    """Its mode is the one that open() gives, not the private one of temporary files."""
    (tmp_path / "plain").touch()
    write_atomic(tmp_path / "ours", b"")
    assert (tmp_path / "plain").stat().st_mode == (tmp_path / "ours").stat().st_mode


def test_json_has_no_nan_and_keeps_every_text(tmp_path: Path) -> None:
    """NaN and infinities become null; Korean stays readable; half a surrogate pair, as in odd file names, survives."""
    write_json(tmp_path / "x.json", {"a": [float("nan"), float("inf"), 1.5], "b": "가늠 \udcff", "c": (1, None)})
    assert {"a": [None, None, 1.5], "b": "가늠 \udcff", "c": [1, None]} == read_json(tmp_path / "x.json")
    assert "가늠" in (tmp_path / "x.json").read_text(encoding="utf-8")


entries = st.lists(
    st.fixed_dictionaries({"step": st.integers(0, 50), "loss": st.floats(allow_nan=False, allow_infinity=False)})
)


@settings(max_examples=100, deadline=None)
@given(entries, st.integers(0, 50), st.data())
def test_opening_keeps_whole_lines_up_to_the_step(
    tmp_path_factory: pytest.TempPathFactory, written: list[dict[str, float]], step: int, data: st.DataObject
) -> None:
    """Wherever the file was torn, opening it after a step leaves the whole lines up to that step, in order, and what
    is written then follows them."""
    path = tmp_path_factory.mktemp("metrics") / "logs" / "metrics.jsonl"
    with MetricsLog(path) as log:
        for entry in written:
            log.write(entry)
    whole = path.read_bytes()
    torn = whole[: data.draw(st.integers(0, len(whole)))]
    path.write_bytes(torn)
    kept = [json.loads(line) for line in torn.splitlines(keepends=True) if line.endswith(b"\n")]
    with MetricsLog(path, after_step=step) as log:
        log.write({"step": step + 1, "loss": 0.5})
    assert [e for e in kept if e["step"] <= step] + [{"step": step + 1, "loss": 0.5}] == list(read_metrics(path))


def test_a_damaged_line_does_not_hide_the_others(tmp_path: Path) -> None:
    """Lines that are no JSON objects are left out, wherever they stand."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\xff\xfe{\n[3]\n\n{"step": 2}\n{"step":')
    assert [{"step": 1}, {"step": 2}] == list(read_metrics(path))


def test_a_line_is_one_write_and_nan_is_null(tmp_path: Path) -> None:
    """The file is valid JSON lines for every reader."""
    with MetricsLog(tmp_path / "m.jsonl") as log:
        log.write({"step": 1, "loss": float("nan")})
        log.flush()
    assert b'{"step": 1, "loss": null}\n' == (tmp_path / "m.jsonl").read_bytes()


def test_a_line_that_does_not_fit_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk a part of a line may get through; the file is cut back to whole lines and the error passed on."""
    write = os.write
    with MetricsLog(tmp_path / "m.jsonl") as log:
        log.write({"step": 1})
        monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:4]))
        with pytest.raises(OSError, match="No space left"):
            log.write({"step": 2})
        monkeypatch.undo()
        log.write({"step": 3})
    assert b'{"step": 1}\n{"step": 3}\n' == (tmp_path / "m.jsonl").read_bytes()


def test_the_newest_values_are_found_across_lines(tmp_path: Path) -> None:
    """The last loss and the last val_loss may stand in different lines; null is no value."""
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1, "loss": 3, "val_loss": 4}\n{"step": 2, "loss": 2, "val_loss": null}\n{"st')
    assert {"step": 2, "loss": 2, "val_loss": 4} == newest(path, ("step", "loss", "val_loss", "mfu"))
    assert {} == newest(tmp_path / "none", ("step",))


def test_a_status_knows_its_own_process(tmp_path: Path) -> None:
    """This process is alive; the same id with another start, or another boot of the machine, is another process."""
    Status.of_this_process("running", 7).write(tmp_path / "status.json")
    status = Status.read(tmp_path / "status.json")
    assert status is not None
    assert ("running", 7, None, os.getpid()) == (status.state, status.step, status.error, status.pid)
    assert status.is_alive()
    started = psutil.Process().create_time()
    assert not Status("running", 7, None, os.getpid(), started - 100, status.boot_id).is_alive()
    assert not Status("running", 7, None, os.getpid(), started, "another boot").is_alive()
    assert not Status("queued").is_alive()


@pytest.mark.skipif(os.name == "nt", reason="zombies are POSIX")
def test_a_process_that_ended_is_not_alive(tmp_path: Path) -> None:
    """Neither as a zombie, which nobody has waited for yet, nor afterwards."""
    write = (
        "import sys; from pathlib import Path; from ganeum.record import Status; "
        "Status.of_this_process('running').write(Path(sys.argv[1]))"
    )
    with subprocess.Popen([sys.executable, "-c", write, str(tmp_path / "s")]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        status = Status.read(tmp_path / "s")
        assert status is not None
        assert not status.is_alive()
    assert not status.is_alive()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '{"state": "dancing"}', '{"state": "running", "step": "x"}', '{"step": 1}', "\xff"]
)
def test_what_is_no_status_reads_as_none(tmp_path: Path, content: str) -> None:
    """A damaged status.json is as good as none; it never keeps a run from going on."""
    (tmp_path / "status.json").write_bytes(content.encode("latin-1"))
    assert Status.read(tmp_path / "status.json") is None
    assert Status.read(tmp_path / "missing.json") is None
