"""Writes `configs/base.yaml`, `docs/config.md` and `docs/huggingface.md`: `python -m ganeum.config.reference`.

The first two from the schema, the last from the table of names. A test compares the files with what is written here,
so they cannot lag behind.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import yaml

from ganeum.config.huggingface import TABLE, Name
from ganeum.config.keys import Key, keys, sections

BASE = Path("configs/base.yaml")
PAGE = Path("docs/config.md")
NAMES = Path("docs/huggingface.md")
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


def names_page() -> str:
    """The page of Hugging Face's names: turned, not needed, refused."""
    tables = {
        "{turned}": _turned(""),
        "{model}": _turned("model.") + "\n\n" + _reasons("model.", lambda one: True),
        "{tokenization}": _turned("tokenization.") + "\n\n" + _reasons("tokenization.", lambda one: True),
        "{inference}": _turned("inference.") + "\n\n" + _reasons("inference.", lambda one: True),
        "{needless}": _reasons("", lambda one: one.neutral is None),
        "{refused}": _reasons("", lambda one: one.neutral is not None),
    }
    text = NAMES_PAGE
    for place, table in tables.items():
        text = text.replace(place, table)
    return text


def _within(section: str) -> dict[str, Name]:
    """The names of a section without it: `""`, `model.`, `tokenization.` or `inference.`."""
    return {
        name.removeprefix(section): one
        for name, one in sorted(TABLE.items())
        if name.startswith(section) and (section or "." not in name)
    }


def _turned(section: str) -> str:
    rows = ["| name | here | |", "|---|---|---|"]
    for name, one in _within(section).items():
        if one.ours:
            ours = ", ".join(f"`{key}`" if key in keys() else key for key in one.ours.split(", "))
            rows.append(f"| `{name}` | {ours} | {one.note} |")
    return "\n".join(rows)


def _reasons(section: str, wanted: Callable[[Name], bool]) -> str:
    """The names that set nothing, by the reason; what may stand there all the same, where not everything may."""
    rows: dict[str, list[str]] = {}
    for name, one in _within(section).items():
        if not one.ours and wanted(one):
            rows.setdefault(one.note, []).append(f"`{name}`")
    lines = ["| names | because |", "|---|---|"]
    return "\n".join([*lines, *(f"| {', '.join(names)} | {note} |" for note, names in rows.items())])


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
- **Hugging Face's names** (`per_device_train_batch_size`, `fp16`, `save_steps`, …) are turned into these:
  [huggingface](huggingface.md). `--config-section NAME` takes one config of a file that holds several.
- **Mistakes** are reported all at once with file and line: unknown keys with the nearest one, names from nanoGPT with
  ours, values of the wrong kind, values that contradict each other.

`train.batch_size` is the batch that the model learns with, sequences per optimizer step. `train.micro_batch_size` of
them are computed at one time, and how often gradients are accumulated follows from the two. `step` counts completed
updates.

This page is written from `src/ganeum/config/schema.py` by `python -m ganeum.config.reference`.

"""


NAMES_PAGE = """\
# Hugging Face's names

A config may be written in the names of `TrainingArguments`, of a model's `config.json` and of scripts that fine-tune
(run_summarization.py, run_translation.py, run_clm.py, TRL's, PEFT's): they become ganeum's, once, and `config.yaml` in
the run's directory holds ganeum's alone. Nothing is ignored: a name is turned, or it makes no difference here and the
reason is said, or it is refused with the reason.

```yaml
# config.yaml
small:
  base: configs/base.yaml     # what the section does not say: the model, the data
  training:
    per_device_train_batch_size: 4
    gradient_accumulation_steps: 2
    fp16: true
    lr_scheduler_type: linear
    dataloader_num_workers: 4
  inference:
    batch_size: 8
```

`ganeum train config.yaml --config-section small --max_steps 10` begins with

```text
Hugging Face's names in this config mean:
  per_device_train_batch_size: 4, gradient_accumulation_steps: 2 → train.batch_size: 8, train.micro_batch_size: 4
  fp16: true → train.precision: fp16
  lr_scheduler_type: linear → train.schedule: wsd, train.decay_share: 1, train.min_learning_rate: 0
  inference.batch_size: 8 → sample.at_once: 8
  max_steps: 10 → train.max_iters: 10
  dataloader_num_workers: 4 (no workers are needed: a batch is read from memory-mapped files)
```

A model of Hugging Face's is fine-tuned in the same way. What such a file leaves to the script that reads it, the model
and the data, is said in the names of run_summarization.py or in ours, below `base:` or on the command line:

```sh
ganeum train config.yaml --config-section small --model_name_or_path google/mt5-small --train_file news.jsonl \\
    --text_column body --summary_column title --source_prefix "summarize: " --max_source_length 512 --max_steps 10
```

- **Where**: at the top of a file, below `training:` or `train:`, and on the command line (`max_steps=10`,
  `--max_steps 10`, `--fp16`); a model's below `model:`. `--config-section NAME` takes one section of a file that holds
  several, and the run is called `FILE-NAME`.
- **Who wins**: the command line over the file, the file over its `base:`, in whosever names. One thing said twice in
  one file, in two ways, is an error that names both lines.
- **What is not said** has ganeum's default, not Hugging Face's (learning rate 5e-5 with linear decay, no warm-up, no
  weight decay, β₂ 0.999, 3 epochs): [config](config.md) lists them.
- **A length** must be said: `max_steps` or `num_train_epochs`.
- **DeepSpeed**: of stage 2 and 3 of a `ds_config.json` DeepSpeed's own engine takes the steps, told what the file says
  ([fine-tuning](finetuning.md#deepspeed)); of stages 0 and 1 ganeum's, with the offload, precision, clipping, optimizer
  and schedule of the file. What cannot be honoured (nvme, quantized ZeRO, other optimizers) is refused by name.

This page is written from `src/ganeum/config/huggingface.py` by `python -m ganeum.config.reference`.

## Turned into ours

{turned}

## A model's, below `model:`

Of those that set nothing, some are refused if they ask for something else than what the reason says.

{model}

## Below `tokenization:`

{tokenization}

## Below `inference:`

{inference}

## Not needed

Taken with any value, and named when a run starts.

{needless}

## Refused

With any value but the one that says what is so here anyway.

{refused}
"""


def main() -> None:
    for path, text in ((BASE, base_yaml()), (PAGE, page()), (NAMES, names_page())):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
