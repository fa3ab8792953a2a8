"""Every GiB at a step's fullest moment, what lies there, and what each lever would make of it; loads no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ganeum import units
from ganeum.config import Config
from ganeum.doctor.finding import Finding
from ganeum.doctor.memory import levers
from ganeum.doctor.memory.levers import GROUPS, Lever
from ganeum.hardware.device import Device
from ganeum.plan import closed_form
from ganeum.plan.page.memory_picture import curve
from ganeum.plan.question.subject import Run

CAUSES = {
    "weights": "weights_and_gradients",
    "gradients": "weights_and_gradients",
    "optimizer": "optimizer_state",
    "activations": "activations",
    "logits": "logits",
    "workspace": "workspace",
}
WORDS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "the optimizer's state",
    "activations": "activations, kept for the backward pass",
    "logits": "logits",
    "workspace": "kernels' own buffers",
    "inputs": "the batch",
    "other": "other tensors",
    "pieces": "reserved, in pieces between tensors",
    "framework": "the framework's own code",
    "before_the_model": "the process before there was a model",
    "context": "CUDA's context",
}
# In somebody else's code: what to do, and the share of the part that is saved by arithmetic.
BY_HAND = {
    "activations": ("half of the sequences at once, twice as often (torch.utils.checkpoint saves more)", 0.5),
    "logits": ("half of the sequences at once; a loss that is computed in chunks saves nearly all", 0.5),
    "optimizer": ("AdamW with its state in 8 bits (torchao, bitsandbytes); Adafactor saves nearly all", 0.74),
    "weights": ("weights in bf16, or adapters on frozen ones (LoRA), which saves gradients and state as well", 0.5),
}
SMALL = 0.01  # GiB: less is told in MiB
TOLD = 0.05  # of the peak: parts that are less get no finding
SHOWN = 3  # levers of a part
IN_PIECES, WORTH = 0.10, 0.1  # of what is reserved, and GiB: pieces that are told
LIMIT_S = 120.0  # for the trace of a step and of its levers
BAR = 24
DRAWN = 0.05  # GiB: a step that takes less is not drawn


@dataclass(frozen=True)
class Peak:
    """The fullest moment of a step.

    Attributes:
        parts: what of it → GiB, the largest first; together what is needed.
        layers: of the activations, by the kind of layer that keeps them → GiB.
        at: the moment, in words, with the line of code where a trace says it.
        memory: as in plan.json.
        device: as in plan.json.
        levers: those that save something, the most first.
        fits: whether the device has room.
        most: sequences that would fit at once; None: not known.
        ours: whether it is a config of ours, whose keys are levers.
    """

    parts: Mapping[str, float]
    layers: Mapping[str, float]
    at: str
    memory: Mapping[str, Any]
    device: Mapping[str, Any]
    levers: tuple[Lever, ...] = ()
    fits: bool | None = None
    most: int | None = None
    ours: bool = True

    @property
    def needed(self) -> float:
        """GiB in all."""
        return sum(self.parts.values())

    @property
    def beside_the_context(self) -> float:
        """GiB in all, but for what CUDA takes before the first tensor, which is not usable anyway."""
        return self.needed - self.parts.get("context", 0.0)

    def table(self) -> str:
        """The curve of the step where it was traced, then each part with its bar."""
        top = max(self.parts.values(), default=1.0)
        wide = max((len(WORDS.get(name, name)) for name in self.parts), default=0)
        lines = []
        for name, gib in self.parts.items():
            bar = "█" * round(BAR * gib / top)
            lines.append(
                f"  {shown(gib):>9}  {gib / self.needed:>4.0%}  {WORDS.get(name, name):<{wide}}  {bar}".rstrip()
            )
            if name == "activations":
                kept = [(layer, size) for layer, size in self.layers.items() if size >= 0.02 * self.needed]
                lines += [f"  {'':>9}        {shown(size):>9}  {layer}" for layer, size in kept]
        lines.append(f"  {shown(self.needed):>9}        in all; fullest in the {self.at}")
        drawn: list[str] = []
        if "curve" in self.memory and self.memory["tensors"] >= DRAWN:
            drawn = [f"  {line.plain}".rstrip() for line in curve(self.memory["curve"])]
        return "\n".join([*drawn, *([""] if drawn else []), *lines])

    def findings(self) -> Iterator[Finding]:
        """What does not fit; each large part with its levers; memory in pieces."""
        if self.fits is False:
            yield self._too_much()
        for name, gib in self.parts.items():
            if name not in CAUSES or gib < TOLD * self.needed:
                continue
            acting = [lever for lever in self.levers if lever.part == name][:SHOWN]
            yield Finding(
                cause=CAUSES[name],
                title=f"{WORDS[name]}: {shown(gib)} at the peak, {gib / self.needed:.0%} of it",
                evidence=tuple(self._about(name)),
                change="; ".join(lever.sentence() for lever in acting) or self._by_hand(name, gib),
                severity="warning" if self.fits is False and acting else "note",
                sure="computed",
                size=gib if gib >= SMALL else gib * 1024,
                unit="GiB" if gib >= SMALL else "MiB",
            )
        pieces = self.parts.get("pieces", 0.0)
        if self.memory.get("fragmentation", 0.0) > IN_PIECES and pieces > WORTH:
            yield Finding(
                cause="fragmentation",
                title=f"{shown(pieces)} are reserved and lie in pieces between tensors",
                evidence=(
                    f"{self.memory['fragmentation']:.0%} of what is reserved at the fullest moment, by its trace",
                ),
                change="train.expandable_segments=true (PYTORCH_ALLOC_CONF=expandable_segments:True); fixed shapes",
                sure="computed",
                size=pieces,
                unit="GiB",
            )

    def _too_much(self) -> Finding:
        usable = self.device.get("usable_gib", 0.0)
        enough = [lever for lever in self.levers if lever.fits][:SHOWN]
        return Finding(
            cause="does_not_fit",
            title=f"it needs {shown(self.beside_the_context)}, and {shown(usable)} are usable",
            evidence=(f"on {self.device.get('name')}, in the {self.at}",),
            change="; ".join(lever.sentence() for lever in enough)
            or "no lever alone is enough: `ganeum plan` lists what fits together",
            severity="error",
            sure="computed",
            size=self.beside_the_context - usable,
            unit="GiB too much",
        )

    def _by_hand(self, name: str, gib: float) -> str:
        """What there is to do in somebody else's code, whose keys are not known here."""
        if self.ours or name not in BY_HAND:
            return ""
        what, share = BY_HAND[name]
        return f"{what}: about {shown(share * gib)} less of it"

    def _about(self, name: str) -> Iterator[str]:
        """Its largest pieces, by the operation that asked for them."""
        for part in [part for part in self.memory.get("parts", ()) if part["kind"] == name][:SHOWN]:
            where = f" in {part['layer']}" if part["layer"] else ""
            yield f"{shown(part['gib'])}: {units.things(part['count'], 'tensor')} of {part['operation']}{where}"

    def as_dict(self) -> dict[str, Any]:
        """For ``doctor.json``."""
        return {
            "needed_gib": self.needed,
            "parts_gib": dict(self.parts),
            "activations_gib": dict(self.layers),
            "at": self.at,
            "fits": self.fits,
            "largest_micro_batch": self.most,
            "source": self.memory.get("source"),
            "levers": [lever.as_dict() | {"needs_gib": self.needed - lever.saves} for lever in self.levers],
            "memory_gib": {key: value for key, value in self.memory.items() if key != "curve"},
        }


def of_config(config: Config, device: Device, tokens: int | None = None, *, trace: bool = True) -> Peak:
    """The peak of a run of ours, every ``auto`` as the plan decides it.

    Args:
        trace: the step itself is traced, and the step that each lever makes of it, in a process of its own; the
            closed form where that cannot be.
    """
    subject = Run.of(config, tokens)
    plan = subject.plan(device)
    settled, _ = closed_form.settle(config, device, subject.vocab_size)
    ways = levers.by_closed_form(settled, device)
    if trace:
        from ganeum.plan.trace import exact
        from ganeum.plan.trace.child import Child

        with Child(limit_s=LIMIT_S) as child:
            plan = exact.started(plan, settled, device, child)
            if plan["memory_gib"].get("source") == "traced":
                ways = levers.traced(child, settled, device, ways)
    return of_plan(plan, ways)


def of_plan(plan: Mapping[str, Any], ways: Sequence[Lever] = ()) -> Peak:
    """The peak as a plan's ``memory_gib`` has it."""
    found = plan["memory_gib"]
    parts: Counter[str] = Counter()
    for name, gib in found["by_component"].items():
        parts[GROUPS.get(name, name)] += gib
    if "fragmentation" in found:
        parts["pieces"] = max(found["peak_reserved"] - found["tensors"], 0.0)
    for name in ("framework", "before_the_model", "context"):
        parts[name] = found.get(name, 0.0)
    layers: Counter[str] = Counter()
    for part in found.get("parts", ()):
        if part["kind"] == "activations":
            layers[part["layer"] or "outside of blocks"] += part["gib"]
    if "parts" not in found:
        layers.update({name: gib for name, gib in found["by_component"].items() if GROUPS.get(name) == "activations"})
    where = f" ({found['source_line']})" if found.get("source_line") else ""
    return Peak(
        dict(Counter({name: gib for name, gib in parts.items() if gib > 0}).most_common()),
        dict(layers.most_common()),
        f"{found['at']}{where}",
        found,
        plan["device"],
        tuple(ways),
        found.get("fits"),
        plan.get("batch", {}).get("largest_micro_batch"),
        "batch" in plan,
    )


def shown(value: float) -> str:
    """``1.54 GiB``, or MiB."""
    return f"{value:.2f} GiB" if value >= SMALL else f"{value * 1024:.2f} MiB"
