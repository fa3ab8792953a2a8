"""Why a run is slow or takes so much memory: read from what there is, or measured; every answer is a finding.

As a library: ``from ganeum.doctor import Training, diagnose``. Importing it loads nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganeum.doctor.finding import Finding, Report
    from ganeum.doctor.measured.diagnosis import diagnose
    from ganeum.doctor.measured.training import Training

__all__ = ["Finding", "Report", "Training", "diagnose"]

_PLACES = {
    "Finding": "ganeum.doctor.finding",
    "Report": "ganeum.doctor.finding",
    "Training": "ganeum.doctor.measured.training",
    "diagnose": "ganeum.doctor.measured.diagnosis",
}


def __getattr__(name: str) -> Any:
    """The names of the library, each from its file once somebody asks for it."""
    if name not in _PLACES:
        raise AttributeError(f"module 'ganeum.doctor' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
