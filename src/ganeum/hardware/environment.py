"""What a run was made with: versions, code, machine and seed, for ``environment.json``; secrets never."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import ganeum
from ganeum.hardware import machine, nvml

PACKAGE = Path(ganeum.__file__).parent
PACKAGES = ("torch", "numpy", "tokenizers", "tiktoken", "safetensors", "transformers", "deepspeed", "pydantic", "wandb")
VARIABLES = re.compile(
    r"(OMP|MKL|CUDA|CUBLAS|NVIDIA|NCCL|TORCH|TORCHINDUCTOR|PYTORCH|GANEUM|HF|LD_PRELOAD|MALLOC)(_|$)"
)
SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS)S?$", re.IGNORECASE)
_NAMES = "KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS|AUTHORIZATION"
SECRET_ASSIGNED = re.compile(rf"({_NAMES})[\"']?\s*[=:]\s*\S|--[\w-]*({_NAMES})\s+\S", re.IGNORECASE)
# What gives a secret away whatever it is called: tokens by how their makers begin them, and a URL's password.
SECRET_SHAPE = re.compile(
    r"\bhf_[A-Za-z0-9]{16}|\bsk-[\w-]{20}|\bgh[opsur]_[A-Za-z0-9]{16}|\bgithub_pat_\w{16}|\b(AKIA|ASIA)[0-9A-Z]{16}"
    r"|\bxox[a-z]-[\w-]{10}|\b[Bb]earer\s+[\w.~+/-]{8}|://[^\s/:@]*:[^\s/@]+@"
)
PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY"
    r"(.*?-----END [A-Z ]*PRIVATE KEY-----|[^\n]*(\n[-+ ]?\s*[A-Za-z0-9+/=]+[ \r]*(?=\n|\Z))*)",
    re.DOTALL,
)
DIFF_LIMIT = 200_000  # characters
LEFT_OUT = "[a line was left out here: it may hold a secret]"


def secrets(variables: Mapping[str, str], dotenv: Mapping[str, str | None]) -> frozenset[str]:
    """The values that must appear in no record: of variables named …KEY, …TOKEN, …SECRET or …PASSWORD, and of all in
    ``.env`` that are long enough to be one (a ``1`` or ``true`` is not, and would hide innocent lines)."""
    named = {value for name, value in [*variables.items(), *dotenv.items()] if SECRET_NAME.search(name)}
    long = {value for value in dotenv.values() if value and len(value) >= 8}
    # Text is looked through line by line, so a value of several lines (a private key) is so many values.
    lines = {line.strip() for value in named | long if value for line in value.splitlines()}
    return frozenset(line for line in lines if len(line) >= 4)


def without_secrets(text: str, hidden: Iterable[str]) -> str:
    """``text`` without the lines that hold one of ``hidden``, what looks like a secret, or a value for a name like
    ``HF_TOKEN`` or ``password``; of a private key none is left."""
    values, text = tuple(hidden), PRIVATE_KEY.sub(LEFT_OUT, text)
    return "\n".join(
        LEFT_OUT
        if SECRET_ASSIGNED.search(line) or SECRET_SHAPE.search(line) or any(value in line for value in values)
        else line
        for line in text.split("\n")
    )


def environment(seed: int | None = None, directory: Path | str = ".", source: Path | None = None) -> dict[str, object]:
    """The content of ``environment.json``.

    Args:
        seed: the run's seed.
        directory: where to look for a ``.env`` and the user's own repository; the current directory unless given.
        source: where ganeum's own code lies; where it was imported from unless given.

    Returns:
        ganeum, python, packages {name: version}, git {commit, branch, diff, untracked} of ganeum's checkout (None where
        it is installed from a wheel), git_of_working_directory (the same; None where that is no other repository), os,
        cpu {name, cores, memory_gib}, gpus [{name, memory_gib, capability}], driver, variables (those that change how
        torch computes), command, seed.
    """
    hidden = _hidden(Path(directory))
    found = nvml.read()
    variables = {
        name: value
        for name, value in sorted(os.environ.items())
        if VARIABLES.match(name) and not SECRET_NAME.search(name) and without_secrets(value, hidden) == value
    }
    return {
        "ganeum": ganeum.__version__,
        "python": platform.python_version(),
        "packages": {name: found_version for name in PACKAGES if (found_version := _version(name))},
        **code(directory, source),
        "os": platform.platform(),
        "cpu": {
            "name": machine.cpu_name(),
            "cores": machine.cores(),
            "memory_gib": round(machine.memory_gib()[0], 2),
        },
        "gpus": [
            {"name": gpu.name, "memory_gib": round(gpu.memory_gib, 2), "capability": ".".join(map(str, gpu.capability))}
            for gpu in (nvml.visible(found.gpus) if found else ())
        ],
        "driver": found.driver if found else None,
        "variables": variables,
        "command": without_secrets(" ".join(sys.argv), hidden),
        "seed": seed,
    }


def code(directory: Path | str = ".", source: Path | None = None) -> dict[str, object]:
    """`git` and `git_of_working_directory` of :func:`environment`, alone."""
    directory = Path(directory)
    own, around, hidden = _checkout_of(source or PACKAGE), _top(directory), _hidden(directory)
    return {
        "git": git(own, hidden) if own else None,
        "git_of_working_directory": git(around, hidden) if around and around != own else None,
    }


def code_sha() -> str:
    """The SHA-256 of ganeum's own source files as they lie there now: what the next process would run."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{file.relative_to(PACKAGE).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _hidden(directory: Path) -> frozenset[str]:
    from dotenv import dotenv_values

    file = directory / ".env"
    return secrets(os.environ, dotenv_values(file) if file.is_file() else {})


def git(directory: Path, hidden: Iterable[str]) -> dict[str, object] | None:
    """Commit, branch, changes since (at most 200,000 characters) and names of files git does not know; None outside a
    repository, or without git."""
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return None
    diff = _git(directory, "diff", "--no-ext-diff", "--no-color", "HEAD", "--", ".", ":(exclude)*.env*") or ""
    diff = without_secrets(diff, hidden)
    if len(diff) > DIFF_LIMIT:
        diff = diff[:DIFF_LIMIT] + f"\n[cut: {len(diff) - DIFF_LIMIT:,} more characters]"
    untracked = (_git(directory, "ls-files", "--others", "--exclude-standard") or "").split("\n")
    return {
        "commit": commit.strip(),
        "branch": (_git(directory, "rev-parse", "--abbrev-ref", "HEAD") or "").strip(),
        "diff": diff,
        "untracked": [name for name in untracked if name][:100],
    }


def _top(directory: Path) -> Path | None:
    """The root of the repository around a directory."""
    found = _git(directory, "rev-parse", "--show-toplevel")
    return Path(found.strip()) if found else None


def _checkout_of(package: Path) -> Path | None:
    """The root of the repository that a package's code is part of; a wheel in a project's ``.venv`` is part of none."""
    return _top(package) if _git(package, "ls-files", "--error-unmatch", "__init__.py") else None


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True, text=True, errors="replace", timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
