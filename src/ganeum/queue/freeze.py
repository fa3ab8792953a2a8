"""A run as it was queued: its config frozen beside it, with the code that was there, before anything of it starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from ganeum import record
from ganeum.config.load import load_stored
from ganeum.config.schema import Config
from ganeum.config.write import to_yaml
from ganeum.errors import QueueError
from ganeum.hardware.environment import code
from ganeum.hardware.environment import code_sha as code_sha  # as another reads it, too
from ganeum.queue.entry import Entry
from ganeum.queue.store import Store
from ganeum.record import RunDirectory, write_atomic, write_json


def add(store: Store, wanted: Sequence[tuple[Config, Entry]]) -> list[Entry]:
    """Queue these runs, all or none: each config frozen into its run's directory, `auto` where it is `auto`.

    Args:
        wanted: a config, with its name, and what else is wanted of it; name, code and directory are filled in here.

    Returns:
        the entries as the list has them.

    Raises:
        RunError: a run of that name exists with another config.
        QueueError: it is in the queue already; or the list cannot be written.
    """
    for config, _ in wanted:
        record.check(config)
    now, sha, cwd = code(), code_sha(), str(Path.cwd())
    commit = _commit(sha)
    texts = [to_yaml(config) for config, _ in wanted]
    added = store.add_all(
        [
            replace(
                entry,
                name=str(config.name),
                cwd=entry.cwd or cwd,
                commit=commit,
                code_sha=sha,
                done_before=_finished_at(RunDirectory(store.results / str(config.name))),
            )
            for config, entry in wanted
        ],
        texts,
    )
    with suppress(OSError):  # a full disk: the list has it all, and `thaw` writes it once the run starts
        for entry, text in zip(added, texts, strict=True):
            run = store.run(entry)
            run.queued_dir.mkdir(parents=True, exist_ok=True)
            write_json(run.queued_dir / "code.json", now, flush=False)
            write_atomic(config_path(run), text, flush=False)
            store.mirror(entry.id, flush=False)
    return added


def _finished_at(run: RunDirectory) -> int:
    """The step at which it has finished; 0 where it has not."""
    status = run.status()
    return status.step if status is not None and status.state == "finished" else 0


def thaw(store: Store, entry: Entry) -> Path:
    """The file that is trained: the config as it was queued, whatever has become of it beside the run.

    Raises:
        QueueError: it is gone from there and from the list. OSError: it cannot be written.
    """
    run, text = store.run(entry), store.frozen(entry.id)
    path = config_path(run)
    if text is None:
        frozen_config(run)
    elif not path.is_file() or path.read_bytes() != text.encode():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
        store.mirror(entry.id)
    return path


def config_path(run: RunDirectory) -> Path:
    return run.queued_dir / "config.yaml"


def frozen_config(run: RunDirectory) -> Config:
    """The config as it was queued.

    Raises:
        QueueError: it is gone, or damaged.
    """
    path = config_path(run)
    if not path.is_file():
        raise QueueError(
            f"the config of {run.name} as it was queued is gone",
            where=os.fspath(path),
            suggestion="`ganeum queue remove` it and add it again",
        )
    return load_stored(path)


def changed(entry: Entry, sha: str | None = None) -> str | None:
    """What is another about ganeum's code now than when the entry was queued; None where nothing is.

    `sha`: of the code now, where it is known.
    """
    sha = sha or code_sha()
    if entry.code_sha in (None, sha):
        return None
    if (now := _commit(sha)) != entry.commit:
        return f"the code has changed since it was queued: {_short(entry.commit)} then, {_short(now)} now"
    return f"uncommitted code has changed since it was queued (on {_short(now)})"


@lru_cache(maxsize=1)
def _commit(sha: str) -> str | None:
    """Of ganeum's own code, whose files are these."""
    git = code()["git"]
    return str(git["commit"]) if isinstance(git, dict) else None


def _short(commit: str | None) -> str:
    return commit[:10] if commit else "no commit"
