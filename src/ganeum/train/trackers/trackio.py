"""trackio: a tracker on this machine, in $TRACKIO_DIR or ~/.cache/huggingface/trackio; `trackio show` is its page."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from typing import Any

from ganeum.record import write_json
from ganeum.train.callbacks import Training
from ganeum.train.trackers.tracker import Tracker


class Trackio(Tracker):
    """One run of trackio's before and after a resume: logs/trackio.json says that it was begun."""

    def open(self, training: Training) -> None:
        self._trackio: Any = import_module("trackio")
        kept, project = training.run.logs_dir / "trackio.json", training.config.log.trackio.project
        with redirect_stdout(StringIO()):  # it greets on standard output, which may be the summary's
            self._run = self._trackio.init(
                project=project,
                name=training.run.name,
                resume="allow" if kept.exists() else "never",
                config=training.config.model_dump(mode="json"),
                embed=False,
                auto_log_gpu=False,  # logs/system.jsonl has more of it
                auto_log_cpu=False,
            )
        write_json(kept, {"project": project, "run_id": self._run.id})

    def send(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def finish(self, *, well: bool) -> None:
        with redirect_stdout(StringIO()):
            self._trackio.finish()
