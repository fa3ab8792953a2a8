"""`ganeum queue run`: works through the list."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ganeum.queue.entry import Entry
    from ganeum.queue.store import Store

ERROR_LINES = 12
MEMBERS_S = 1.0

Notify = Annotated[
    str | None,
    typer.Option(metavar="COMMAND", help="Run by the shell when a run ends, with JSON on its input and $GANEUM_TEXT."),
]
Webhook = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Gets a POST when a run ends; also from $GANEUM_NOTIFY_WEBHOOK or .env."),
]

PerGpu = Annotated[
    int, typer.Option(min=1, metavar="N", help="Runs that may share a GPU where their plans fit together.")
]


def command(
    stay: Annotated[bool, typer.Option("--stay", help="Wait for more when nothing is left.")] = False,
    group: Annotated[
        str | None, typer.Option("--group", "-g", metavar="NAME", help="Until this group has ended.")
    ] = None,
    per_gpu: PerGpu = 1,
    notify: Notify = None,
    webhook: Webhook = None,
    as_json: Annotated[bool, typer.Option("--json", help="What ended as JSON; the rest on standard error.")] = False,
) -> None:
    """Work through the list: start what fits where, find again what was left running, resume what was interrupted.

    A run gets a GPU of its own, or as many cores as OMP_NUM_THREADS says (all of
    them without it). Several may work on one list. Ctrl-C ends this process and leaves the runs
    training; started again it finds them, also after `kill -9` or a reboot.
    A list that is locked, or on a full disk, is waited for.

    Exit status: 0 all that ended have finished, 1 some have not, 130 after Ctrl-C.
    """
    from ganeum.cli.queue.choose import choose
    from ganeum.queue.store import Store

    only = None
    with Store.default() as store:
        if group is not None:
            choose(store, None, group=group)  # for what it says where there is no such group
            only = Members(store.path, group)
    status = work(only=only, stay=stay, per_gpu=per_gpu, notify=notify, webhook=webhook, as_json=as_json, leave=True)
    raise typer.Exit(status)


class Members(Collection[int]):
    """The ids of a group or sweep, those that are added later included."""

    def __init__(self, path: Path, group: str) -> None:
        self.path, self.group = path, group
        self._found: set[int] = set()
        self._at = -1.0  # time.monotonic, of the last look; the manager asks for each of a thousand entries

    def _ids(self) -> set[int]:
        import time

        from ganeum.queue.store import Store

        if time.monotonic() - self._at > MEMBERS_S:
            with Store(self.path) as store:
                self._found = {entry.id for entry in store.all() if self.group in (entry.group, entry.sweep)}
            self._at = time.monotonic()
        return self._found

    def __contains__(self, id: object) -> bool:
        return id in self._ids()

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids())

    def __len__(self) -> int:
        return len(self._ids())


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
    from contextlib import suppress

    from ganeum import units
    from ganeum.cli.queue import table
    from ganeum.cli.queue.live import shown, stopping
    from ganeum.queue import manager, summary
    from ganeum.queue import notify as notes
    from ganeum.queue.entry import ENDED, GOING
    from ganeum.queue.progress import progress
    from ganeum.queue.store import default_path

    stream = sys.stderr if as_json else sys.stdout
    begun, ended = time.time(), set[int]()
    with stopping() as stop:
        store = manager.opened(default_path(), stop.event, lambda text: print(text, file=stream, flush=True))
    if store is None:
        return 128 + (stop.number or 0)
    with store:
        with shown(store.path, stream) as speak, stopping() as stop:

            def say(text: str) -> None:
                with suppress(OSError, ValueError):  # a terminal that was closed, a pipe that nobody reads any more
                    speak(text)

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
                going = [entry for entry in store.all() if entry.state in GOING and (only is None or entry.id in only)]
                if stop.number is not None and going and leave:
                    say(f"{units.things(len(going), 'run')} left training; `ganeum queue run` finds them again")
                elif stop.number is not None and going:
                    say("writing checkpoints; Ctrl-C again does not wait for them")
                    _interrupt(store, going)
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


def _interrupt(store: Store, going: Sequence[Entry]) -> None:
    """Let what runs write a checkpoint and end; it stays on the list as interrupted, for the next start."""
    from ganeum.queue import control

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
