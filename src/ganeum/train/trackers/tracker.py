"""What the trackers outside the run directory share: our names and Hugging Face's, and an end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganeum.train import hugging_face
from ganeum.train.callbacks import Callback, Training


class Tracker(Callback):
    """Gives every logged step to `send`, and at the end how fast it was; then `finish`."""

    def on_start(self, training: Training) -> None:
        self._steps_per_epoch = training.plan["data"].get("steps_per_epoch")
        self.open(training)

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.send(step, hugging_face.logged(step, metrics, self._steps_per_epoch))

    def on_end(self, summary: dict[str, Any] | None) -> None:
        if summary is not None:
            self.send(summary["steps"], {name: summary[name] for name in hugging_face.ENDED if name in summary})
        self.finish(well=summary is not None)

    def open(self, training: Training) -> None:
        """The same run as before where `training` goes on."""
        raise NotImplementedError

    def send(self, step: int, metrics: Mapping[str, float]) -> None:
        raise NotImplementedError

    def finish(self, *, well: bool) -> None:
        """No more is sent; `well`: not interrupted, and not failed."""
        raise NotImplementedError
