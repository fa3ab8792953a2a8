"""The keys of a config as one flat table: `train.batch_size` → what it takes, its default, what it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter

from ganeum.config.schema import Config


@dataclass(frozen=True)
class Key:
    """One key: its dotted name, its sentence in the schema, its default, and what values it takes."""

    name: str
    description: str
    default: object
    annotation: Any

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """What checks a value; made for the few keys that a config sets, not for all."""
        return TypeAdapter(self.annotation)

    @cached_property
    def alternatives(self) -> tuple[Mapping[str, Any], ...]:
        """JSON schema of each thing that it takes."""
        schema = self.adapter.json_schema()
        return tuple(schema.get("anyOf", (schema,)))

    @property
    def section(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def takes(self) -> frozenset[str]:
        """JSON's names of what may stand there: integer, number, boolean, null, string, array; words are not string."""
        return frozenset(a["type"] for a in self.alternatives if "type" in a and not _words(a))

    @property
    def words(self) -> tuple[str, ...]:
        """The words it knows: `auto`, or the names of the choices."""
        return tuple(word for a in self.alternatives for word in _words(a))

    @property
    def kind(self) -> str:
        """What it takes, in words: `a whole number of at least 1, or auto`."""
        spoken = [_spoken(a) for a in self.alternatives if not _words(a)]
        if self.words:
            spoken.append(("one of " if len(self.words) > 2 else "") + _listed(self.words))
        return ", or ".join(spoken)


def _words(alternative: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(alternative.get("enum", ())) or ((alternative["const"],) if "const" in alternative else ())


def _listed(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def _spoken(alternative: Mapping[str, Any]) -> str:
    kind = alternative.get("type")
    if kind == "array":
        return "a list of them"
    if kind not in ("integer", "number"):
        return {"boolean": "true or false", "string": "text", "null": "null"}[str(kind)]
    noun = "a whole number" if kind == "integer" else "a number"
    low, above = alternative.get("minimum"), alternative.get("exclusiveMinimum")
    high, below = alternative.get("maximum"), alternative.get("exclusiveMaximum")
    if kind == "integer" and above is not None:
        low, above = above + 1, None
    if low is not None and high is not None:
        return f"{noun} from {low:g} to {high:g}" if kind == "number" else f"{noun} from {low:,} to {high:,}"
    limits = [
        text
        for limit, text in (
            (low, f"of at least {low}"),
            (above, f"above {above}"),
            (high, f"of at most {high}"),
            (below, f"below {below}"),
        )
        if limit is not None
    ]
    return " ".join((noun, " and ".join(limits).replace(".0", ""))).strip()


def walk(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """The keys of a section and of those in it, ``prefix`` before each name."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from walk(field.annotation, f"{prefix}{name}.")
            continue
        annotation: Any = field.annotation
        for constraint in field.metadata:
            annotation = Annotated[annotation, constraint]
        yield Key(prefix + name, field.description or "", field.default, annotation)


@lru_cache(maxsize=1)
def keys() -> Mapping[str, Key]:
    """Every key by its dotted name, in the schema's order."""
    return {key.name: key for key in walk(Config)}


@lru_cache(maxsize=1)
def sections() -> Mapping[str, str]:
    """Every section by its dotted name, with its sentence: `train`, `log.wandb`."""

    def walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield prefix + name, field.description or ""
                yield from walk(field.annotation, f"{prefix}{name}.")

    return dict(walk(Config, ""))


def matching(name: str) -> list[str]:
    """The keys that `name` can mean: of those that end in it, the ones nearest to the root.

    `dropout` is model.dropout, not train.lora.dropout; `interval` is sample.interval or log.interval.
    """
    found = [key for key in keys() if f".{key}".endswith(f".{name}")]
    return [key for key in found if key.count(".") == min(other.count(".") for other in found)]


def value_of(config: Config, name: str) -> object:
    """The value of one dotted key: `value_of(config, "train.batch_size")`."""
    value: object = config
    for part in name.split("."):
        value = getattr(value, part)
    return value
