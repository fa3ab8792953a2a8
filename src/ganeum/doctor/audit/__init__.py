"""What can be seen to be slow, large or wrong without running it: in a config, a script, somebody's YAML."""

from __future__ import annotations

from collections.abc import Iterable

from ganeum import units
from ganeum.doctor.audit.bounds import bounded
from ganeum.doctor.audit.settings import Nothing, Said
from ganeum.doctor.confirmed import labelled
from ganeum.doctor.finding import Finding, Report, worst_first
from ganeum.hardware.device import Device

__all__ = ["of_script", "report"]

OTHERS = {"jax": "JAX", "flax": "JAX", "optax": "JAX", "tensorflow": "TensorFlow", "keras": "Keras", "mlx": "MLX"}


def report(said: Iterable[Said], subject: str, device: Device | None = None) -> Report:
    """Findings worst first, and what was set and changes nothing; ``device``: where it is to run, if that is known."""
    everything = list(said)
    findings = worst_first(labelled(bounded(one, device), device) for one in everything if isinstance(one, Finding))
    nothing = tuple(dict.fromkeys(one.text for one in everything if isinstance(one, Nothing)))
    alarms = sum(finding.is_alarm for finding in findings)
    headline = f"{units.things(alarms, 'thing')} to change, {units.things(len(findings) - alarms, 'note')}"
    if not findings:
        headline = "nothing that can be seen without running it"
    return Report(
        subject=subject,
        headline=headline,
        findings=findings,
        without_effect=nothing,
    )


def _package(name: str) -> str:
    return name.partition(".")[0]


def of_script(text: str, path: str, device: Device | None = None) -> Report:
    """A Python script, read and never run.

    Raises:
        DataError: it is no Python.
    """
    from ganeum.doctor.audit.script import read
    from ganeum.doctor.audit.source import Script

    found = Script.of(text, path)
    if not found.trains:
        looked = report(read(found, device), path, device)
        packages = [_package(name) for name in found.imported.values()]
        other = next((OTHERS[name] for name in packages if name in OTHERS and "torch" not in packages), None)
        unseen = "no training is seen in it (no backward(), no Trainer)"
        if other is not None:
            unseen = f"it is written for {other}, and only what trains with PyTorch is read"
        return Report(
            subject=path,
            headline=f"{looked.headline}; {unseen}",
            findings=looked.findings,
            without_effect=looked.without_effect,
        )
    return report(read(found, device), path, device)
