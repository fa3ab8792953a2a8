"""What steps of a training left behind, as findings; the steps are taken in another process, this loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ganeum.doctor.finding import Finding
from ganeum.doctor.measured.subject import request
from ganeum.doctor.measured.training import Subject
from ganeum.doctor.measured.worker import Workers
from ganeum.doctor.memory.growth import Growth, growth
from ganeum.doctor.memory.recorded import of_growth
from ganeum.units import GIB

STEPS, SECONDS = 60, 60.0
NAMED = 4  # parameters that are named
LEAST_PILE = 1024  # bytes a step: a list of numbers is nobody's concern
VOCABULARY = 1000  # rows of logits are at least as long


def observe(subject: Subject, *, steps: int = STEPS, seconds: float = SECONDS) -> dict[str, Any]:
    """What :func:`ganeum.doctor.measured.creep.watch` finds in ``steps`` steps, or as many as ``seconds`` allow.

    Raises:
        Gone: it cannot be built, failed, or ran out of memory.
        DeviceError: this system cannot fork.
    """
    with Workers(subject) as workers:
        worker = workers.empty()
        found: dict[str, Any] = worker.call(
            "ganeum.doctor.measured.creep",
            "of_subject",
            what=request(workers.subject, ()),
            steps=steps,
            seconds=seconds,
        )
        return found


def findings(seen: Mapping[str, Any]) -> Iterator[Finding]:
    """All that it says."""
    kept = growth(range(len(seen["kept"])), seen["kept"], least_bytes=0)
    piling = [one for one in seen["piling"] if one["graph"] or one["bytes"] >= LEAST_PILE]
    graphs = kept is not None and kept.lasting
    if kept is not None and graphs:
        yield _graphs(kept, seen["kept"], piling, seen["grown"]["graph"])
    measured = growth(range(len(seen["held"])), seen["held"])
    for one in piling:
        if not (graphs and one["graph"]):
            yield _nodes(one, measured) if one["graph"] else _pile(one)
    if hooks := seen.get("hooks"):
        yield _hooks(hooks)
    longer = [] if graphs or piling else list(_longer(seen["grown"]))
    yield from longer
    if measured is not None and not graphs and not piling and not longer:
        counted = "torch's allocator" if seen["device"] == "cuda" else "the memory of its processes"
        yield from of_growth(measured, f"{counted} after each of {len(seen['held'])} steps", _others(seen["grown"]))
    yield from _parameters(seen["parameters"])
    if seen.get("snapshot"):
        yield from of_snapshot(seen["snapshot"])


def facts(seen: Mapping[str, Any]) -> dict[str, Any]:
    """For ``doctor.json``."""
    measured = growth(range(len(seen["held"])), seen["held"])
    return {
        "device": seen["device"],
        "steps": len(seen["kept"]) + len(seen["held"]),
        "graphs_kept_bytes": list(seen["kept"]),
        "growth": None if measured is None else measured.as_dict(),
        "parameters": dict(seen["parameters"]),
        "snapshot": seen.get("snapshot"),
    }


def silent(seen: Mapping[str, Any]) -> Iterator[str]:
    """What was looked for and is not there."""
    kept, held = seen["kept"], seen["held"]
    if kept and kept[-1] <= kept[len(kept) // 3]:
        yield f"graphs kept from step to step: {_size(kept[-1])} after each of {len(kept)} steps"
    grown = growth(range(len(held)), held)
    if grown is not None and not grown.lasting:
        told = f"{_size(grown.low)} to {_size(grown.high)} a step over {grown.steps} steps"
        yield f"memory that grows: {told}, no more than an allocator at its work"
    found = seen["parameters"]
    if not found["dead"] and not found["still"]:
        yield f"parameters without a gradient: none of {_size(found['total'])}"
    if not found["twice"]:
        tied = f"; {len(found['tied'])} shared by two modules and there once" if found["tied"] else ""
        yield f"parameters that are there twice: none{tied}"


def of_snapshot(told: Mapping[str, Any]) -> Iterator[Finding]:
    """A GPU's own record: what lay there at the peak, pieces, and whether it agrees with torch's counter."""
    peak, counted = told["peak_requested"], told.get("counted_requested")
    rows = [f"{size / GIB:.3f} GiB {who}" for who, size in list(told["at_peak"].items())[:8]]
    agreed = "" if not counted else f"; torch's counter says {counted / GIB:.3f} GiB"
    yield Finding(
        cause="activations",
        title=f"at the peak {peak / GIB:.3f} GiB were asked for, by torch's own record{agreed}",
        evidence=tuple(rows),
        severity="note",
        sure="measured",
        size=peak / GIB,
        unit="GiB",
    )
    if told["reserved"] and told["torn"] / told["reserved"] > 0.1:
        yield Finding(
            cause="fragmentation",
            title=f"{told['torn'] / GIB:.2f} GiB lie in pieces between tensors",
            evidence=(
                f"the largest {_size(told['largest_piece'])}",
                f"{told['torn'] / told['reserved']:.0%} of {told['reserved'] / GIB:.2f} GiB reserved",
            ),
            change="PYTORCH_ALLOC_CONF=expandable_segments:True; fixed shapes",
            sure="measured",
            size=told["torn"] / GIB,
            unit="GiB",
        )


def _graphs(
    kept: Growth, after: Sequence[int], piling: Sequence[Mapping[str, Any]], longer: Mapping[str, Any] | None
) -> Finding:
    evidence = [f"after {len(after)} steps {_size(after[-1])}, counted tensor by tensor, where nothing should be left"]
    evidence += [
        f"{_told(one)} with its graph is left by each step in {one['held_by']}"
        for one in piling
        if one["graph"] and one["held_by"]
    ]
    if not piling and longer is not None and longer["held_by"]:
        evidence.append(f"the graph of {longer['held_by']} becomes longer with each: it reaches back to the first")
    return Finding(
        cause="kept_graph",
        title=f"each step leaves its graph behind: {_size(kept.by)} a step",
        evidence=tuple(evidence),
        change="keep loss.item() or loss.detach() instead of the loss; outputs without their graphs",
        severity="error",
        sure="measured",
        size=kept.by / 2**20,
        interval=(kept.low / 2**20, kept.high / 2**20),
        unit="MiB a step",
    )


def _nodes(one: Mapping[str, Any], measured: Growth | None) -> Finding:
    grown = measured is not None and measured.low > 0
    size = measured.by if measured is not None and grown else None
    return Finding(
        cause="kept_graph",
        title=f"each step leaves {_told(one)} behind, and the {one['nodes']:,} nodes of its graph",
        evidence=(
            *((f"held by {one['held_by']}",) if one["held_by"] else ()),
            "what they kept for the backward pass was let go: it is little, and it is every step",
            *((f"memory grew by {_size(size)} a step meanwhile",) if size is not None else ()),
        ),
        change="keep loss.item() or loss.detach() instead of the loss",
        sure="measured",
        size=None if size is None else size / 2**20,
        interval=(measured.low / 2**20, measured.high / 2**20) if measured is not None and grown else None,
        unit="" if size is None else "MiB a step",
    )


def _pile(one: Mapping[str, Any]) -> Finding:
    logits = len(one["shape"]) >= 2 and one["shape"][-1] >= VOCABULARY
    until = "" if one["at_most"] is None else f", which holds {one['at_most']:,} at most"
    return Finding(
        cause="kept_logits" if logits else "memory_growth",
        title=f"each step leaves {_told(one)} behind: {_size(one['bytes'])} a step",
        evidence=(f"held by {one['held_by']}{until}" if one["held_by"] else "what holds it is not seen",),
        severity="note" if until else "warning",
        change="keep what is counted from it (an argmax, a sum), or let it go; tensors that are kept go to the CPU",
        sure="measured",
        size=one["bytes"] / 2**20,
        unit="MiB a step",
    )


def _longer(grown: Mapping[str, Any]) -> Iterator[Finding]:
    """One tensor, or the graph of one, that becomes longer with each step."""
    if (one := grown["tensors"]) is not None and one["bytes"] >= LEAST_PILE:
        logits = len(one["shape"]) >= 2 and one["shape"][-1] >= VOCABULARY
        shape = " × ".join(map(str, one["shape"]))
        yield Finding(
            cause="kept_logits" if logits else "memory_growth",
            title=f"each step leaves more in tensors than there was before it: {_size(one['bytes'])} a step",
            evidence=(
                f"the largest is ({shape}, {one['dtype']}) by now" + (f": {one['held_by']}" * bool(one["held_by"])),
            ),
            change="keep what is counted from it (an argmax, a sum), or the last few; what is joined to a tensor in "
            "each step (torch.cat) makes it longer for good",
            sure="measured",
            size=one["bytes"] / 2**20,
            unit="MiB a step",
        )
    if (one := grown["graph"]) is not None:
        yield Finding(
            cause="kept_graph",
            title=f"each step makes a graph longer by {one['nodes']:,.0f} nodes: it reaches back to the first step",
            evidence=(f"it is {one['held_by']}'s",) if one["held_by"] else (),
            change="add loss.item() or loss.detach() to it; a mean of weights or losses under torch.no_grad()",
            sure="measured",
        )


def _others(grown: Mapping[str, Any]) -> tuple[str, ...]:
    """Things that are no tensors, and that each step adds to something."""
    return tuple(
        f"{one['held_by']} has about {_size(one['bytes'])} more in it after each step"
        for one in grown["containers"][:NAMED]
    )


def _hooks(more: Mapping[str, float]) -> Finding:
    each = ", ".join(f"{count:.3g} to {name or 'the model'}" for name, count in list(more.items())[:NAMED])
    return Finding(
        cause="memory_growth",
        title="each step adds hooks that stay: all of them are called in every later step",
        evidence=(f"hooks a step: {each}" + (f", and {len(more) - NAMED} modules more" if len(more) > NAMED else ""),),
        change="register a hook once, before the first step, or call remove() of what register_forward_hook gave",
        sure="measured",
    )


def _parameters(found: Mapping[str, Any]) -> Iterator[Finding]:
    total = found["total"]
    for name, what, why in (
        ("dead", "get no gradient", "the loss does not depend on them"),
        ("still", "get a gradient of zeros alone", "the loss depends on them on paper alone"),
    ):
        if one := found[name]:
            size = sum(one.values())
            yield Finding(
                cause="dead_parameters",
                title=f"{len(one)} parameters {what}: {_size(size)}, {size / total:.0%} of all",
                evidence=(f"{_names(list(one))}: {why}",),
                change="use them, or leave them out; where they are frozen on purpose requires_grad_(False)",
                sure="measured",
                size=size / 2**20,
                unit="MiB",
            )
    if twice := found["twice"]:
        size = sum(one["bytes"] for one in twice)
        pairs = "; ".join(f"{one['names'][0]} = {one['names'][1]} {one['shape']}" for one in twice[:NAMED])
        yield Finding(
            cause="duplicated_parameters",
            title=f"{_size(size)} of the parameters are there twice with the same numbers",
            evidence=(pairs, "equal before the first step, in storages of their own: updates drive them apart"),
            change="tie them (model.tie_weights(), one nn.Parameter for both) after everything that copies the model",
            sure="measured",
            size=size / 2**20,
            unit="MiB",
        )


def _told(one: Mapping[str, Any]) -> str:
    shape = " × ".join(map(str, one["shape"])) or "a number"
    return f"{one['a_step']:.3g} × ({shape}, {one['dtype']})"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _size(size: float) -> str:
    for unit, one in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(size) >= one:
            return f"{size / one:.3g} {unit}"
    return f"{size:.0f} bytes"
