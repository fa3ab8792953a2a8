"""`ganeum queue LIST`, and `python run_manager.py`: the experiments of a list, from start to end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ganeum.cli.queue.run import Notify, PerGpu, Webhook

if TYPE_CHECKING:
    from ganeum.errors import GaneumError
    from ganeum.queue.entry import Entry
    from ganeum.queue.experiments import Experiment

NAMED = 5  # of what is not in the list


def command(
    experiments: Annotated[
        Path,
        typer.Argument(metavar="LIST", help="A config a line, key=value and --config-section after it; # comments."),
    ] = Path("experiment_list.conf"),
    per_gpu: PerGpu = 1,
    notify: Notify = None,
    webhook: Webhook = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="What became of each as JSON; everything else goes to standard error.")
    ] = False,
) -> None:
    """Run the experiments of a list: each goes onto the queue, and the queue works until they have ended.

    Every config is checked before the first starts: a bad one, or one that fails,
    does not stop the others. Started again, it skips what is finished, goes on
    with what was interrupted, and tries again what failed.

    Ctrl-C ends what runs with a checkpoint, and the queue with it.

    Exit status: 0 all are finished, 1 some are not, 130 after Ctrl-C.
    """
    import sys

    from ganeum import units
    from ganeum.cli.queue.run import work
    from ganeum.errors import GaneumError
    from ganeum.queue import control
    from ganeum.queue.enqueue import from_list, lacking
    from ganeum.queue.entry import ENDED
    from ganeum.queue.experiments import read_list
    from ganeum.queue.store import Store

    listed = read_list(experiments)
    out = sys.stderr if as_json else sys.stdout
    wrong: list[int] = []
    for experiment in listed:
        if experiment.error is not None:
            wrong.append(experiment.line)
            _tell(experiment.error, experiments, experiment.line)
    ids: list[int] = []
    with Store.default() as store:
        for number, experiment in enumerate(listed, start=1):
            if experiment.config is None:
                continue
            before = {one.name: one for one in store.all()}.get(experiment.name)
            try:
                [entry] = from_list(store, [experiment])
            except GaneumError as error:
                wrong.append(experiment.line)
                _tell(error, experiments, experiment.line)
                continue
            print(f"[{number}/{len(listed)}] {experiment.name}: {_becomes(experiment, before, entry)}", file=out)
            if entry is not None:
                ids.append(entry.id)
            if entry is not None and entry.state not in ENDED and (text := lacking(experiment.config)):
                print(f"    {text}", file=out)
        if others := [one for one in store.all() if one.state in control.WAITING and one.id not in ids]:
            named = ", ".join(control.called(one) for one in others[:NAMED]) + ", …" * (len(others) > NAMED)
            print(f"\nnot in this list, and left as they are: {named}", file=out)
            print("`ganeum queue run` runs them, `ganeum queue remove` takes them off", file=out)
    also = ""
    if wrong:
        lines = units.things(len(wrong), "line")
        also = f"{lines} of {experiments} could not be taken ({', '.join(map(str, sorted(wrong)))})"
    status = work(only=ids, per_gpu=per_gpu, notify=notify, webhook=webhook, as_json=as_json, leave=False, also=also)
    raise typer.Exit(status or (1 if wrong else 0))


def _tell(error: GaneumError, path: Path, line: int) -> None:
    """What is wrong with a line, and which one, unless that is said already."""
    import sys

    from ganeum.config.source import shown

    place = f"{shown(path)}, line {line}"
    print(error if error.where == place else f"{error}\n  in     {place}", end="\n\n", file=sys.stderr)


def _becomes(experiment: Experiment, before: Entry | None, entry: Entry | None) -> str:
    """What starting the list does about an experiment, by its entry `before` that and since."""
    if entry is None or entry.state == "finished":
        return "finished already"
    if entry.state == "killed":
        return f"killed before; `ganeum queue retry {entry.id}` takes it back"
    if entry.state == "paused":
        return f"paused; `ganeum queue resume {entry.id}` lets it go on"
    if before is not None and before.state == "failed":
        return f"{experiment.text}, which failed before"
    return f"{experiment.text}, from step {entry.step:,} on" if entry.step else experiment.text
