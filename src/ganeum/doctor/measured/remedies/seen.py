"""What was measured in a few steps and is told without being taken away: no act is safe for it."""

from __future__ import annotations

from collections.abc import Iterator

from ganeum import units
from ganeum.doctor.finding import Finding
from ganeum.doctor.measured.remedies.promise import Facts

ALARM, WORTH_A_WORD = 0.1, 0.03  # of the time, at the low end of the interval: teaching nothing
BY_HAND, LITTLE = 0.05, 0.02  # the same, that a kernel of torch's saves
FEWEST = 5  # stretches of steps that an alarm needs


def of_step(facts: Facts) -> Iterator[Finding]:
    """Findings of somebody's own step."""
    yield from _beside(facts)
    yield from _loops(facts)
    yield from _by_hand(facts)
    yield from _in_python(facts)
    yield from _waits(facts)


def _beside(facts: Facts) -> Iterator[Finding]:
    if (beside := facts.get("beside")) is None or (low := beside["interval"][0]) < WORTH_A_WORD or not beside["lines"]:
        return
    sure = low >= ALARM and beside["stretches"] >= FEWEST and facts["device"] == "cpu"
    yield Finding(
        cause="beside_learning",
        title=f"{beside['share']:.0%} of a step are neither the model, its loss, a backward pass nor an update",
        evidence=(
            *(f"{share:.1%}: {where}: {text}" for where, text, share in beside["lines"]),
            f"looked at every millisecond, in {beside['stretches']} stretches of steps",
            *(() if facts["device"] == "cpu" else ("in part it may wait for what the device computes meanwhile",)),
        ),
        change="do it less often, outside of the step, or for all tensors in one call: what follows from it decides",
        severity="warning" if sure else "note",
        sure="measured",
        size=beside["share"],
        interval=beside["interval"],
        unit="share of the time",
        where=beside["lines"][0][0],
    )


def _loops(facts: Facts) -> Iterator[Finding]:
    if (loops := facts.get("loops")) is None or (low := loops["interval"][0]) < WORTH_A_WORD or not loops["lines"]:
        return
    yield Finding(
        cause="python_loop",
        title=f"{loops['share']:.0%} of a step go into a loop of Python over small pieces",
        evidence=(
            *(f"{share:.1%}: {where}: {text}" for where, text, share in loops["lines"]),
            f"{loops['lines'][0][0]} calls torch {loops['calls']:,} times a step, for "
            f"{units.things(loops['largest'], 'number')} at most",
            f"with {loops['backward']:.1%} in the backward pass, without {loops['at_once']:.1%} that one call takes"
            if "backward" in loops
            else "their share of the backward pass is not in it",
        ),
        change="one call for all of them: an index, a mask or a batch dimension in place of the loop; where each needs "
        "the one before it, a kernel that does so (nn.GRU, a scan)",
        severity="warning" if low >= ALARM and loops["stretches"] >= FEWEST else "note",
        sure="measured",
        size=loops["share"],
        interval=loops["interval"],
        unit="share of the time",
        where=loops["lines"][0][0],
    )


def _by_hand(facts: Facts) -> Iterator[Finding]:
    if (found := facts.get("by_hand")) is None:
        return
    share, *ends = (min(seconds / found["step_s"], 0.95) for seconds in (found["seconds"], *found["interval"]))
    if ends[0] < LITTLE:
        return
    yield Finding(
        cause="eager_attention",
        title=f"attention written by hand: torch's own would save {share:.0%} of a step",
        evidence=(
            f"{units.things(found['calls'], 'time')} a step a product goes through a softmax into another product",
            "both ways by turns, forward and backward, on tensors of the same shapes",
        ),
        change="torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask or is_causal=True)",
        severity="warning" if ends[0] >= BY_HAND else "note",
        sure="measured",
        size=share,
        interval=(ends[0], ends[1]),
        unit="share of the time",
    )


def _in_python(facts: Facts) -> Iterator[Finding]:
    """All functions together that a kernel of torch's replaces; each certainly saves something."""
    found = [one for one in facts.get("kernels", ()) if one["interval"][0] > 0]
    share, low, high = (
        min(sum(seconds / one["step_s"] for one, seconds in zip(found, column, strict=True)), 0.95)
        for column in (
            [one["seconds"] for one in found],
            *([one["interval"][end] for one in found] for end in (0, 1)),
        )
    )
    if low < LITTLE:
        return
    yield Finding(
        cause="by_hand",
        title=f"written in Python where torch has a kernel: it would save {share:.0%} of a step",
        evidence=(
            *(
                f"{one['seconds'] / one['step_s']:.1%}: {one['name']} ({one['where']}), "
                f"{units.things(one['calls'], 'time')} a step, gives the numbers and gradients of {one['kernel']}"
                for one in found
            ),
            "both ways by turns, forward and backward, on the tensors of a step",
        ),
        change="; ".join(dict.fromkeys(f"{one['kernel']} in {one['name']}" for one in found)),
        severity="warning" if low >= BY_HAND else "note",
        sure="measured",
        size=share,
        interval=(low, high),
        unit="share of the time",
        where=found[0]["where"],
    )


def _waits(facts: Facts) -> Iterator[Finding]:
    waits = facts.get("waits")
    if waits is None or not waits["calls"] or facts["device"] == "cpu":
        return
    yield Finding(
        cause="sync",
        title=f"a step reads {units.things(waits['calls'], 'number')} back from the device, and waits for each",
        evidence=tuple(f"{where}: {text}" for where, text in waits["lines"]),
        change="keep sums on the device (loss.detach()), and read them every hundredth step",
        severity="note",
        sure="measured",
    )
