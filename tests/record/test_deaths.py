"""Why a run died, where the kernel has counted it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ganeum.hardware import limits
from ganeum.record.deaths import TRY, explained
from ganeum.record.status import Status


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    """As cgroups of version 2 have it."""
    file = tmp_path / "memory.events"
    file.write_text("low 0\nhigh 12\nmax 7\noom 1\noom_kill 3\noom_group_kill 0\n")
    return file


def left(counter: Path) -> Status:
    """What a process left behind that held 15.2 of 16 GiB, and is gone: no process starts in the first second."""
    return replace(
        Status.of_this_process("running", 120),
        process_started=0.0,
        held_gib=15.2,
        memory_gib=16.0,
        oom_kills=3,
        oom_counter=str(counter),
    )


def test_a_kill_for_memory_is_told_by_the_kernels_count(counter: Path) -> None:
    """One more now than when the status was written: probably, with what the process held and where it is counted."""
    status = left(counter)
    assert explained(status) is None, "the count has not moved: nothing shows why"
    counter.write_text(counter.read_text().replace("oom_kill 3", "oom_kill 4"))
    assert explained(status) == (
        "it was probably killed for want of the machine's memory\n"
        "at its last note it held 15.2 of 16.0 GiB, and since then the kernel has killed 1 process in its cgroup for "
        f"that ({counter})\n{TRY}"
    )


def test_without_evidence_nothing_is_claimed(counter: Path) -> None:
    """A run that lives or ended well, another boot, a counter that is gone, an older record: no word."""
    status = left(counter)
    counter.write_text("oom_kill 9\n")
    assert explained(status) is not None
    for other in (
        Status.of_this_process("running", 5),
        replace(status, state="finished"),
        replace(status, boot_id="before"),
        replace(status, oom_counter=None),
        replace(status, oom_kills=None),
    ):
        assert explained(other) is None
    counter.unlink()
    assert explained(status) is None


def test_every_status_notes_memory_and_count() -> None:
    """On Linux something always counts: the cgroup, or the whole machine."""
    status = Status.of_this_process("running", 5)
    assert 0 < (status.held_gib or 0) < (status.memory_gib or 0)
    if limits.PROC.is_dir():
        assert status.oom_counter is not None
        assert (status.oom_kills or 0) >= 0
