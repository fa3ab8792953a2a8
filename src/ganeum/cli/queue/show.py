"""`ganeum queue show`: all there is to say about one entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ganeum.queue.entry import Entry
    from ganeum.queue.rows import Event
    from ganeum.queue.store import Store


def command(
    which: Annotated[str, typer.Argument(metavar="ENTRY", help="Its id, or the name of its run.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Show one entry: what it is, how far it is, what happened to it."""
    import json
    from dataclasses import asdict

    from ganeum.cli.queue import table
    from ganeum.cli.queue.choose import one, to_look
    from ganeum.queue.progress import progress

    with to_look() as store:
        entry = one(store, which)
        events = store.events(entry=entry.id)
        if as_json:
            far = progress(store.run(entry), entry)
            print(json.dumps({**table.plain(entry, far), "events": [asdict(event) for event in events]}, indent=2))
            return
        for line in lines(store, entry, events):
            print(line)


def lines(store: Store, entry: Entry, events: list[Event]) -> list[str]:
    """What is known, a thing a line; what is not, is left out."""
    import shlex
    import time
    from datetime import datetime

    from ganeum import units
    from ganeum.cli.queue import table
    from ganeum.queue import freeze
    from ganeum.queue.entry import OPEN
    from ganeum.queue.progress import progress

    def when(moment: float | None) -> str:
        return "" if moment is None else datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M:%S")

    changed = freeze.changed(entry) if entry.state in OPEN else None
    now, far = time.time(), progress(store.run(entry), entry)
    sections = ["--config-section", entry.section] if entry.section else []
    limits = [f"{entry.max_hours:g} hours at most"] if entry.max_hours is not None else []
    if entry.max_retries is not None:
        limits.append(f"{units.things(entry.max_retries, 'start')} after something went wrong at most")
    tries = [units.things(entry.attempts, "start")] if entry.attempts else []
    tries += [f"{entry.retries} after something went wrong"] * bool(entry.retries)
    tries += [f"with {entry.micro_batch_size} sequences at once since"] * (entry.micro_batch_size is not None)
    code = [entry.commit[:12]] if entry.commit else []
    code += [changed] if changed else []
    code += ["held where it is another"] * entry.strict
    facts = {
        "entry": f"{entry.id}  {entry.name}",
        "state": "  ".join(filter(None, [table.state(entry), table.note(entry, now)])),
        "queued": when(entry.queued),
        "started": when(entry.started_at),
        "ended": when(entry.ended_at) + (f"  exit status {entry.exit_status}" if entry.exit_status is not None else ""),
        "starts": ", ".join(tries),
        "config": shlex.join([entry.config, *sections, *entry.overrides]) if entry.config else "",
        "in": entry.cwd,
        "code": ", ".join(code),
        "group": entry.group,
        "sweep": entry.sweep or "",
        "trial": ", ".join(f"{key}={value}" for key, value in (entry.trial or {}).items()),
        "priority": str(entry.priority) if entry.priority else "",
        "after": ", ".join(map(str, entry.after)),
        "at": when(entry.at),
        "limits": ", ".join(limits),
        "on": entry.device or "",
        "process": str(entry.pid) if entry.state in ("starting", "running") and entry.pid else "",
        "step": f"{far.step:,}" + (f" of {far.steps:,}" if far.steps else "") if far.step else "",
        "loss": "" if far.loss is None else f"{far.loss:.4f}",
        "val loss": "" if far.val_loss is None else f"{far.val_loss:.4f}, best {far.best_val_loss:.4f}",
        "trained": "" if far.elapsed_s is None else units.duration(far.elapsed_s),
        "left": "" if far.left_s is None else units.duration(far.left_s),
        "run": str(store.run(entry).path),
    }
    made = [f"{name:<9} {text}" for name, text in facts.items() if text.strip()]
    if entry.error_tail:
        made += ["", *(f"    {line}" for line in entry.error_tail.rstrip().splitlines())]
    if events:
        made += ["", *(f"{when(event.time)}  {event.what}  {event.text}".rstrip() for event in events[-30:])]
    return made
