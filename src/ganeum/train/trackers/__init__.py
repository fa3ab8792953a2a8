"""Where else the numbers go: TensorBoard's files unless they are unwanted, other trackers where the config names them.

Each is a callback like a user's own. What cannot be started is refused before there is a run directory.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from ganeum.config import Config
from ganeum.errors import MissingExtra
from ganeum.train.callbacks import Callback
from ganeum.train.trackers import mlflow, wandb
from ganeum.train.trackers.mlflow import Mlflow
from ganeum.train.trackers.tensorboard import TensorBoard
from ganeum.train.trackers.trackio import Trackio
from ganeum.train.trackers.wandb import WeightsAndBiases


def trackers(config: Config, say: Callable[[str], None]) -> list[Callback]:
    """Those that the config asks for; `say` tells the reader that one was lost on the way."""
    log = config.log
    found: list[Callback] = []
    if log.tensorboard:
        found.append(TensorBoard())
    if log.wandb.project:
        found.append(WeightsAndBiases())
    if log.mlflow.experiment:
        found.append(Mlflow(say))
    if log.trackio.project:
        found.append(Trackio())
    return found


def check_trackers(config: Config) -> None:
    """Raises MissingExtra or RunError for what could not be started: before there is a run directory."""
    log = config.log
    if log.wandb.project:
        _needs("wandb", "log.wandb.project")
        wandb.check(log.wandb)
    if log.mlflow.experiment:
        _needs("mlflow", "log.mlflow.experiment")
        mlflow.check(log.mlflow)
    if log.trackio.project:
        _needs("trackio", "log.trackio.project")


def _needs(package: str, key: str) -> None:
    if find_spec(package) is None:
        raise MissingExtra(
            f"{key} is set, and the package {package} is not installed",
            suggestion=f'pip install "ganeum[{package}]", or {key}=null',
        )
