"""A systemd user unit that runs the queue of one directory and brings it back after a crash or a reboot."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ganeum.errors import RunError
from ganeum.queue import notify

KEPT = (
    *("GANEUM_RESULTS", "GANEUM_CACHE", "HF_HOME", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "OMP_NUM_THREADS"),
    *("PATH", "PYTHONPATH", "LD_LIBRARY_PATH"),
)
SECRET = (notify.COMMAND, notify.WEBHOOK)  # not for a file that everybody may read


def unit_name(results: Path) -> str:
    """`ganeum-queue-1f3a9c.service`: one for each results directory of a user."""
    return f"ganeum-queue-{hashlib.sha256(str(results.resolve()).encode()).hexdigest()[:6]}.service"


def unit(
    directory: Path,
    options: Sequence[str] = (),
    *,
    python: str = sys.executable,
    variables: Mapping[str, str] | None = None,
) -> str:
    """The unit's text.

    Args:
        directory: where it runs: paths of configs and data are read from there.
        options: of `ganeum queue run`.
        variables: of the environment; those of `KEPT` are written down.
    """
    variables = os.environ if variables is None else variables
    kept = "".join(f"Environment={_quoted(f'{name}={variables[name]}')}\n" for name in KEPT if name in variables)
    command = " ".join(
        _quoted(word).replace("$", "$$") for word in [python, "-m", "ganeum", "queue", "run", "--stay", *options]
    )
    return f"""\
[Unit]
Description=ganeum's experiment queue in {_plain(str(directory))}
StartLimitIntervalSec=0

[Service]
WorkingDirectory={_plain(str(directory))}
{kept}ExecStart={command}
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


def install(name: str, text: str) -> tuple[Path, list[str]]:
    """Writes the unit and starts it, now and at every boot → its file, and what is left for the user to do.

    Raises:
        RunError: this machine has no systemd for users; nothing is written then.
    """
    path = units_dir() / name
    _systemctl(["show-environment"], path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    for words in (["daemon-reload"], ["enable", name], ["restart", name]):
        _systemctl(words, path)
    left = [f"{one}=… into .env: the service does not see your shell's" for one in SECRET if os.environ.get(one)]
    if not _lingers():
        left.append(f"loginctl enable-linger {_user()}    # so that it runs while you are logged out")
    return path, left


def remove(name: str) -> Path | None:
    """Stops the unit and takes its file away; None where there is none. Runs go on."""
    path = units_dir() / name
    if not path.exists():
        return None
    _systemctl(["disable", "--now", name], path)
    path.unlink()
    _systemctl(["daemon-reload"], path)
    return path


def units_dir() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _systemctl(words: Sequence[str], path: Path) -> None:
    try:
        done = subprocess.run(["systemctl", "--user", *words], capture_output=True, text=True, check=False, timeout=60)
        said = done.stderr.strip() if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    if said is not None:
        raise RunError(
            f"systemd did not take the queue's unit: {said.splitlines()[0] if said else 'it does not say why'}",
            where=str(path),
            why="a systemd that runs services for users is needed (systemctl --user)",
            suggestion="`ganeum queue install --print` shows the unit; or `ganeum queue run --stay` in tmux, and in "
            "cron: @reboot",
        )


def _lingers() -> bool:
    return (Path("/var/lib/systemd/linger") / _user()).exists()


def _user() -> str:
    import getpass

    return getpass.getuser()


def _plain(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """A word of a unit file, where `%` begins a specifier; in a command `$` begins a variable besides."""
    escaped = _plain(word).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if word != "".join(word.split()) or not word or set(word) & set("\"'\\;") else escaped
