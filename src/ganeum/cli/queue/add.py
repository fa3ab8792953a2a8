"""`ganeum queue add`: runs onto the list."""

from __future__ import annotations

from typing import Annotated

import typer

from ganeum.cli.queue.choose import MOST_URGENT

CONTEXT_SETTINGS = {"ignore_unknown_options": True}


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG... [KEY=VALUE]...", help="YAML files, and keys to set on each of them", show_default=False
        ),
    ] = None,
    section: Annotated[
        str | None, typer.Option("--config-section", metavar="NAME", help="the one config to take of a file of several")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="the run's name, or what the names of a sweep begin with")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="one run for each value: train.learning_rate=1e-4,3e-4; given again: every combination; a range, "
            "1e-5..1e-2 or 1e-5..1e-2:log, needs --trials",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="so many of the sweep's combinations, drawn by chance")
    ] = None,
    sampler: Annotated[
        str,
        typer.Option(metavar="HOW", help="how trials are chosen: random; or optuna, from what earlier ones came to"),
    ] = "random",
    at_once: Annotated[int, typer.Option(min=1, metavar="N", help="with optuna, trials under way at a time")] = 1,
    stop_hopeless: Annotated[
        bool,
        typer.Option(
            "--stop-hopeless",
            help="end a trial whose best validation loss lies above the median of the others at its step",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=1_000_000_000, metavar="N", help="of the drawing")] = 0,
    priority: Annotated[
        int,
        typer.Option(
            "--priority", "-p", min=-MOST_URGENT, max=MOST_URGENT, metavar="N", help="the higher, the earlier"
        ),
    ] = 0,
    group: Annotated[
        str, typer.Option("--group", "-g", metavar="NAME", help="a name that other commands can take them by")
    ] = "",
    after: Annotated[
        list[str] | None, typer.Option(metavar="ENTRY", help="start when this one has finished; also several times")
    ] = None,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="not before: 22:30, +2h, 2026-11-22T08:00")] = None,
    max_hours: Annotated[
        str | None, typer.Option(metavar="TIME", help="end it after so long, all starts together: 8, 90m, 2d")
    ] = None,
    max_retries: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="starts after something went wrong; 3 unless said")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="hold it when the code has changed by its turn")] = False,
    paused: Annotated[bool, typer.Option("--paused", help="not to start until `resume`")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the entries as JSON")] = False,
) -> None:
    """Put runs on the list.

    Each config is checked and frozen now, with the commit and the uncommitted
    changes of the code: what is edited later changes nothing about it. All are
    added, or, where one is wrong, none.
    """
    import json
    import sys
    import time

    from ganeum.cli.queue import table
    from ganeum.cli.queue.choose import one
    from ganeum.config.arguments import split_arguments
    from ganeum.errors import ConfigError
    from ganeum.queue import study
    from ganeum.queue import sweep as sweeps
    from ganeum.queue.enqueue import enqueue, lacking, wishes
    from ganeum.queue.entry import Entry
    from ganeum.queue.store import Store
    from ganeum.queue.when import hours, moment

    def say(text: str) -> None:
        print(text + "\n", file=sys.stderr if as_json else sys.stdout)

    paths, overrides = split_arguments(words or [])
    if not paths:
        raise ConfigError(
            "no config is named", where="ganeum queue add", suggestion="ganeum queue add configs/demo.yaml"
        )
    if not sweep and (trials is not None or stop_hopeless or sampler != "random"):
        raise ConfigError(
            "there is nothing to sweep",
            where="ganeum queue add",
            suggestion="--sweep train.learning_rate=1e-5..1e-2:log",
        )
    with Store.default() as store:
        like = Entry(
            name="",
            state="paused" if paused else "queued",
            priority=priority,
            group=group,
            after=tuple(one(store, word).id for word in after or ()),
            at=moment(at, time.time()) if at else None,
            max_hours=hours(max_hours) if max_hours else None,
            max_retries=max_retries,
            strict=strict,
        )
        if sweep:
            along = sweeps.axes(sweep)
            # What is wrong with any, before the first is queued.
            configs = [wish.load() for wish in wishes(paths, overrides, section, name)]
            for text in dict.fromkeys(map(lacking, configs)):
                if text is not None:
                    say(text)
            added = []
            for path in paths:  # a sweep is of one config
                spec = study.Spec.of(
                    along, trials=trials, sampler=sampler, at_once=at_once, stop_hopeless=stop_hopeless, seed=seed
                )
                added += study.begin(store, path, overrides, section, name, spec, like)
        else:
            wanted = wishes(paths, overrides, section, name=name)
            added = enqueue(store, wanted, like, say)
        if as_json:
            print(json.dumps([table.plain(entry) for entry in added], indent=2))
            return
        for entry in added:
            print(f"{entry.id}  {entry.name}  {table.state(entry)}")
        for text in study.announced(added):
            print(text)
        if said := table.nobody(store):
            print(said)
