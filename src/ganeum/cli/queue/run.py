"""`ganeum queue run`: works through the list."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ganeum.queue.entry import Entry
    from ganeum.queue.store import Store

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
    them without it). Several may work on one list. Ctrl-C ends this process and
    leaves the runs training; started again it finds them, also after `kill -9` or
    a reboot. A list that is locked, or on a full disk, is waited for.

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
    also: str = "",
) -> int:
    """Run the list and say how it goes → the exit status.

    Args:
        only: end when these have; None: when nothing is left.
        leave: Ctrl-C leaves runs training; else they write a checkpoint and end, to be resumed at the next start.
        also: what else the summary has to say.
    """
    import sys
    import time
    from contextlib import suppress

    from ganeum import units
    from ganeum.cli.queue import report, table
    from ganeum.cli.queue.live import shown, stopping
    from ganeum.queue import manager, summary
    from ganeum.queue import notify as notes
    from ganeum.queue.entry import GOING
    from ganeum.queue.progress import progress
    from ganeum.queue.store import default_path

    stream = sys.stderr if as_json else sys.stdout
    begun, ended, untold = time.monotonic(), set[int](), set[int]()
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
                far = progress(store.run(entry), entry)
                notifier.tell(summary.sentence(entry, far), **table.plain(entry, far))

            def seen(entry: Entry) -> None:
                ended.add(entry.id)
                untold.add(entry.id)

            def summed_up() -> None:
                """With `stay` whenever nothing is left to do; else once."""
                if untold:
                    mine, left = report.about(store, untold if stay else ended, None if stay else only)
                    text = summary.night(store, f"In {units.duration(time.monotonic() - begun)}", mine, left, also)
                    notifier.tell(text, state="summary", best=summary.bests(store, mine))
                    untold.clear()

            try:
                manager.run(
                    store,
                    until_empty=not stay,
                    only=only,
                    stop=stop.event,
                    say=say,
                    on_end=seen,
                    tell=told if notifier.listens else None,
                    on_idle=summed_up,
                    train=manager.TRAIN,
                    place=lambda: manager.on_this_machine(per_gpu),
                )
                going = [entry for entry in store.all() if entry.state in GOING and (only is None or entry.id in only)]
                if stop.number is not None and going and leave:
                    found = "it" if len(going) == 1 else "them"
                    say(f"{units.things(len(going), 'run')} left training; `ganeum queue run` finds {found} again")
                elif stop.number is not None and going:
                    say("writing checkpoints; Ctrl-C again does not wait for them")
                    _interrupt(store, going)
            finally:
                summed_up()
                notifier.close()
        mine, left = report.about(store, ended, only)
        report.show(store, mine, left, f"In {units.duration(time.monotonic() - begun)}", as_json, also)
    if stop.number is not None:
        return 128 + stop.number
    return 0 if all(entry.state == "finished" for entry in mine) else 1


def _interrupt(store: Store, going: Sequence[Entry]) -> None:
    """Let what runs write a checkpoint and end; it stays on the list as interrupted, for the next start."""
    from contextlib import suppress

    from ganeum.errors import QueueError
    from ganeum.queue import control

    for entry in going:
        with suppress(QueueError):  # it has just ended
            control.interrupt(store, entry)
    for entry in going:
        control.finish(store, store.get(entry.id))
