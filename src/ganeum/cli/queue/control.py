"""`ganeum queue pause`, `resume`, `kill`, `retry`: what becomes of entries that wait, run or have ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ganeum.cli.queue.choose import Every, Group, Json, Which

if TYPE_CHECKING:
    from ganeum.queue.entry import Entry
    from ganeum.queue.store import Store

Wait = Annotated[bool, typer.Option("--wait", help="Return when the processes are gone.")]


def pause(
    which: Which = None, group: Group = None, every: Every = False, wait: Wait = False, as_json: Json = False
) -> None:
    """Keep entries from starting; those that run write a checkpoint and release their device.

    `ganeum queue resume` lets them go on from there.
    """
    from ganeum.queue import control
    from ganeum.queue.entry import GOING

    states = (*GOING, *control.WAITING)
    _do("pause", control.pause, which, group, every, states, as_json, wait=wait)


def resume(which: Which = None, group: Group = None, every: Every = False, as_json: Json = False) -> None:
    """Let paused, held or interrupted entries take their turn again."""
    from ganeum.queue import control

    _do("resume", control.resume, which, group, every, ("paused", "held", "interrupted"), as_json)


def kill(
    which: Which = None,
    group: Group = None,
    every: Every = False,
    now: Annotated[bool, typer.Option("--now", help="At once, without a checkpoint (SIGKILL).")] = False,
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """End entries for good: those that run write a checkpoint, their data workers end with them.

    What does not end by itself within two minutes is ended by force.
    `ganeum queue retry` takes one back, from that checkpoint.
    """
    from ganeum.queue import control
    from ganeum.queue.entry import GOING

    states = (*GOING, *control.WAITING, "paused")
    _do("kill", control.kill, which, group, every, states, as_json, wait=wait, grace_s=0.0 if now else None)


def retry(which: Which = None, group: Group = None, every: Every = False, as_json: Json = False) -> None:
    """Queue failed, killed, held or interrupted entries again; they go on from their checkpoints."""
    from ganeum.queue import control

    _do("retry", control.retry, which, group, every, ("failed", "killed"), as_json)


def _do(
    name: str,
    act: Callable[[Store, Entry], Entry],
    which: Sequence[str] | None,
    group: str | None,
    every: bool,
    states: Sequence[str],
    as_json: bool,
    *,
    wait: bool = False,
    grace_s: float | None = None,
) -> None:
    """Tell all of them before any is waited for; the errors of some do not keep the others from it."""
    import json

    from ganeum.cli.queue import table
    from ganeum.cli.queue.choose import choose, named, there
    from ganeum.errors import Several
    from ganeum.queue import control, process
    from ganeum.queue.entry import GOING

    named(which, group, every, name)
    with there() as store:
        changed, errors = control.each(store, choose(store, which, group=group, states=states), act)
        going = [entry for entry in changed if entry.wanted and entry.state in GOING]
        if going and (wait or grace_s is not None or not store.managers()):
            for entry in going:
                control.finish(store, entry, process.GRACE_S if grace_s is None else grace_s)
        changed = [store.get(entry.id) for entry in changed]
        if as_json:
            print(json.dumps([table.plain(entry) for entry in changed], indent=2))
        else:
            for entry in changed:
                print(f"{entry.id}  {entry.name}  {table.state(entry)}")
            if not changed and not errors:
                print(f"nothing to {name}")
    if errors:
        raise errors[0] if len(errors) == 1 else Several(errors)
