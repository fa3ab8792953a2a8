"""A YAML file as a flat list of keys, each with its value and the line it stands on; what is wrong is collected.

PyYAML's reading differs from what people mean in a few places, so scalars are resolved here: `1e-3` is a number,
`010` and `2024-01-01` and `1:30` are text, and a key that stands twice is an error.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from ganeum.config.keys import sections
from ganeum.errors import ConfigError, GaneumError

INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)")
NUMBER = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
NULLS = ("", "~", "null", "Null", "NULL")
# Sections that are not ours, read key by key all the same: scripts around Hugging Face's Trainer have them.
THEIRS = frozenset({"training", "inference", "tokenization", "training.tokenization"})


@dataclass(frozen=True)
class Place:
    """Where a value was written: a line of a file, or the command line."""

    file: Path | None = None
    line: int | None = None
    argument: str | None = None

    def __str__(self) -> str:
        if self.file is None:
            return f"the command line: {self.argument}"
        return shown(self.file) + (f", line {self.line}" if self.line else "")

    def assign(self, key: str, value: object) -> str:
        """How a user writes `key` here: `key: value` in a file, `key=value` on the command line."""
        return f"{key}={value}" if self.file is None else f"{key}: {value}"


@dataclass(frozen=True)
class Value:
    """One value as it was written. `plain` is False in quotes; `value` is a list or dict if it is no single value,
    and `text` is empty then."""

    value: object
    text: str
    plain: bool
    place: Place


PLAIN = {
    "expected <block end>": "this line is indented unlike those above it",
    "could not find expected ':'": "a key with no `: ` after it",
    "found another document": "a second document begins here; a config is one",
    "mapping values are not allowed here": "a second `: ` in one line, or a line indented too far",
}


class _Loader(yaml.SafeLoader):
    """PyYAML's reader without its opinion on what a plain scalar is."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 (the parent's shape)


def shown(path: Path) -> str:
    """A path as a user would type it: relative to where they stand if it is below, forward slashes."""
    absolute, here = Path(os.path.abspath(path)), Path.cwd()  # noqa: PTH100 (resolve() would follow links)
    return (absolute.relative_to(here) if absolute.is_relative_to(here) else absolute).as_posix()


def scalar(text: str, plain: bool = True) -> object:
    """What a scalar means: `12` → 12, `1e-3` → 0.001, `true` → True, `null` → None, anything else the text itself."""
    if not plain:
        return text
    if text in NULLS:
        return None
    if text in (text.lower(), text.upper(), text.capitalize()) and text.lower() in TRUTHS:
        return TRUTHS[text.lower()]
    try:
        if INTEGER.fullmatch(text):
            return int(text)
        if NUMBER.fullmatch(text) and not re.match(r"[-+]?0[0-9]", text):
            return float(text.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:  # thousands of digits: no number that a config can mean
        return text
    return text


def joined(places: Iterable[Place]) -> str:
    """`a.yaml, lines 3 and 9`, one line of text for each file."""
    lines: dict[Path, list[int]] = {}
    texts: list[str] = []
    for place in (places := list(places)):
        if place.file is not None and place.line is not None:
            lines.setdefault(place.file, []).append(place.line)
    for file, numbers in lines.items():
        numbers = sorted(set(numbers))
        first = str(Place(file, numbers[0]))
        if len(numbers) > 1:
            first = str(Place(file)) + ", lines " + ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"
        texts.append(first)
    texts.extend(dict.fromkeys(str(place) for place in places if place.file is None))
    return "\n".join(texts)


def read(path: Path, errors: list[GaneumError], section: str | None = None) -> list[tuple[str, Value]]:
    """The file's keys, dotted, in its order: `[("train.batch_size", Value(64, …)), …]`; a section that is empty is
    left out, and a mapping below a key that is no section stays one value (the caller knows the sections).

    Args:
        path: the file.
        errors: what is wrong with single keys is added here.
        section: only what stands below this key at the top of the file, as if it were a file of its own, with the
            file's `base:` where the section has none.

    Raises:
        ConfigError: the file cannot be read as YAML at all, or has no such section.
    """
    node = _compose(path)
    if node is None:
        raise ConfigError("the config is empty", where=shown(path), suggestion="model:\n  n_layer: 6")
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(
            f"a config must hold keys with values, but this is {_what(node)}",
            where=str(_place(path, node)),
            suggestion="model:\n  n_layer: 6",
        )
    if section is None:
        return list(_entries(path, node, "", {}, errors))
    tops = {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}
    chosen = tops.get(section)
    if not isinstance(chosen, yaml.MappingNode):
        raise _no_section(path, section, tops)
    found = list(_entries(path, chosen, "", {}, errors))
    if "base" in tops and "base" not in dict(found):
        found += [entry for entry in _entries(path, node, "", {}, []) if entry[0] == "base"]
    return found


def _no_section(path: Path, section: str, tops: Mapping[str, yaml.Node]) -> ConfigError:
    there = [name for name, node in tops.items() if isinstance(node, yaml.MappingNode) and name not in sections()]
    near = difflib.get_close_matches(section, there, n=1, cutoff=0.5) or there[:1]
    return ConfigError(
        f"there is no section {section}",
        where=shown(path),
        why=f"its sections are {', '.join(there)}" if there else "it has no sections: it is one config",
        suggestion=f"--config-section {near[0]}" if near else "the file without --config-section",
    )


def _compose(path: Path) -> yaml.Node | None:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"a config must be UTF-8 text, but byte {error.start:,} (0x{error.object[error.start]:02x}) is not",
            where=shown(path),
            suggestion="save the file as UTF-8 in your editor",
        ) from None
    except OSError as error:
        raise ConfigError(f"the config cannot be read: {error.strerror}", where=shown(path)) from None
    try:
        return _Loader(text).get_single_node()
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            f"the file is not text: it holds the control character 0x{error.character:02x}", where=shown(path)
        ) from None
    except yaml.MarkedYAMLError as error:
        raise _syntax(path, text, error) from None
    except RecursionError:
        raise ConfigError("the file nests too deeply to be a config", where=shown(path)) from None


def _syntax(path: Path, text: str, error: yaml.MarkedYAMLError) -> ConfigError:
    """PyYAML's complaint in words for people, where it is one of those that they meet."""
    problem, mark = str(error.problem), error.problem_mark or error.context_mark
    if "expected ':'" in problem:
        mark = error.context_mark  # the key, not where the search for its end gave up
    for jargon, words in PLAIN.items():
        if jargon in problem:
            problem = words
    if "quoted scalar" in str(error.context) and "end of stream" in problem:
        problem, mark = "a quote is opened here and never closed", error.context_mark
    line = mark.line + 1 if mark else None
    lines = text.splitlines()
    tab = line is not None and line <= len(lines) and re.match(r" *\t", lines[line - 1]) is not None
    return ConfigError(
        "the file is not valid YAML: " + ("a tab where spaces belong" if tab else problem),
        where=str(Place(path, line)),
        why="YAML indents with spaces only" if tab else None,
        suggestion="two spaces for each level" if tab else None,
    )


def _place(path: Path, node: yaml.Node) -> Place:
    return Place(path, node.start_mark.line + 1)


def _what(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return f"only {node.value!r}" if isinstance(node, yaml.ScalarNode) else "keys with values"


def _entries(
    path: Path, mapping: yaml.MappingNode, prefix: str, first: dict[str, int], errors: list[GaneumError]
) -> Iterator[tuple[str, Value]]:
    for key_node, node in mapping.value:
        place = _place(path, key_node)
        if not isinstance(key_node, yaml.ScalarNode):
            errors.append(ConfigError("a key must be a word", where=str(place)))
            continue
        key = prefix + key_node.value
        if key in first:  # `train.batch_size:` and `train:` with `batch_size:` below it are one key
            errors.append(
                ConfigError(
                    f"{key} stands twice, first in line {first[key]}",
                    where=str(place),
                    why="only one of the two values could count",
                    suggestion="remove one of them",
                )
            )
            continue
        first[key] = place.line or 0
        if isinstance(node, yaml.MappingNode) and (key in sections() or key in THEIRS):
            yield from _entries(path, node, key + ".", first, errors)
        elif isinstance(node, yaml.ScalarNode):
            plain = node.style is None and node.tag in ("tag:yaml.org,2002:str", "!")
            yield key, Value(scalar(node.value, plain), node.value, plain, place)
        else:
            yield key, Value(_content(node, {}), "", True, place)


def _content(node: yaml.Node, made: dict[int, object]) -> object:
    """A list or a mapping as Python has them. `made`: what an anchor stands for, so that an alias is no second copy
    and may even lie within what it names."""
    if isinstance(node, yaml.ScalarNode):
        return scalar(node.value, node.style is None)
    if id(node) in made:
        return made[id(node)]
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, object] = {}
        made[id(node)] = mapping
        mapping.update((str(key.value), _content(value, made)) for key, value in node.value)
        return mapping
    items: list[object] = []
    made[id(node)] = items
    items.extend(_content(item, made) for item in node.value)
    return items
