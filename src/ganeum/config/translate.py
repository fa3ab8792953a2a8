"""Hugging Face's names turned into ours, layer by layer, and the notice of what they became."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ganeum.config.huggingface import TABLE
from ganeum.config.huggingface_rules import Rule, refusal, written
from ganeum.config.keys import keys
from ganeum.config.source import Place, Value, joined
from ganeum.errors import ConfigError, GaneumError

# What a name of a later layer takes the place of: `--save_steps 1000` over a file's `save_strategy: epoch`.
INSTEAD = {
    "max_steps": ("num_train_epochs",),
    "num_train_epochs": ("max_steps",),
    "warmup_ratio": ("warmup_steps",),
    "logging_steps": ("logging_strategy",),
    "eval_steps": ("eval_strategy", "evaluation_strategy"),
    "save_steps": ("save_strategy",),
}
WIDTH = 118


@dataclass(frozen=True)
class Turned:
    """What some names that met in one layer came to: our keys, those that are only implied, and a word on it."""

    names: tuple[str, ...]
    written: str
    settings: Mapping[str, Value]
    implied: Mapping[str, Value]
    note: str


@dataclass
class Translator:
    """All of their names so far, from every layer: a name meets those of the layers below it."""

    given: dict[str, Value] = field(default_factory=dict)
    turned: list[Turned] = field(default_factory=list)
    aside: dict[str, Value] = field(default_factory=dict)  # what sets nothing

    def forget_names(self) -> None:
        """Two files with one base are two runs: the base's name is not theirs."""
        for name in ("run_name", "output_dir"):
            self.given.pop(name, None)

    def turn(
        self, layer: Mapping[str, Value], ours: Mapping[str, Value], errors: list[GaneumError]
    ) -> dict[str, Value]:
        """The values of our keys that one layer's names come to.

        Args:
            layer: their names in this layer, as TABLE has them.
            ours: what the same layer says in our own names; it must not say something else.
            errors: refused names, values that cannot be read, and contradictions are added here.
        """
        for name in layer:
            for other in INSTEAD.get(name, ()):
                self.given.pop(other, None)
        self.given.update(layer)
        found = list(self._meetings(layer, errors))
        self.turned += found
        values: dict[str, Value] = {}
        said_by: dict[str, Turned] = {}
        for one in found:
            for key, value in one.settings.items():
                before = values.get(key) or ours.get(key)
                if before is not None and before.value != value.value:
                    errors.append(self._contradiction(one, key, said_by.get(key), before))
                values[key], said_by[key] = value, one
        for one in found:
            for key, value in one.implied.items():
                values.setdefault(key, value)
        return values

    def _meetings(self, layer: Mapping[str, Value], errors: list[GaneumError]) -> Iterator[Turned]:
        done: set[Rule] = set()
        for name, value in layer.items():
            entry = TABLE[name]
            try:
                if entry.key is not None and value.value is None and "null" not in keys()[entry.key].takes:
                    continue  # their way to say nothing
                if entry.key is not None:
                    yield Turned((name,), written(layer, name), {entry.key: value}, {}, "")
                elif entry.rule is None:
                    self._stand_aside(name, value)
                elif entry.rule not in done:
                    done.add(entry.rule)
                    meaning = entry.rule(self.given)
                    values = {s.key: (_value(s.value, value.place), s.implied) for s in meaning.settings}
                    names = tuple(n for n, one in TABLE.items() if one.rule is entry.rule and n in self.given)
                    yield Turned(
                        names,
                        written(self.given, *names),
                        {key: one for key, (one, implied) in values.items() if not implied},
                        {key: one for key, (one, implied) in values.items() if implied},
                        meaning.note,
                    )
            except ConfigError as error:
                errors.append(error)

    def _stand_aside(self, name: str, value: Value) -> None:
        entry = TABLE[name]
        values = value.value if isinstance(value.value, list) and value.value else [value.value]
        if entry.neutral is not None and not all(one in entry.neutral for one in values):
            raise refusal(self.given, name, why=entry.note)
        self.aside[name] = value

    def _contradiction(self, one: Turned, key: str, other: Turned | None, there: Value) -> ConfigError:
        verb = "comes to" if len(one.names) == 1 else "come to"
        said = f"{other.written} to {there.text}" if other else f"it is {there.text} beside that"
        places = [self.given[name].place for name in (*one.names, *(other.names if other else ()))]
        return ConfigError(
            f"{one.written} {verb} {key}: {one.settings[key].text}, but {said}",
            where=joined([*places, *([] if other else [there.place])]),
            why="it is said twice, in two ways",
            suggestion="remove one of them",
        )

    def notice(self, values: Mapping[str, Value]) -> str | None:
        """What became of all of their names, for people; None if there are none. `values`: what our keys ended as, so
        that nothing is said of what another layer replaced."""
        lines: list[str] = []
        for one in self.turned:
            every = {**one.settings, **one.implied}
            kept = {key: value for key, value in every.items() if values.get(key) is value}
            same = [key.rpartition(".")[2] for key in kept] == [name.rpartition(".")[2] for name in one.names]
            if (same and not one.note) or (every and not kept):
                continue
            became = ", ".join(f"{key}: {value.text}" for key, value in kept.items())
            became = f" → {became}" if became else ""
            if became or one.note:
                lines.append(one.written + became + (f" ({one.note})" if one.note else ""))
        reasons: dict[str, list[str]] = {}
        for name in self.aside:
            reason = TABLE[name].note if TABLE[name].neutral is None else "so it is here anyway"
            reasons.setdefault(reason, []).append(name)
        lines += [f"{written(self.given, *names)} ({reason})" for reason, names in reasons.items()]
        if not lines:
            return None
        wrapped = [textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ") for line in lines]
        return "\n".join(["Hugging Face's names in this config mean:", *wrapped])


def _value(value: object, place: Place) -> Value:
    if isinstance(value, bool):
        return Value(value, "true" if value else "false", True, place)
    return Value(value, f"{value:g}" if isinstance(value, float) else str(value), True, place)
