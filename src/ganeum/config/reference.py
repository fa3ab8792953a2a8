"""Writes what the schema says into `configs/base.yaml` and `docs/config.md`: `python -m ganeum.config.reference`.

A test compares the files with what is written here, so they cannot lag behind.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import yaml

from ganeum.config.keys import Key, keys, sections

BASE = Path("configs/base.yaml")
PAGE = Path("docs/config.md")
COLUMN = 36  # of base.yaml, where the comments begin


def base_yaml() -> str:
    """Every key with its default and what it does: the defaults themselves, as a file."""
    lines = [
        "# Every key there is, with its default. A config says only what differs, and need not name this file.",
        "# Written from src/ganeum/config/schema.py by `python -m ganeum.config.reference`: change it there.",
        "",
    ]
    parents: list[str] = []
    for key in keys().values():
        *path, name = key.name.split(".")
        for depth, section in enumerate(path):
            if path[: depth + 1] != parents[: depth + 1]:
                lines += [] if depth else [""]
                lines += _commented(f"{'  ' * depth}{section}:", sections()[".".join(path[: depth + 1])])
        parents = path
        lines += _commented(f"{'  ' * len(path)}{name}: {_written(key.default)}", _sentence(key))
    return "\n".join(lines) + "\n"


def _commented(line: str, sentence: str) -> list[str]:
    """`line` with the sentence beside it, from one column on in the whole file."""
    first, *more = textwrap.wrap(sentence, 118 - COLUMN)
    return [f"{line:<{COLUMN}}# {first}", *(f"{'':<{COLUMN}}# {rest}" for rest in more)]


def page() -> str:
    """The page of all keys."""
    rows: list[str] = []
    section = None
    for key in keys().values():
        if key.section != section:
            section = key.section
            title = f"## `{section}`: {sections()[section]}" if section else "## The run"
            rows += ["", title, "", "| key | takes | default | what it does |", "|---|---|---|---|"]
        name = key.name.rpartition(".")[2]
        cells = (f"`{name}`", key.kind, f"`{_written(key.default)}`", key.description)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return HEAD + "\n".join(rows).lstrip("\n") + "\n"


def _sentence(key: Key) -> str:
    unsaid = [word for word in key.words if word not in key.description and word != "auto"]
    return key.description + (f" ({key.kind})" if unsaid else "")


def _written(default: object) -> str:
    return yaml.safe_dump(default, default_flow_style=True).replace("...", "").strip()


HEAD = """\
# The config

A run is one YAML file. It says what differs from the defaults below (the same as in `configs/base.yaml`):

```yaml
model:
  n_layer: 12
train:
  learning_rate: 1e-3
  max_iters: 5000
```

- **Inherit** with `base:`, a path from where the file lies. The file's keys are laid over the base's, one by one.
  `name` is not inherited, since two files would share one run. A file that says how long to train (`max_iters`,
  `epochs`, `tokens` or `hours`) replaces the length of its base.
- **Override** on the command line: `ganeum train a.yaml train.max_iters=10`. A name that only one key has is enough:
  `max_iters=10`, and nanoGPT's forms `--max_iters 10` and `--max_iters=10` are the same. The command line wins over
  the files.
- **Values**: `1e-3` and `1e4` are numbers, and `1e4` is a whole one. What stands in quotes is text and never read as a
  number; text needs no quotes. `true`, `false`, `yes`, `no`, `on` and `off` are truth values, and no numbers. `null`
  unsets a key.
- **`auto`** is decided once, when the run is made. `config.yaml` in the run's directory says what it became, and
  `plan.json` why.
- **Mistakes** are reported all at once with file and line: unknown keys with the nearest one, names from nanoGPT and
  Hugging Face with ours, values of the wrong kind, values that contradict each other.

`train.batch_size` is the batch that the model learns with, sequences per optimizer step. `train.micro_batch_size` of
them are computed at one time, and how often gradients are accumulated follows from the two. `step` counts completed
updates.

This page is written from `src/ganeum/config/schema.py` by `python -m ganeum.config.reference`.

"""


def main() -> None:
    for path, text in ((BASE, base_yaml()), (PAGE, page())):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
