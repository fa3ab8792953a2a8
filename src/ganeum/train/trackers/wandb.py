"""Weights & Biases: the same run before and after a resume, a key that is written nowhere."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ganeum.config.schema import Wandb
from ganeum.errors import RunError
from ganeum.record import read_json, write_json
from ganeum.train.callbacks import Training
from ganeum.train.trackers.tracker import Tracker


def check(options: Wandb) -> None:
    """Raises RunError: it is to be sent online, and there is no key."""
    if options.mode == "online" and not _key():
        raise RunError(
            "Weights & Biases needs a key, and there is none",
            where="WANDB_API_KEY, in the environment or in .env",
            suggestion="a line WANDB_API_KEY=… in .env, or log.wandb.mode=offline (`wandb sync` sends it later)",
        )


class WeightsAndBiases(Tracker):
    """Its id lies in logs/wandb.json.

    The key comes from WANDB_API_KEY, in the environment or in `.env` of the working directory. It goes to the
    library through the environment and is written nowhere.
    """

    def open(self, training: Training) -> None:
        wandb: Any = import_module("wandb")
        run, config = training.run, training.config
        options = config.log.wandb
        check(options)
        if key := _key():
            os.environ["WANDB_API_KEY"] = key
        kept = run.logs_dir / "wandb.json"
        id = read_json(kept)["id"] if kept.exists() else secrets.token_hex(4)
        write_json(kept, {"id": id})
        try:
            self._run = wandb.init(
                project=options.project,
                entity=options.entity,
                name=config.name,
                id=id,
                resume="allow",
                mode=options.mode,
                dir=run.logs_dir,
                config=config.model_dump(mode="json"),
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.errors.Error as error:
            raise RunError(
                f"Weights & Biases could not be reached: {error}",
                suggestion="log.wandb.mode=offline writes to the disk, `wandb sync` sends it later",
            ) from error

    def send(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def finish(self, *, well: bool) -> None:
        self._run.finish(exit_code=0 if well else 1)


def _key() -> str | None:
    from dotenv import dotenv_values

    file = Path.cwd() / ".env"
    try:
        return os.environ.get("WANDB_API_KEY") or dotenv_values(file).get("WANDB_API_KEY")
    except UnicodeDecodeError as error:
        raise RunError("the file with WANDB_API_KEY is not UTF-8", where=str(file), why=str(error)) from None
