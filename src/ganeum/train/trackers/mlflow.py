"""MLflow: the same run before and after a resume, on a server or in a directory; a server that goes away is let go.

Only the client is used, never MLflow's global state (the active run): a notebook may have a run of its own open.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ganeum.config.keys import keys, value_of
from ganeum.config.schema import Mlflow as Options
from ganeum.errors import RunError
from ganeum.record import read_json, write_json
from ganeum.train.callbacks import Training
from ganeum.train.trackers.tracker import Tracker

# MLflow itself tries for several minutes, and a training would stand still for them.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


def check(options: Options) -> None:
    """Raises RunError: the server cannot be reached, or says no; a directory cannot be made."""
    _experiment(options)


class Mlflow(Tracker):
    """Its id lies in logs/mlflow.json. Parameters are the config's keys as `train.batch_size`, as the run began."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._lost = say, False

    def open(self, training: Training) -> None:
        self._client, experiment_id = _experiment(training.config.log.mlflow)
        kept = training.run.logs_dir / "mlflow.json"
        if kept.exists():
            self._id = read_json(kept)["run_id"]
            self._client.update_run(self._id, status="RUNNING")
            return
        parameter = import_module("mlflow.entities").Param
        self._id = self._client.create_run(experiment_id, run_name=training.run.name).info.run_id
        config = training.config
        self._client.log_batch(self._id, params=[parameter(key, str(value_of(config, key))) for key in keys()])
        write_json(kept, {"run_id": self._id})

    def send(self, step: int, metrics: Mapping[str, float]) -> None:
        metric, now = import_module("mlflow.entities").Metric, int(time.time() * 1000)
        self._try(
            lambda: self._client.log_batch(
                self._id, metrics=[metric(name, value, now, step) for name, value in metrics.items()]
            )
        )

    def finish(self, *, well: bool) -> None:
        self._try(lambda: self._client.set_terminated(self._id, "FINISHED" if well else "FAILED"))

    def _try(self, call: Callable[[], object]) -> None:
        """A server that is lost on the way does not end a training: it is said once, and no more is sent."""
        if self._lost:
            return
        try:
            call()
        except import_module("mlflow.exceptions").MlflowException as error:
            self._lost = True
            self._say(f"MLflow gets no more of this run until it is started again: {_first_line(error)}")


def _experiment(options: Options) -> tuple[Any, str]:
    """The client, and the experiment's id, made where it is new."""
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    for chatty in ("alembic", "mlflow.store.db.utils"):  # a new database tells of each of its versions
        logging.getLogger(chatty).setLevel(logging.WARNING)
    mlflow: Any = import_module("mlflow")
    try:
        client = mlflow.MlflowClient(tracking_uri=_uri(options))
        found = client.get_experiment_by_name(options.experiment)
        return client, found.experiment_id if found else client.create_experiment(options.experiment)
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise RunError(
            f"MLflow cannot be used: {_first_line(error)}",
            where=options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "the working directory",
            suggestion="log.mlflow.tracking_uri=mlflow writes to a directory of that name; "
            "log.mlflow.experiment=null does without it",
        ) from error


def _uri(options: Options) -> str | None:
    """As MLflow takes it: a plain path is a directory, in which the runs lie in one SQLite file (MLflow has stopped
    keeping them as loose files)."""
    uri = options.tracking_uri
    if uri is None or ":" in uri.removeprefix(Path(uri).drive) or uri == "databricks":
        return uri
    directory = Path(uri).expanduser().absolute()
    directory.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{(directory / 'mlflow.db').as_posix()}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
