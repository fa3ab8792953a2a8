"""Keeps what pages show of commands true: python -m ganeum.cli.examples docs/backwards.md docs/emit.md.

A block that begins with ```console and a line `$ ganeum …` holds what that command prints, 80 columns wide.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"^```console\n\$ (ganeum [^\n]+)\n.*?^```$", re.MULTILINE | re.DOTALL)


def refreshed(page: str, root: Path) -> str:
    """``page`` with each block's output as it is now; the commands run in ``root``."""
    return BLOCK.sub(lambda block: f"```console\n$ {block[1]}\n{output(block[1], root)}\n```", page)


def output(command: str, root: Path) -> str:
    """What a command prints, without the spaces that fill its lines."""
    words = [sys.executable, "-m", *shlex.split(command)]
    plain = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(words, cwd=root, env=plain, capture_output=True, encoding="utf-8", check=False)
    return "\n".join(line.rstrip() for line in (done.stdout + done.stderr).strip().splitlines())


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(refreshed(path.read_text(encoding="utf-8"), Path.cwd()), encoding="utf-8")
