"""What the system allows a process, read from files as Linux writes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ganeum.hardware import limits, machine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cgroups are Linux's")
PIDS = limits.CGROUP / "pids" / f"ganeum-test-{os.getpid()}"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc and a /sys/fs/cgroup of our own, in which this process has nothing yet."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    monkeypatch.setattr(limits, "PROC", tmp_path / "proc")
    monkeypatch.setattr(limits, "CGROUP", tmp_path / "cgroup")
    return tmp_path


def put(directory: Path, **files: object) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name.replace("_dot_", ".")).write_text(f"{content}\n")


def test_a_job_of_a_cluster_is_held_to_its_own_limit_and_to_those_above(system: Path) -> None:
    """Version 2: 64 MiB of the job's, of which 16 MiB are pages of files that it can give back; 128 MiB above it."""
    put(system / "proc" / "self", cgroup="0::/slurm/job_7")
    put(system / "cgroup" / "slurm", memory_dot_max=128 * 2**20, memory_dot_current=100 * 2**20)
    job = system / "cgroup" / "slurm" / "job_7"
    put(job, memory_dot_max=64 * 2**20, memory_dot_current=40 * 2**20)
    put(job, memory_dot_stat=f"anon 1\ninactive_file {16 * 2**20}\nactive_file 5")
    assert {(64 * 2.0**20, 24 * 2.0**20), (128 * 2.0**20, 100 * 2.0**20)} <= set(limits.memory())
    assert machine.memory_gib() == (64 / 1024, 28 / 1024)  # 128 - 100 are left above it, 64 - 24 in it


def test_a_container_sees_its_limit_at_the_root(system: Path) -> None:
    """Version 1: the path is the host's and not visible here; `max` and what is not there are no limits."""
    put(system / "proc" / "self", cgroup="4:memory:/docker/0a1b\n0::/")
    put(system / "cgroup", memory_dot_max="max", memory_dot_current=5)
    root = system / "cgroup" / "memory"
    put(root, memory_dot_limit_in_bytes=64 * 2**20, memory_dot_usage_in_bytes=40 * 2**20)
    put(root, memory_dot_oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 3")
    assert machine.memory_gib() == (64 / 1024, 24 / 1024)
    assert limits.oom_counter() == root / "memory.oom_control"
    assert limits.oom_kills(root / "memory.oom_control") == 3


def test_a_container_has_as_many_cores_as_it_is_given_the_time_of(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bound to eight: `--cpus 2.5` of version 2 makes that three; 1.5 above it, two; half a core of version 1, one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert 8 == machine.cores()
    put(system / "proc" / "self", cgroup="0::/slice/job")
    put(system / "cgroup" / "slice", cpu_dot_max="max 100000")
    put(system / "cgroup" / "slice" / "job", cpu_dot_max="250000 100000")
    assert 3 == machine.cores()
    put(system / "cgroup" / "slice", cpu_dot_max="150000 100000")
    assert 2 == machine.cores()
    put(system / "proc" / "self", cgroup="4:cpu,cpuacct:/docker/0a1b")
    root = system / "cgroup" / "cpu,cpuacct"
    root.mkdir()
    (root / "cpu.cfs_quota_us").write_text("-1\n")
    (root / "cpu.cfs_period_us").write_text("100000\n")
    assert 8 == machine.cores()
    (root / "cpu.cfs_quota_us").write_text("50000\n")
    assert 1 == machine.cores()


def test_no_more_threads_is_explained_with_the_limits_as_they_are() -> None:
    """Python's words and Java's; the figures are the system's, read at that moment."""
    for words in ("can't start new thread", "unable to create new native thread"):
        error = limits.no_thread(RuntimeError(words))
        assert error is not None
        assert str(error).startswith(
            f"RunError: the system let this process start no more threads\n  why    {words}\n         "
        )
        assert str(error).endswith(
            "  try    OMP_NUM_THREADS=1 before the command, which starts fewer; or end other programs of yours, or "
            "raise the limit (`ulimit -u`, a container's pids limit)"
        )
    assert limits.no_thread(RuntimeError("shapes")) is None


def test_a_thread_that_really_cannot_start_is_explained() -> None:
    """Two threads for a container whose limit is one: an error of ours, before a library ends the process."""
    try:
        PIDS.mkdir()
    except OSError:
        pytest.skip("no cgroup can be made here")
    try:
        (PIDS / "pids.max").write_text("1")
        child = (
            f"open({str(PIDS / 'cgroup.procs')!r}, 'w').write('0'); from ganeum.cli import main; "
            "import ganeum.cli; from ganeum.hardware import limits; "
            "ganeum.cli.build = lambda **_: lambda **_: limits.check_threads(2); main([])"
        )
        done = subprocess.run(
            [sys.executable, "-c", child], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    finally:
        PIDS.rmdir()
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(
        "RunError: the system let this process start no more threads\n  why    can't start new thread\n"
    )
    assert "this container's (pids.max): 1 of 1; " in done.stderr
