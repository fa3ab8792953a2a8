"""`ganeum queue install`: the queue as a service that comes back after a crash or a reboot."""

from __future__ import annotations

from typing import Annotated

import typer

from ganeum.cli.queue.run import PerGpu


def command(
    show: Annotated[bool, typer.Option("--print", help="Print the unit and change nothing.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Stop it and take it away; runs go on.")] = False,
    notify: Annotated[str | None, typer.Option(metavar="COMMAND", help="As for `ganeum queue run`.")] = None,
    per_gpu: PerGpu = 1,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Run this directory's queue as a systemd user service.

    It works through the list from now on, is started again after a crash and
    after a reboot, and goes on with the runs that were interrupted by it.
    Stopping it leaves the runs training.
    """
    import json
    from pathlib import Path

    from ganeum.queue import install
    from ganeum.record import results_dir

    name = install.unit_name(results_dir())
    options = [*(["--notify", notify] if notify else []), *(["--per-gpu", str(per_gpu)] if per_gpu > 1 else [])]
    text = install.unit(Path.cwd(), options)
    if show:
        print(json.dumps({"name": name, "unit": text}) if as_json else text, end="")
        return
    if remove:
        gone = install.remove(name)
        if as_json:
            print(json.dumps({"name": name, "removed": gone is not None}))
        else:
            print(f"{gone} is taken away; runs go on" if gone else f"there is no {name}")
        return
    path, left = install.install(name, text)
    if as_json:
        print(json.dumps({"name": name, "path": str(path), "left_to_do": left}))
        return
    print(f"{path}\nit runs now and after every boot: systemctl --user status {name}")
    print(f"what it says: journalctl --user --unit {name}")
    for line in left:
        print(f"still to be done: {line}")
