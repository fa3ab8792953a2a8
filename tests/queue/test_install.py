"""The systemd unit: what it says, and that systemd itself takes it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ganeum.errors import RunError
from ganeum.queue import install

UNIT = """\
[Unit]
Description=ganeum's experiment queue in /home/a b/50%%
StartLimitIntervalSec=0

[Service]
WorkingDirectory=/home/a b/50%%
Environment="GANEUM_RESULTS=/data/my results"
Environment=PATH=/usr/bin
ExecStart=/venv/bin/python -m ganeum queue run --stay --notify "echo \\"$$GANEUM_TEXT\\""
Restart=always
RestartSec=5
# The runs are not the queue's to take with it: stopped or restarted, it leaves them training and finds them again.
KillMode=process
# A run that the kernel kills for want of memory is the queue's to see to, and no reason to end the queue.
OOMPolicy=continue

[Install]
WantedBy=default.target
"""


def made() -> str:
    variables = {"PATH": "/usr/bin", "GANEUM_RESULTS": "/data/my results", "SECRET_TOKEN": "x"}
    options = ["--notify", 'echo "$GANEUM_TEXT"']
    return install.unit(Path("/home/a b/50%"), options, python="/venv/bin/python", variables=variables)


def test_the_unit_word_for_word() -> None:
    """Blanks, quotes, per cents and dollars as a unit file writes them; of the environment only what is needed."""
    assert UNIT == made()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say against it."""
    file = tmp_path / "ganeum-queue-test.service"
    file.write_text(install.unit(tmp_path, ["--notify", 'echo "$GANEUM_TEXT"'], variables={}))
    done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
    assert "ganeum-queue-test" not in done.stderr, done.stderr


def test_each_results_directory_has_a_unit_of_its_own(tmp_path: Path) -> None:
    """Two projects of a user do not take each other's service away; the same one gets the same name."""
    assert install.unit_name(tmp_path / "a") != install.unit_name(tmp_path / "b")
    assert install.unit_name(tmp_path / "a") == install.unit_name(tmp_path / "b" / ".." / "a")


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that writes down what it is told → that file."""
    if os.name == "nt":
        pytest.skip("a script stands in for systemctl")
    script, told = tmp_path / "bin" / "systemctl", tmp_path / "told"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {told}\n[ -e {tmp_path}/broken ] && echo "No bus" >&2 && exit 1\nexit 0\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return told


def test_install_and_remove(systemctl: Path, tmp_path: Path) -> None:
    """Written, read by systemd, enabled, started; removed again, once."""
    path, _ = install.install("q.service", UNIT)
    assert tmp_path / "config/systemd/user/q.service" == path
    assert UNIT == path.read_text()
    assert path == install.remove("q.service")
    assert install.remove("q.service") is None
    assert systemctl.read_text().splitlines() == [
        "--user daemon-reload",
        "--user enable q.service",
        "--user restart q.service",
        "--user disable --now q.service",
        "--user daemon-reload",
    ]
    assert not path.exists()


def test_without_systemd_the_other_way_is_named(systemctl: Path, tmp_path: Path) -> None:
    """No session bus, as in a container: told in full, with what does it there."""
    (tmp_path / "broken").touch()
    with pytest.raises(RunError) as error:
        install.install("q.service", UNIT)
    assert str(error.value) == (
        "RunError: systemd did not take the queue's unit: No bus\n"
        f"  where  {tmp_path}/config/systemd/user/q.service\n"
        "  why    a systemd that runs services for users is needed (systemctl --user)\n"
        "  try    `ganeum queue install --print` shows the unit; or `ganeum queue run --stay` in tmux, and in "
        "cron: @reboot"
    )
