"""The run directory: every path in it, atomic writes, metrics, status, and the lock that keeps it to one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ganeum.record.directory import RunDirectory, find, results_dir, runs
from ganeum.record.files import flush_directory, read_json, write_atomic, write_json
from ganeum.record.metrics import MetricsLog, read_metrics
from ganeum.record.status import Status

if TYPE_CHECKING:
    from ganeum.record.making import CHANGEABLE, check, create, existing, is_finished

__all__ = [
    "CHANGEABLE",
    "MetricsLog",
    "RunDirectory",
    "Status",
    "check",
    "create",
    "existing",
    "find",
    "flush_directory",
    "is_finished",
    "read_json",
    "read_metrics",
    "results_dir",
    "runs",
    "write_atomic",
    "write_json",
]


def __getattr__(name: str) -> Any:
    """What makes runs, once it is asked for: it takes the whole config with it, and a listing needs neither."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ganeum.record import making

    return getattr(making, name)
