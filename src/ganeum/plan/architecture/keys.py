"""The values of a config.json, each checked as it is read; what is left out has transformers' default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ganeum.errors import ConfigError


@dataclass(frozen=True)
class Keys:
    """A config.json's keys. ``name`` is the model's, ``source`` where it was read: errors name it.

    Every reader takes the names that a key goes by, the family's own first: ``("n_embd", "hidden_size")``.
    """

    values: Mapping[str, Any]
    name: str
    source: str

    def size(self, *names: str, default: int) -> int:
        """A whole number of at least 1; null counts as left out."""
        found = self.optional_size(*names)
        return default if found is None else found

    def optional_size(self, *names: str) -> int | None:
        """The same, None where it is left out or null."""
        key, value = self._first(names)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise self.wrong(key, value, "a whole number of at least 1")
        return value

    def share(self, *names: str, default: float) -> float:
        """A number from 0 to 1, both included."""
        key, value = self._first(names)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise self.wrong(key, value, "a number from 0 to 1")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """true or false."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, value, "true or false")
        return default if value is None else value

    def text(self, *names: str, default: str) -> str:
        """A word."""
        key, value = self._first(names)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, value, "a word in quotation marks")
        return default if value is None else value

    def inner(self, name: str) -> Keys:
        """The keys of an object inside; none where there is no such object."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise self.wrong(name, value, "an object with keys of its own")
        return Keys(value or {}, self.name, self.source)

    def divided(self, width: int, heads: int) -> int:
        """``width / heads``: the width of a head where no key gives it."""
        if width % heads:
            raise ConfigError(
                f"{self.name} is {width:,} wide, which {heads} heads cannot share",
                where=self.source,
                why="each head takes an equal part of the width",
            )
        return width // heads

    def shared(self, heads: int, key_heads: int) -> int:
        """``key_heads``, each of which serves as many heads of queries."""
        if heads % key_heads:
            raise ConfigError(
                f"{heads} heads of {self.name} cannot share {key_heads} heads of keys",
                where=self.source,
                why="each head of keys and values serves as many heads of queries",
            )
        return key_heads

    def wrong(self, key: str, value: object, expected: str) -> ConfigError:
        """The error of a value that no model has."""
        return ConfigError(f"{key} in the config of {self.name} is {value!r}, not {expected}", where=self.source)

    def _first(self, names: tuple[str, ...]) -> tuple[str, Any]:
        said = [(name, self.values[name]) for name in names if self.values.get(name) is not None] or [(names[0], None)]
        (first, value), (last, other) = said[0], said[-1]
        if value != other:
            raise ConfigError(
                f"{first} in the config of {self.name} is {value!r}, and {last} is {other!r}",
                where=self.source,
                why="they are two names of one thing",
                suggestion="one of them",
            )
        return first, value
