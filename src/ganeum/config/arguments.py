"""The words after a command, sorted into what stands alone and what sets a key: `--max_iters 10` is `max_iters=10`.

nanoGPT's forms and ours are the same thing here: `--max_iters=10`, `--max_iters 10`, `max_iters=10`,
`--train.max_iters 10`, `--max-iters 10`, and `--eval_only` alone for true; Hugging Face's `--report_to a b` is
`report_to=a,b`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ganeum.config.huggingface import SEVERAL, SWITCHES
from ganeum.config.keys import keys, matching
from ganeum.config.source import TRUTHS
from ganeum.errors import ConfigError


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """`["--max_iters", "10", "a.yaml", "seed=3"]` → `(["a.yaml"], ["max_iters=10", "seed=3"])`.

    Whether a key exists is for `load` to say; here it only matters whether it may stand without a value.

    Raises:
        ConfigError: a key that takes a value stands without one.
    """
    alone: list[str] = []
    overrides: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            (overrides if "=" in word and not _is_file(word) else alone).append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if not equals:
            if words and (words[0].lower() in {*TRUTHS, "auto"} if _is_switch(name) else not words[0].startswith("--")):
                value = words.pop(0)
            elif _is_switch(name):
                value = "true"
            else:
                raise ConfigError(
                    f"--{name} needs a value", where=f"the command line: {word}", suggestion=f"--{name}=VALUE"
                )
        while name in SEVERAL and words and not (words[0].startswith("--") or "=" in words[0] or _is_config(words[0])):
            value += "," + words.pop(0)
        overrides.append(f"{name}={value}")
    return alone, overrides


def _is_file(word: str) -> bool:
    try:
        return Path(word).is_file()
    except OSError:  # longer than any name
        return False


def _is_config(word: str) -> bool:
    return word.endswith((".yaml", ".yml")) or _is_file(word)


def _is_switch(name: str) -> bool:
    found = matching(name)
    return name in SWITCHES or (len(found) == 1 and "boolean" in keys()[found[0]].takes)
