"""Where else the numbers go: TensorBoard's files always, Weights & Biases when a project is named."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ganeum.config import Config
from ganeum.errors import MissingExtra, RunError
from ganeum.record import RunDirectory, read_json, write_json


class Tracker(Protocol):
    """Takes the numbers of a logged step."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def trackers(run: RunDirectory, config: Config, after_step: int) -> list[Tracker]:
    """Those that the config asks for; what they hold beyond `after_step` is void, that part is trained again."""
    result: list[Tracker] = []
    if config.log.tensorboard:
        result.append(TensorBoard(run.logs_dir, after_step))
    if config.log.wandb.project:
        result.append(WeightsAndBiases(run, config))
    return result


def check_trackers(config: Config) -> None:
    """Raises MissingExtra or RunError for what could not be started: before there is a run directory."""
    options = config.log.wandb
    if options.project is None:
        return
    if find_spec("wandb") is None:
        raise MissingExtra(
            "log.wandb.project is set, and the package wandb is not installed",
            suggestion='pip install "ganeum[wandb]", or log.wandb.project=null',
        )
    if options.mode == "online" and not _key():
        raise RunError(
            "Weights & Biases needs a key, and there is none",
            where="WANDB_API_KEY, in the environment or in .env",
            suggestion="a line WANDB_API_KEY=… in .env, or log.wandb.mode=offline (`wandb sync` sends it later)",
        )


class TensorBoard:
    """An event file under logs/, written at once: TensorBoard's own writer keeps a thread that hides a full disk."""

    def __init__(self, directory: Path, after_step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2  # type: ignore[import-untyped]
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        self._event, self._summary = event_pb2, summary_pb2
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.0"
        self._file = (directory / name).open("ab", buffering=0)  # nothing is left to be written when it is closed
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        # Points beyond this step, from a process that died, are forgotten by the reader.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(session_log=start, step=after_step + 1)

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event.Event(wall_time=time.time(), **fields).SerializeToString())

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        values = [self._summary.Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._write(summary=self._summary.Summary(value=values), step=step)

    def close(self) -> None:
        self._file.close()


class WeightsAndBiases:
    """The same W&B run before and after a resume: its id lies in logs/wandb.json.

    The key comes from WANDB_API_KEY, in the environment or in `.env` of the working directory. It goes to the
    library through the environment and is written nowhere.
    """

    def __init__(self, run: RunDirectory, config: Config) -> None:
        check_trackers(config)
        wandb: Any = import_module("wandb")

        options, key = config.log.wandb, _key()
        if key:
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

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


def _key() -> str | None:
    from dotenv import dotenv_values

    file = Path.cwd() / ".env"
    try:
        return os.environ.get("WANDB_API_KEY") or dotenv_values(file).get("WANDB_API_KEY")
    except UnicodeDecodeError as error:
        raise RunError("the file with WANDB_API_KEY is not UTF-8", where=str(file), why=str(error)) from None
