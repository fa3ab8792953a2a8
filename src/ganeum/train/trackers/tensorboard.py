"""TensorBoard's event file under logs/, written at once: its own writer keeps a thread that hides a full disk."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from ganeum.train.callbacks import Callback, Training


class TensorBoard(Callback):
    """Scalars under our names; what an earlier process wrote beyond its last checkpoint is void for the reader."""

    def on_start(self, training: Training) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2  # type: ignore[import-untyped]
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        self._event, self._summary = event_pb2, summary_pb2
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.0"
        # Unbuffered: nothing is left to be written when it is closed.
        self._file = (training.run.logs_dir / name).open("ab", buffering=0)
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        # Points beyond this step, from a process that died, are forgotten by the reader.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(session_log=start, step=training.step + 1)

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event.Event(wall_time=time.time(), **fields).SerializeToString())

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None:
        values = [self._summary.Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._write(summary=self._summary.Summary(value=values), step=step)

    def on_end(self, summary: dict[str, Any] | None) -> None:
        self._file.close()
