"""The systemd unit: what it says, and that systemd itself takes it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ganeum.errors import RunError
from ganeum.queue import install
from ganeum.queue.notify import WEBHOOK

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
# What it ends with when it is asked to, which is no failure.
SuccessExitStatus=143
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
    file, there = tmp_path / "ganeum-queue-test.service", tmp_path / "a b" / "50% $HOME 'q'"
    there.mkdir(parents=True)
    options = ["--notify", 'echo "$GANEUM_TEXT" \\; 50%']
    file.write_text(install.unit(there, options, variables={"GANEUM_RESULTS": f"{there}/results"}))
    verify = ["systemd-analyze", "--user", "verify", str(file)]
    place = {"XDG_RUNTIME_DIR": str(tmp_path), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(verify, capture_output=True, text=True, check=False, env=place)
    assert (0, "") == (done.returncode, done.stderr)


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


def test_install_and_remove(systemctl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written, read by systemd, enabled, started; removed again, once. A secret of the shell's is not written down."""
    monkeypatch.setenv(WEBHOOK, "https://secret")
    path, left = install.install("q.service", UNIT)
    assert [f"{WEBHOOK}=… into .env: the service does not see your shell's"] == left[:1]
    assert tmp_path / "config/systemd/user/q.service" == path
    assert UNIT == path.read_text()
    assert path == install.remove("q.service")
    assert install.remove("q.service") is None
    assert systemctl.read_text().splitlines() == [
        "--user show-environment",
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
    assert not (tmp_path / "config").exists()
