"""From what a user types to entries: every config is loaded and checked before the first is on the list."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ganeum import record
from ganeum.config import Config, load
from ganeum.config.write import to_yaml
from ganeum.data.meta import Meta
from ganeum.errors import ConfigError, DataError, GaneumError, QueueError, Several
from ganeum.queue import control, freeze
from ganeum.queue.control import WAITING
from ganeum.queue.entry import ENDED, GOING, Entry
from ganeum.queue.experiments import Experiment
from ganeum.queue.store import Store
from ganeum.queue.sweep import Trial
from ganeum.record import is_finished, write_atomic


@dataclass(frozen=True)
class Wish:
    """One run that is wanted: a config file, `key=value` on it, and the keys that a sweep sets besides."""

    path: str
    overrides: tuple[str, ...] = ()
    section: str | None = None
    trial: Trial = field(default_factory=dict)

    @property
    def settings(self) -> tuple[str, ...]:
        """All that is set on the file; a sweep's values count last."""
        return (*self.overrides, *(f"{key}={value}" for key, value in self.trial.items()))

    def load(self, say: Callable[[str], object] | None = None) -> Config:
        return load(self.path, self.settings, section=self.section, say=say)


def wishes(
    paths: Sequence[str], overrides: Sequence[str], section: str | None = None, name: str | None = None
) -> list[Wish]:
    """One for each config.

    Raises:
        ConfigError: several would have one name.
    """
    if name is not None and len(paths) > 1:
        raise ConfigError(
            f"{len(paths)} runs cannot all be called {name}", where="--name", suggestion="one config at a time"
        )
    settings = (*overrides, *([f"name={name}"] if name else []))
    return [Wish(path, settings, section) for path in paths]


def enqueue(
    store: Store, wanted: Sequence[Wish], like: Entry, say: Callable[[str], object] | None = None
) -> list[Entry]:
    """Put runs on the list, all or none.

    Args:
        like: what they have in common: priority, group, limits, …; its `sweep` and `spec` too.
        say: takes what is worth knowing about a config, as that it has no data yet.

    Raises:
        GaneumError, Several: whatever is wrong with any of them; nothing is on the list then.
    """
    found: list[tuple[Config, Entry]] = []
    errors: list[GaneumError] = []
    seen: dict[str, str] = {}
    last = max((entry.order for entry in store.all()), default=0.0)  # behind what was moved, whatever that came to
    for wish in wanted:
        try:
            config = wish.load(say)
            assert config.name is not None, "load() gives every config a name"
            typed = shlex.join([wish.path, *wish.settings])
            if config.name in seen:
                raise ConfigError(
                    f"two of these would be the run {config.name}",
                    where=typed,
                    why=f"{seen[config.name]} is it already, and a run has one directory",
                    suggestion=f"name={config.name}-2",
                )
            seen[config.name] = typed
            entry = replace(
                like,
                name=config.name,
                order=last,
                config=wish.path,
                overrides=wish.settings,
                section=wish.section,
                trial=wish.trial or None,
            )
            record.check(config)
            found.append((config, entry))
        except GaneumError as error:
            errors += error.errors if isinstance(error, Several) else [error]
    if errors:
        raise errors[0] if len(errors) == 1 else Several(errors)
    for text in dict.fromkeys(lacking(config) for config, _ in found):
        if text is not None and say is not None:
            say(text)
    return freeze.add(store, found)


def lacking(config: Config) -> str | None:
    """What `ganeum train` would refuse a config for by now, and may be mended until its turn comes: its data."""
    if config.model.source is not None:  # its files may be a data set's name, which only opening it would tell
        return None if config.data.train else f"nothing says what {config.name} learns from: data.train"
    directory = Path(config.data.directory)
    try:
        if Meta.read(directory) is not None or (directory / "train.bin").exists():
            return None
    except DataError as error:
        return f"{error.what}: {error.where}"
    return f"there is no data in {config.data.directory} yet"


def from_list(store: Store, experiments: Sequence[Experiment]) -> list[Entry | None]:
    """An entry for each experiment of the list, added where there is none yet; one that failed or was interrupted is
    queued again, one that is finished, going, paused or killed is left as it is.

    Returns:
        In the list's order; None for a line that is wrong, or whose run is finished without an entry.
    """
    found: list[Entry | None] = []
    for experiment in experiments:
        config = experiment.config
        if config is None:
            found.append(None)
            continue
        alike = sorted((one for one in store.all() if one.name == config.name), key=lambda one: one.id)
        entry = alike[-1] if alike else None
        if entry is not None and entry.state not in ENDED:
            if entry.state == "interrupted":
                entry = control.resume(store, entry)
            if entry.wanted == "interrupt":  # Ctrl-C was a moment ago: it ends, and goes on
                entry = store.update(entry.id, GOING, wanted="") or store.get(entry.id)
            if entry.state not in GOING:
                refreeze(store, entry, config)  # the file may have been edited since
            found.append(entry)
        elif (entry is not None and entry.state == "killed") or is_finished(config):
            found.append(entry)
        else:
            wish = Wish(experiment.path, experiment.overrides, experiment.section)
            found += enqueue(store, [wish], Entry(name=experiment.name))
    return found


def refreeze(store: Store, entry: Entry, config: Config, **changes: Any) -> Entry | None:
    """Another config for an entry that does not run, with `changes` of the entry; None where it has been started.

    Raises:
        RunError: its run exists with another config.
    """
    text = to_yaml(config)
    another = text != store.frozen(entry.id)
    if another:
        record.check(config)
    changed = store.update(entry.id, (*WAITING, "paused"), frozen=text, **changes)
    if changed is not None:
        if another:
            store.log("edited", entry=entry.id)
        with suppress(OSError):  # a full disk: the list has it, and the run gets it when it starts
            write_atomic(freeze.config_path(store.run(entry)), text)
    return changed


def edit(
    store: Store,
    entry: Entry,
    overrides: Sequence[str],
    changes: Mapping[str, Any],
    *,
    going: bool = False,
    reread: bool = False,
) -> Entry:
    """An entry with other settings.

    Args:
        overrides: keys to set on its config as it was frozen, or, with `reread`, on its file as it reads now.
        changes: of the entry itself.
        going: these may change while it runs.

    Raises:
        QueueError: it runs, or has ended, or would wait for itself.
        ConfigError, Several, RunError: the config would be none, or not one that its run can go on with.
    """
    if entry.state in ENDED or (entry.state in GOING and (overrides or reread or not going)):
        suggestion = "`ganeum queue add` queues it again" if entry.state in ENDED else "`ganeum queue pause` it first"
        raise QueueError(f"{control.called(entry)} is {entry.state}: it cannot be changed so", suggestion=suggestion)
    if changes.get("after"):
        _no_circle(store.all(), entry, changes["after"])
    if overrides or reread:
        if reread:
            path = Path(entry.cwd) / entry.config  # as it was typed, from where the user stood then
            config = load(path, [*entry.overrides, *overrides], section=entry.section)
        else:
            config = load(freeze.thaw(store, entry), [f"name={entry.name}", *overrides])
        if config.name != entry.name:
            raise QueueError(
                f"{control.called(entry)} would be another run, {config.name}",
                suggestion="`ganeum queue remove` it and add that one",
            )
        changed = refreeze(store, entry, config, **changes, overrides=(*entry.overrides, *overrides))
    else:
        changed = store.update(entry.id, (*WAITING, "paused", *(GOING if going else ())), **changes)
    if changed is None:
        raise QueueError(f"{control.called(entry)} has just been started: it cannot be changed so")
    return changed


def _no_circle(entries: Sequence[Entry], entry: Entry, after: Sequence[int]) -> None:
    """Raises QueueError where `entry` would wait for itself, by way of others or at once: for ever, that is."""
    by_id, seen = {one.id: one for one in entries}, set[int]()
    ways = [[id] for id in after]
    while ways:
        way = ways.pop()
        if way[-1] == entry.id:
            names = ", which comes after ".join(control.called(by_id[id]) for id in way)
            raise QueueError(f"{control.called(entry)} would wait for itself", where="--after", why=f"after {names}")
        if way[-1] in by_id and way[-1] not in seen:
            seen.add(way[-1])
            ways += [[*way, id] for id in by_id[way[-1]].after]
