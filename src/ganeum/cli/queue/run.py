"""`ganeum queue run`: works through the list."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ganeum.queue.entry import Entry
    from ganeum.queue.store import Store

ERROR_LINES = 12

Notify = Annotated[
    str | None,
    typer.Option(metavar="COMMAND", help="Run by the shell when a run ends, with JSON on its input and $GANEUM_TEXT."),
]
Webhook = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Gets a POST when a run ends; also from $GANEUM_NOTIFY_WEBHOOK or .env."),
]


def command(
    stay: Annotated[bool, typer.Option("--stay", help="Wait for more when nothing is left.")] = False,
    group: Annotated[
        str | None, typer.Option("--group", "-g", metavar="NAME", help="Until this group has ended.")
    ] = None,
    per_gpu: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Runs that may share a GPU where their plans fit together."),
    ] = 1,
    notify: Notify = None,
    webhook: Webhook = None,
    as_json: Annotated[bool, typer.Option("--json", help="What ended as JSON; the rest on standard error.")] = False,
) -> None:
    """Work through the list: start what fits where, find again what was left running, resume what was interrupted.

    A run gets a GPU of its own, or as many cores as OMP_NUM_THREADS says (all of
    them without it). Several may work on one list. Ctrl-C ends this process and leaves the runs
    training; started again it finds them, also after `kill -9` or a reboot.

    Exit status: 0 all that ended have finished, 1 some have not, 130 after Ctrl-C.
    """
    from ganeum.cli.queue.choose import choose
    from ganeum.queue.store import Store

    with Store.default() as store:
        only = None if group is None else {entry.id for entry in choose(store, None, group=group)}
    status = work(only=only, stay=stay, per_gpu=per_gpu, notify=notify, webhook=webhook, as_json=as_json, leave=True)
    raise typer.Exit(status)


def work(
    *,
    only: Collection[int] | None,
    stay: bool = False,
    per_gpu: int = 1,
    notify: str | None = None,
    webhook: str | None = None,
    as_json: bool = False,
    leave: bool = True,
) -> int:
    """Run the list and say how it goes → the exit status.

    Args:
        only: end when these have; None: when nothing is left.
        leave: Ctrl-C leaves runs training; else they write a checkpoint and end, to be resumed at the next start.
    """
    import sys
    import time

    from ganeum.cli.queue import table
    from ganeum.cli.queue.live import shown, stopping
    from ganeum.queue import manager, summary
    from ganeum.queue import notify as notes
    from ganeum.queue.entry import ENDED
    from ganeum.queue.progress import progress
    from ganeum.queue.store import Store

    stream = sys.stderr if as_json else sys.stdout
    begun, ended = time.time(), set[int]()
    with Store.default() as store:
        with shown(store.path, stream) as say, stopping() as stop:
            notifier = notes.Notifier(
                notify or notes.from_surroundings(notes.COMMAND), webhook or notes.from_surroundings(notes.WEBHOOK), say
            )

            def told(entry: Entry) -> None:
                ended.add(entry.id)
                far = progress(store.run(entry), entry)
                notifier.tell(summary.sentence(entry, far), **table.plain(entry, far))

            try:
                manager.run(
                    store,
                    until_empty=not stay,
                    only=only,
                    stop=stop.event,
                    say=say,
                    on_end=told,
                    train=manager.TRAIN,
                    place=lambda: manager.on_this_machine(per_gpu),
                )
                if stop.number is not None and not leave:
                    _interrupt(store, only, say)
            finally:
                everything = store.all()
                mine = [entry for entry in everything if entry.id in (ended if only is None else only)]
                left = [entry for entry in everything if entry.state not in ENDED and entry not in mine]
                if ended:
                    text = summary.headline(mine, left, time.time() - begun)
                    notifier.tell(text, state="summary", best=summary.bests(store, mine))
                notifier.close()
        _report(store, mine, left, time.time() - begun, as_json)
    if stop.number is not None:
        return 128 + stop.number
    return 0 if all(entry.state == "finished" for entry in mine) else 1


def _interrupt(store: Store, only: Collection[int] | None, say: Callable[[str], None]) -> None:
    """Let what runs write a checkpoint and end; it stays on the list as interrupted, for the next start."""
    from ganeum.queue import control
    from ganeum.queue.entry import GOING

    going = [entry for entry in store.all() if entry.state in GOING and (only is None or entry.id in only)]
    if going:
        say("writing checkpoints")
    for entry in going:
        control.pause(store, entry)
    for entry in going:
        control.finish(store, store.get(entry.id))
        store.update(entry.id, ("paused",), state="interrupted", note="starting the queue again goes on with it")


def _report(store: Store, mine: Sequence[Entry], left: Sequence[Entry], seconds: float, as_json: bool) -> None:
    """The table of what became of the entries, errors in full, the best of each sweep, and what is left."""
    import json

    from ganeum.cli.queue import table
    from ganeum.queue import summary
    from ganeum.queue.progress import progress

    how_far = {entry.id: progress(store.run(entry), entry) for entry in mine if entry.attempts}
    if as_json:
        print(json.dumps([table.plain(entry, how_far.get(entry.id)) for entry in mine], indent=2))
        return
    for entry in mine:
        if entry.state == "failed" and entry.error_tail:
            print(f"\n{entry.name}:")
            print("\n".join(f"    {line}" for line in entry.error_tail.rstrip().splitlines()[-ERROR_LINES:]))
    if mine:
        print()
        table.show(table.table(mine, how_far, store.clock()))
    print()
    for line in summary.bests(store, mine):
        print(line)
    print(summary.headline(mine, left, seconds))
