"""From YAML and overrides to a config: files are laid over each other key by key, then everything is checked at once.

The order, later wins: the schema's defaults, the `base:` file (and its own base before it), the file, the overrides.
Two keys are not passed on like the rest: `name` belongs to one file, and of the lengths (max_iters, epochs, tokens,
hours) the last file or command line that says one replaces what the layers below it said. Hugging Face's names are
turned into ours layer by layer, so that what counts is where a thing was said, not in whose words.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ganeum.config.checks import LENGTHS, contradictions, name_error, no_length
from ganeum.config.huggingface import TABLE, known
from ganeum.config.huggingface_examples import MEETING
from ganeum.config.keys import Key, keys, matching, sections
from ganeum.config.names import instead_of
from ganeum.config.schema import Config
from ganeum.config.source import THEIRS, Place, Value, read, scalar, shown
from ganeum.config.translate import Translator
from ganeum.errors import ConfigError, GaneumError, RunError, Several

Values = dict[str, Value]
# What weights that are trained already are trained on with: T5 by Adafactor (Raffel et al. 2020, arXiv 1910.10683,
# section 3.1.2), and with AdamW 1e-4 to 3e-4 (transformers' page on T5), of which the careful end.
ADAFACTOR, TRAINED = 1e-3, 1e-4


def load(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    section: str | None = None,
    say: Callable[[str], object] | None = None,
) -> Config:
    """The config in `path` with `overrides` (`train.max_iters=10`; `max_iters=10` where only one key is called so).

    `auto` stays `auto`; `name` becomes the file's stem unless given, with `-section` where one is chosen.

    Args:
        path: the YAML file.
        overrides: keys to set on it.
        section: a key at the top of the file below which the config stands.
        say: called once with what Hugging Face's names came to, if there are any.

    Raises:
        ConfigError, Several: everything that is wrong, with file and line.
    """
    errors: list[GaneumError] = []
    file, theirs = Path(path), Translator()
    values = _file(file, theirs, errors, (), section=section)
    _lay(values, _overrides(overrides, errors), theirs, errors)
    numbers = _fit_all(values, errors)
    if numbers.get("model.source") and not numbers.get("model.fresh") and "train.learning_rate" not in values:
        numbers["train.learning_rate"] = ADAFACTOR if numbers.get("train.optimizer") == "adafactor" else TRAINED
    if numbers.get("name") is None:
        numbers["name"] = name = file.stem + (f"-{section}" if section else "")
        if problem := name_error(name):
            errors.append(
                ConfigError(
                    f"the run would be called {name!r} after its file, but {problem}",
                    where=shown(file),
                    suggestion="name: a_name_of_letters_and_digits",
                )
            )
    places = {key: value.place for key, value in values.items()}
    config = _config(numbers)
    errors.extend(contradictions(config, places, settled=_settled(values, numbers), where=shown(file)))
    if not errors:  # a length may be what was misspelt above
        errors.extend(no_length(config, where=shown(file)))
    notices = [notice for notice in (theirs.notice(values), _open(section, values)) if notice]
    if not errors and say is not None and notices:
        say("\n".join(notices))
    return _config_or_raise(config, errors)


def _open(section: str | None, values: Values) -> str | None:
    """Guides' sections leave the model and the data to a script: what is taken in their place is no guess of theirs."""
    if section is None or any(key.startswith(("model.", "data.")) for key in values):
        return None
    return (
        f"{section} names no model and no data: this is a GPT on {Config().data.directory}, the default; "
        "model_name_or_path and train_file name others"
    )


def load_stored(path: str | os.PathLike[str]) -> Config:
    """A run's own `config.yaml`, as `record` wrote it: the same reading, without what only a new run must satisfy.

    Raises:
        RunError: it was damaged or edited into something that is no config.
    """
    errors: list[GaneumError] = []
    values: Values = {}
    try:
        for name, value in read(Path(path), errors):
            _accept(values, name, value, errors)
        return _config_or_raise(_config(_fit_all(values, errors)), errors)
    except GaneumError as error:
        first = error.errors[0] if isinstance(error, Several) else error
        raise RunError(
            f"the config of the run {Path(path).resolve().parent.name} is damaged: {first.what}",
            where=first.where,
            suggestion="restore the file from a copy; or take the run's directory away and train anew",
        ) from None


def _config(numbers: Mapping[str, object]) -> Config:
    tree: dict[str, Any] = {}
    for name, value in numbers.items():
        *parents, last = name.split(".")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return Config.model_validate(tree)


def _config_or_raise(config: Config, errors: list[GaneumError]) -> Config:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise Several(sorted(errors, key=_reading_order))
    return config


def _reading_order(error: GaneumError) -> tuple[str, int]:
    file, _, line = (error.where or "").partition(", line")
    return file, int(found.group()) if (found := re.search("[0-9]+", line)) else 0


def _file(
    path: Path,
    theirs: Translator,
    errors: list[GaneumError],
    below: tuple[Path, ...],
    *,
    where: str | None = None,
    section: str | None = None,
) -> Values:
    """The file over its base. `below`: the files that led here, so that a circle is seen."""
    if path.is_dir() or not path.exists():
        raise _missing(path, where)
    if any(path.samefile(other) for other in below):
        raise ConfigError(
            "the `base:` of these files runs in a circle: " + " → ".join(shown(file) for file in (*below, path)),
            where=where,
            suggestion="take one of the `base:` lines out",
        )
    own = dict(read(path, errors, section))
    base = own.pop("base", None)
    values: Values = {}
    if base is not None and base.value is not None:
        if isinstance(base.value, str):
            values = _file(path.parent / base.value, theirs, errors, (*below, path), where=str(base.place))
        else:
            errors.append(ConfigError(f"base must be a path, but it is {_shown(base)}", where=str(base.place)))
    values.pop("name", None)
    theirs.forget_names()
    _lay(values, own, theirs, errors)
    return values


def _missing(path: Path, where: str | None) -> ConfigError:
    if path.is_dir():
        what, near = f"{shown(path)} is a directory, not a config", sorted(path.glob("*.yaml"))[:3]
    else:
        what = f"there is no config {shown(path)}"
        others = {file.stem: file for file in [*Path("configs").rglob("*.yaml"), *path.parent.glob("*.yaml")]}
        near = [others[stem] for stem in difflib.get_close_matches(path.stem, others, n=3, cutoff=0.5)]
    return ConfigError(what, where=where, suggestion=" or ".join(shown(file) for file in near) or None)


def _lay(values: Values, layer: Mapping[str, Value], theirs: Translator, errors: list[GaneumError]) -> None:
    """Put a layer over what is there; a layer that says a length takes the others away first."""
    fresh: Values = {}
    foreign: Values = {}
    for name, value in layer.items():
        if (other := known(name, value)) is None:
            _accept(fresh, name, value, errors)
        elif other in foreign:
            errors.append(_twice(name, value, foreign[other]))
        else:
            foreign[other] = value
    fresh = theirs.turn(foreign, fresh, errors) | fresh
    if any(fresh[key].value is not None for key in LENGTHS if key in fresh):
        for key in LENGTHS:
            values.pop(key, None)
    values.update(fresh)


def _twice(name: str, value: Value, before: Value) -> ConfigError:
    return ConfigError(
        f"{name} stands twice, first in {before.place}",
        where=str(value.place),
        why="only one of the two values could count",
        suggestion="remove one of them",
    )


def _accept(values: Values, name: str, value: Value, errors: list[GaneumError]) -> None:
    """Take a value whose key exists; say what is wrong with the others."""
    if name in keys():
        values[name] = value
    elif name in THEIRS:
        if value.value is not None:
            errors.append(ConfigError(f"{name} holds keys, so it cannot be {_shown(value)}", where=str(value.place)))
    elif isinstance(value.value, dict) and _is_config(value.value):
        errors.append(
            ConfigError(
                f"{name} is a section of this file, and none is chosen",
                where=str(value.place),
                suggestion=f"--config-section {name}",
            )
        )
    elif name in sections():
        if value.value is not None:  # a section without keys says nothing, and may stand there
            inside, example = _inside(name, value)
            errors.append(
                ConfigError(
                    f"{name} holds keys, so it cannot be {_shown(value)}",
                    where=str(value.place),
                    suggestion=value.place.assign(inside, example)
                    if value.place.file is None
                    else f"{name}:\n  {inside.removeprefix(name + '.')}: {example}",
                )
            )
    else:
        better = instead_of(name)
        if better is not None and better in keys() and value.place.file is None:
            better = value.place.assign(better, value.text)
        errors.append(ConfigError(f"there is no key {name}", where=str(value.place), suggestion=better))


def _inside(section: str, value: Value) -> tuple[str, object]:
    """A key of a section that holds keys, and what it could be: `model: t5-base` will have meant its source."""
    if section == "model" and isinstance(value.value, str):
        return "model.source", value.text
    within = {name: key.default for name, key in keys().items() if name.startswith(section + ".")}
    return next((name, default) for name, default in within.items() if default not in (None, False))


def _is_config(content: Mapping[str, object]) -> bool:
    """Whether the keys of a mapping are those of a config: then it is one of several in its file."""
    return any(name in THEIRS or name in sections() or name in keys() or name in TABLE for name in content)


def _overrides(overrides: Sequence[str], errors: list[GaneumError]) -> Values:
    values: Values = {}
    for argument in overrides:
        name, equals, text = argument.partition("=")
        name, place = name.strip(), Place(argument=argument)
        value = typed(text, place)
        found = [] if name in sections() else matching(name)  # `train` is no short name of data.train
        if known(name, value) and (len(found) != 1 or name in MEETING):
            found = [name]
        elif len(found) == 1 and (other := known(found[0], value)):  # activation_checkpointing=true
            found = [other]
        if not equals or not name:
            errors.append(
                ConfigError("an override must read key=value", where=str(place), suggestion="train.max_iters=10")
            )
        elif len(found) > 1:
            errors.append(
                ConfigError(
                    f"{name} could be {' or '.join(found)}",
                    where=str(place),
                    suggestion=" or ".join(f"{key}={text}" for key in found),
                )
            )
        elif not found and name == "base":
            errors.append(
                ConfigError("base belongs into the file", where=str(place), why="it says what the file inherits from")
            )
        else:
            values[found[0] if found else name] = value
    return values


def typed(text: str, place: Place) -> Value:
    """A value of the command line: a word in quotes is text, whatever it looks like; a blank at its end stays."""
    bare = text.strip()
    if len(bare) >= 2 and bare[0] == bare[-1] and bare[0] in "'\"":
        return Value(bare[1:-1], bare[1:-1], False, place)
    return Value(scalar(bare), text.lstrip() if bare else "", True, place)


def _fit_all(values: Values, errors: list[GaneumError]) -> dict[str, object]:
    fitted: dict[str, object] = {}
    for name, value in values.items():
        try:
            fitted[name] = fit(keys()[name], value)
        except ConfigError as error:
            errors.append(error)
    return fitted


def fit(key: Key, written: Value) -> object:
    """The value as the key takes it: text as it stands, 64.0 and 1e4 as whole numbers where one is wanted.

    Raises:
        ConfigError: the key does not take it.
    """
    value: Any = written.value
    if "array" in key.takes:
        value = _listed(value, written.plain)
    free = "string" in key.takes and written.plain and not isinstance(value, (tuple, list, dict))
    if free and (value is not None or (written.text == "" and "null" not in key.takes)):
        value = written.text  # `name: 007`, `prompt: yes`: text needs no quotes
    if "integer" in key.takes and isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    try:
        fits = not isinstance(value, float) or math.isfinite(value)
        value = key.adapter.validate_python(value, strict=True)
        if isinstance(value, str):
            value.encode("utf-8")
    except (ValidationError, UnicodeEncodeError):
        fits = False
    if fits and not (key.name == "name" and value is not None and name_error(value)):
        return value
    if key.name == "name" and isinstance(value, str):
        raise ConfigError(
            f"name cannot be {value!r}: {name_error(value)}",
            where=str(written.place),
            why="it becomes the run's directory under results/",
            suggestion=written.place.assign("name", re.sub(r"[^\w.-]+", "_", value).strip("._-")[:100] or "my_run"),
        )
    raise _wrong_value(key, written)


def _listed(value: object, plain: bool) -> object:
    """A list as the schema has it; on a command line `[a.csv, b.csv]` is one."""
    if isinstance(value, str) and plain and value.startswith("[") and value.endswith("]"):
        value = [word for word in map(str.strip, value[1:-1].split(",")) if word]
    return tuple(value) if isinstance(value, list) else value


def _wrong_value(key: Key, written: Value) -> ConfigError:
    value, why, better = written.value, None, None
    number = scalar(written.text.replace(",", ""))
    if isinstance(value, str) and key.words and (near := difflib.get_close_matches(value.lower(), key.words, 1, 0.5)):
        better = near[0]
    elif isinstance(value, str) and isinstance(number, (int, float)) and key.takes & {"integer", "number", "boolean"}:
        why = None if written.plain else "what stands in quotes is text, and text is never read as a number"
        better = written.text.replace(",", "")
    elif isinstance(value, str) and value.lower() == "none" and "null" in key.takes:
        better = "null"
    elif value in (0, 1) and "boolean" in key.takes:
        better = "true" if value else "false"
    elif isinstance(value, bool) and key.takes & {"integer", "number"}:
        why = "true and false are no numbers here"
    return ConfigError(
        f"{key.name} must be {key.kind}, but it is {_shown(written)}",
        where=str(written.place),
        why=why,
        suggestion=written.place.assign(key.name, better) if better else None,
    )


def _shown(written: Value) -> str:
    value = written.value
    if isinstance(value, bool) or not isinstance(value, (str, list, dict, type(None))):
        return written.text
    if isinstance(value, str):
        return f"the text {value!r}"
    return "empty (null)" if value is None else "a list" if isinstance(value, list) else "keys with values"


def _settled(values: Values, numbers: Mapping[str, object]) -> frozenset[str]:
    """The keys whose value was wrong already: what they contradict is not worth saying yet."""
    return frozenset(key for key in keys() if key not in values or key in numbers)
