"""The run directory: every path in it, atomic writes, metrics, status, and the lock that keeps it to one process."""

from ganeum.record.create import CHANGEABLE, check, create, existing, is_finished
from ganeum.record.directory import RunDirectory, find, results_dir, runs
from ganeum.record.files import flush_directory, read_json, write_atomic, write_json
from ganeum.record.metrics import MetricsLog, read_metrics
from ganeum.record.status import Status

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
