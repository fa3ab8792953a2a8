"""Making a run directory once, and going on with it: what a second start of the same run may change, and what not."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

from ganeum.config import sizes
from ganeum.config.change import change
from ganeum.config.checks import LENGTHS
from ganeum.config.keys import keys, value_of
from ganeum.config.load import load_stored
from ganeum.config.schema import Config
from ganeum.config.write import to_yaml
from ganeum.errors import GaneumError, RunError
from ganeum.record.directory import RunDirectory, free_name, results_dir
from ganeum.record.files import flush_directory, read_json, write_atomic, write_json
from ganeum.record.status import Status

Outcome = Literal["new", "resume", "finished"]
# What may change on the way, because the weights are the same bits with it and without (compiled code aside).
CHANGEABLE = ("train.activation_checkpointing", "train.expandable_segments", "train.keep_last")


def create(
    requested: Config,
    resolved: Config,
    *,
    overwrite: bool = False,
    files: Mapping[str, object] | None = None,
    before_longer: Callable[[RunDirectory], None] | None = None,
) -> tuple[RunDirectory, Config, Outcome]:
    """The run called `requested.name`, held by this process alone until `release()` or its end.

    Args:
        requested: what the user wrote, `auto` where it is `auto`; it must have a name.
        resolved: the same with every `auto` decided; it becomes `config.yaml` if the run is new.
        overwrite: throw away what is there.
        files: JSON by its name, for a new run, on the disk before that is one.
        before_longer: called before a run gets a larger length; what it raises leaves the run as it was.

    Returns:
        The directory; the config to train with (of a run that exists: the stored one, with the new length if that was
        raised, `CHANGEABLE` keys and `eval_only` as requested); and `new`, `resume` (there may be no checkpoint yet),
        or `finished` (nothing to do; the run is not held).

    Raises:
        RunError: another process trains it; or it exists with another config; or something else lies at its place.
    """
    assert requested.name is not None, "load() gives every config a name"
    run = RunDirectory(results_dir() / requested.name)
    try:
        run.acquire()
        if overwrite:
            _remove(run)
        if not run.exists():
            _make(run, resolved, files or {})
            return run, resolved, "new"
        stored = load_stored(run.config_path)
        config = _continued(run, requested, resolved, stored)
        longer = any(_length(config, key) != _length(stored, key) for key in LENGTHS)
        status = run.status()
        if longer and before_longer:
            before_longer(run)
        if longer and status is not None and status.state == "finished":
            # First: a death between the two would leave a run that has the new length and calls itself finished.
            Status.of_this_process("interrupted", status.step).write(run.status_path)
        if (kept := _with_train(config, eval_only=stored.train.eval_only and config.train.eval_only)) != stored:
            write_atomic(run.config_path, to_yaml(kept))
        if status is None or status.state != "finished" or longer or config.train.eval_only:
            return run, config, "resume"
        run.release()
        return run, config, "finished"
    except OSError as error:
        run.release()
        raise RunError(f"the run directory cannot be made: {error.strerror}", where=str(run.path)) from error
    except BaseException:
        run.release()
        raise


def existing(name: str) -> Config | None:
    """The stored config of the run called `name`; None if there is no such run."""
    run = RunDirectory(results_dir() / name)
    return load_stored(run.config_path) if run.exists() else None


def check(requested: Config) -> None:
    """What `create` would say of a run that exists with another config, known before anything is resolved.

    Raises:
        RunError: the differences, without those of the length.
    """
    if (stored := existing(requested.name or "")) is None:
        return
    run = RunDirectory(results_dir() / str(requested.name))
    if differences := _differences(run, requested, requested, stored):
        raise RunError(
            f"the run {run.name} exists with another config",
            where=str(run.config_path),
            why="\n".join(differences),
            suggestion=f"name={free_name(run.path)} for a new run",
        )


def is_finished(requested: Config) -> bool:
    """Whether the run that `requested` describes has ended well, with no more to do: known without its data."""
    assert requested.name is not None, "load() gives every config a name"
    run = RunDirectory(results_dir() / requested.name)
    status = run.status()
    if status is None or status.state != "finished" or not run.exists() or requested.train.eval_only:
        return False
    try:
        stored = load_stored(run.config_path)
    except GaneumError:  # for `create` to say
        return False
    asked = [key for key in LENGTHS if _length(requested, key) is not None]
    return not _differences(run, requested, stored, stored) and all(
        _length(requested, k) == _length(stored, k) for k in asked
    )


def _make(run: RunDirectory, config: Config, files: Mapping[str, object]) -> None:
    """The directory is a run from the moment its config has its name; a death before that leaves nothing in the way."""
    run.path.parent.mkdir(parents=True, exist_ok=True)
    if run.path.exists() and not run.path.is_dir():
        raise _in_the_way(run, "a file")
    run.path.mkdir(exist_ok=True)
    ours = tuple(f".{name}." for name in (run.config_path.name, *files))
    there = [path for path in run.path.iterdir() if path != run.queued_dir]
    others = [path for path in there if path.name not in files and not path.name.startswith(ours)]
    if others:
        raise _in_the_way(run, f"a directory with {others[0].name} and no {run.config_path.name}")
    for torn in there:
        torn.unlink()
    for name, content in files.items():
        write_json(run.path / name, content)
    write_atomic(run.config_path, to_yaml(config))
    flush_directory(run.path.parent)


def _in_the_way(run: RunDirectory, what: str) -> RunError:
    return RunError(
        f"the run {run.name} cannot be made: {what} is in its place",
        where=str(run.path),
        suggestion=f"move it away, or name={free_name(run.path)}",
    )


def _remove(run: RunDirectory) -> None:
    """Take a run away: first its name in one step, then its files, so that no death leaves half a run."""
    away = run.path.with_name(f".{run.name}.removed")
    if away.exists():
        shutil.rmtree(away)
    if not run.exists():
        return
    if run.path.is_symlink():
        run.path.unlink()
        return
    run.path.rename(away)
    flush_directory(run.path.parent)
    shutil.rmtree(away)


def _length(config: Config, key: str) -> float | None:
    value = value_of(config, key)
    assert value is None or isinstance(value, (int, float))
    return value


def _continued(run: RunDirectory, requested: Config, resolved: Config, stored: Config) -> Config:
    """The config to go on with, or the error that says what differs."""
    lengths, shorter = _lengths(requested, resolved, stored)
    differences = _differences(run, requested, resolved, stored)
    if problems := shorter + differences:
        steps = stored.train.max_iters
        as_it_is = "" if differences or steps is None else f"max_iters={steps}, as it has now; "
        raise RunError(
            f"the run {run.name} exists with another config",
            where=str(run.config_path),
            why="\n".join(problems),
            suggestion=f"{as_it_is}name={free_name(run.path)} for a new run, or --overwrite to replace this one",
        )
    changed = {key: value_of(requested, key) for key in _changeable(stored) if value_of(requested, key) != "auto"}
    return _with_train(change(stored, changed), **lengths, eval_only=requested.train.eval_only)


def _changeable(stored: Config) -> tuple[str, ...]:
    return (
        CHANGEABLE if stored.train.compile is not True else CHANGEABLE[1:]
    )  # compiled, what is recomputed rounds anew


def _with_train(config: Config, **changes: object) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update=changes)})


def _differences(run: RunDirectory, requested: Config, resolved: Config, stored: Config) -> list[str]:
    """One sentence for each key that was asked for with another value; `auto` agrees with whatever was decided, null
    with what it stands for, and a share of all steps where it comes to the same steps, of those that the run began with
    or those that it is to have.
    """
    meant, meant_there = _meant(requested), _meant(stored)
    lengths = [steps for steps in (_first_length(run), stored.train.max_iters, resolved.train.max_iters) if steps]

    def unequal() -> Iterator[tuple[str, object, object]]:
        for key, spec in keys().items():
            asked, there = value_of(requested, key), value_of(stored, key)
            if isinstance(asked, float) and "integer" in spec.takes and there in _in_steps(asked, lengths):
                continue
            if asked == there or asked == spec.default == "auto":
                continue
            if value_of(meant, key) != value_of(meant_there, key):
                yield key, asked, there

    free = {"name", "train.eval_only", *LENGTHS, *_changeable(stored)}
    return [
        f"{key} is {_shown(there)} there and {_shown(asked)} here" for key, asked, there in unequal() if key not in free
    ]


def _meant(config: Config) -> Config:
    """With a number for each size of a GPT of ours that is null. Of somebody else's model null is what its own config
    says, which no number here is."""
    if config.model.source is not None:
        return config
    return config.model_copy(update={"model": sizes.resolved(config.model)})


def _in_steps(share: float, lengths: Iterable[int]) -> set[int]:
    """What a share of all steps may have come to: a warm-up is rounded up, an interval to the nearest."""
    return {whole for steps in lengths for whole in (math.ceil(share * steps), max(1, round(share * steps)))}


def _first_length(run: RunDirectory) -> int | None:
    """The steps that the run began with, from its plan; None where that is gone or damaged."""
    try:
        steps = read_json(run.plan_path)["data"]["steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return steps if isinstance(steps, int) else None


def _lengths(requested: Config, resolved: Config, stored: Config) -> tuple[dict[str, float | None], list[str]]:
    """The lengths to go on with, by their bare names, and what is wrong with those that were asked for.

    What was asked for is compared with the same key of the stored config; where that key is not there (steps now,
    epochs before), the steps that both were resolved to are compared. A shorter training is a difference.
    """
    kept = {key.removeprefix("train."): _length(stored, key) for key in LENGTHS}
    raised = {key.removeprefix("train."): _length(resolved, key) for key in LENGTHS}
    asked = [key for key in LENGTHS if _length(requested, key) is not None]
    if not asked:
        return kept, []
    before, now = _length(stored, asked[0]), _length(requested, asked[0])
    if before is None:
        before, now = stored.train.max_iters, resolved.train.max_iters
    if before is None or now is None:
        old = ", ".join(f"{key} {_shown(value)}" for key, value in kept.items() if value is not None)
        return kept, [f"the length is {old} there and {asked[0]} {_shown(_length(requested, asked[0]))} here"]
    if now < before:
        return kept, [f"{asked[0]} is {_shown(before)} there and {_shown(now)} here; it can be raised, not lowered"]
    return (raised if now > before else kept), []


def _shown(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
