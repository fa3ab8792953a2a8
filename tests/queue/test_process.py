"""A run's processes: asked to end once, whoever asks and however often."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from at_work import until

from ganeum.queue import process
from ganeum.queue.process import Identity

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and sessions are POSIX")

LISTENER = """
import os, signal, sys, time
def heard(number, frame):
    with open("heard", "a") as file:
        file.write("x")
signal.signal(signal.SIGTERM, heard)
open("ready", "w").close()
time.sleep(600)
"""


@pytest.fixture
def orphan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A training whose first process is gone; it writes an x for each SIGTERM."""
    monkeypatch.chdir(tmp_path)
    with subprocess.Popen([sys.executable, "-c", LISTENER], env={**os.environ, process.TOKEN: "t"}) as running:
        while not Path("ready").exists():
            time.sleep(0.02)
        yield running
        running.kill()


def test_a_training_without_its_first_process_hears_of_its_end_once(orphan: subprocess.Popen[bytes]) -> None:
    """Two queues and the command line all ask; a second SIGTERM would cost the training its checkpoint."""
    gone = replace(Identity.of_this_process(), started=1.0)
    for _ in range(3):
        process.stop(gone, "t", Path("asked"))
        until(Path("heard").exists)
        time.sleep(0.1)
    assert "x" == Path("heard").read_text()
    assert not process.end(gone, "t", Path("asked"), grace_s=0.1)
    assert "x" == Path("heard").read_text()
    assert -9 == orphan.wait(60)


def test_what_its_first_process_had_handed_on_is_not_said_again(orphan: subprocess.Popen[bytes]) -> None:
    """It made the mark before it sent SIGTERM, and was killed then."""
    Path("asked").touch()
    process.stop(replace(Identity.of_this_process(), started=1.0), "t", Path("asked"))
    time.sleep(0.2)
    assert not Path("heard").exists()


def test_a_machine_is_another_by_its_boot_and_its_name_together() -> None:
    """The same machine after a reboot, and another container of this boot, are not elsewhere."""
    me = Identity.of_this_process()
    assert not me.is_elsewhere()
    assert not replace(me, boot_id="before").is_elsewhere()
    assert not replace(me, host="node7/1a2b/9").is_elsewhere()
    assert replace(me, boot_id="its own", host="node7/1a2b/9").is_elsewhere()
    assert not replace(me, boot_id="before", host=me.host.rpartition("/")[0] + "/9").is_elsewhere()
    assert not replace(me, boot_id="of an older version", host="").is_elsewhere()
