"""What one looks at after a change, each with its reason: the first loss, the gradient's norm, the time of a step.

People go by fixed bands ("the first loss is 5 to 6, the norm 0.1 to 1.0, a step takes 80 to 120 %"). A fresh model's
first loss is ln(vocabulary) and a trained one's anything; a norm is judged by the run's own; and a step may be within
20 % and still surely slower, or outside of it by noise alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log
from statistics import median
from typing import Any, Literal

from ganeum.doctor.compare.gap import Gap
from ganeum.doctor.compare.side import Side, section
from ganeum.doctor.compare.stretch import number
from ganeum.doctor.finding import wrapped
from ganeum.doctor.log.paces import FAR_FROM_START, SPIKE

Verdict = Literal["good", "bad", "not known"]
MARKS: Mapping[Verdict, str] = {"good": "✓", "bad": "✗", "not known": "–"}
BAND = (0.8, 1.2)  # times the baseline's step
WINDOW = 50  # logged norms before the one that is judged
SETTLED = 10  # of them at least: those of the first steps fall by themselves
SAME_LOSS = 0.02  # of the loss: two runs of other seeds differ by as much


@dataclass(frozen=True)
class Check:
    """One line of it: what, the verdict, why; ``cause`` where it is bad."""

    what: str
    verdict: Verdict
    why: str
    cause: str | None = None

    def line(self) -> str:
        """For a terminal."""
        return wrapped(f"{MARKS[self.verdict]} {self.what}: {self.why}", "  ", "    ")

    def as_dict(self) -> dict[str, Any]:
        """For ``doctor.json``."""
        return {"what": self.what, "verdict": self.verdict, "why": self.why}


def checks(run: Side, baseline: Side, gap: Gap) -> Iterator[Check]:
    """All of them, in the order in which they would be looked at."""
    yield first_loss(run)
    yield gradient_norm(run, baseline)
    yield step_time(gap)
    yield same_loss(run, baseline)


def first_loss(run: Side) -> Check:
    """Near ln(vocabulary), where the weights were drawn."""
    what, step = "first loss", min(run.losses, default=None)
    if step is None:
        return Check(what, "not known", "no loss is logged")
    loss = run.losses[step]
    if not isfinite(loss):
        return Check(what, "bad", f"it is no number at step {step:,}", "loss_nan")
    if run.fresh is None:
        return Check(what, "not known", f"{loss:.2f}; whether its weights were drawn or trained is not said")
    if not run.fresh:
        return Check(what, "not known", f"{loss:.2f}; it goes on from trained weights, so no value is to be expected")
    size = number(section(run.plan, "model").get("vocab_size"))
    if step > 1:
        return Check(what, "not known", f"the first that is logged is of step {step:,}, when it has learnt already")
    if size is None or size < 2:
        return Check(what, "not known", f"{loss:.2f}; its vocabulary is not said")
    chance = log(size)
    told = f"{loss:.2f}, where a fresh model of {size:,.0f} tokens has ln({size:,.0f}) = {chance:.2f}"
    if abs(loss - chance) <= FAR_FROM_START * chance:
        return Check(what, "good", told)
    why = "the answer is visible, or labels are not shifted" if loss < chance else "weights or labels are not as meant"
    return Check(what, "bad", f"{told}: {why}", "first_loss")


def gradient_norm(run: Side, baseline: Side | None = None) -> Check:
    """Beside the median of those before it; a jump that the baseline has at the same step is not what lies between
    them, and has no cause here."""
    what = "gradient norm"
    steps = sorted(run.norms)
    if len(steps) < SETTLED + 2:
        return Check(what, "not known", f"{len(steps)} are logged, too few for a median of its own")
    bad = [step for step in steps if not isfinite(run.norms[step])]
    if bad:
        return Check(what, "bad", f"it is no number at step {bad[0]:,}", "gradient_norm")
    far = spikes(steps, run.norms)
    settled = [run.norms[step] for step in steps[SETTLED:]]
    usual = f"median {median(settled):.3g}, {min(settled):.3g} to {max(settled):.3g}"
    if far:
        step, times = max(far, key=lambda one: one[1])
        told = f"{times:.0f} times its own running median at step {step:,} ({usual})"
        others = [] if baseline is None else [at for at, _ in spikes(sorted(baseline.norms), baseline.norms)]
        if {at for at, _ in far} <= set(others):
            return Check(what, "bad", f"{told}; so is the baseline's there")
        return Check(what, "bad", told, "gradient_norm")
    return Check(
        what, "good", f"never {SPIKE:.0f} times its own running median ({usual}); no fixed band fits all models"
    )


def spikes(steps: Sequence[int], norms: Mapping[int, float]) -> list[tuple[int, float]]:
    """Steps whose norm is far above the median of those before it, and how many times."""
    found = []
    for at in range(SETTLED, len(steps)):
        before = median(norms[step] for step in steps[max(0, at - WINDOW) : at])
        if before > 0 and norms[steps[at]] > SPIKE * before:
            found.append((steps[at], norms[steps[at]] / before))
    return found


def step_time(gap: Gap) -> Check:
    """Both within the band and no difference beyond noise, or not."""
    per = "a token" if gap.per_token else "a step, whatever its tokens"
    what, within = "time of a step", BAND[0] <= gap.step <= BAND[1]
    told = f"{_percent(gap.step)} of the baseline's for {per}"
    if gap.low is None or gap.high is None:
        return Check(what, "not known", f"{told}; too few steps are logged for an interval")
    told += f" ({_percent(gap.low)} to {_percent(gap.high)})"
    band = f"{'within' if within else 'outside'} 80 to 120 %"
    if gap.is_slower:
        return Check(what, "bad", f"{told}: {band}, and surely slower", "unexplained_time")
    if gap.is_faster:
        return Check(what, "good", f"{told}: {band}, and surely faster")
    if gap.is_excused:
        return Check(what, "not known", f"{told}: {band}, and no further than other programs alone can make it")
    if within:
        return Check(what, "good", f"{told}: within 80 to 120 %, and no more apart than such runs are")
    return Check(what, "not known", f"{told}: outside 80 to 120 %, but no more apart than runs as uneven are")


def _percent(ratio: float) -> str:
    return f"{ratio:.0%}" if ratio >= 0.1 else f"{ratio * 100:.2g}%"


def same_loss(run: Side, baseline: Side) -> Check:
    """Whether it learns as much of as many tokens: what is fast and learns less is not fast."""
    what = "loss at equal tokens"
    found = None
    for name, losses, others in (
        ("validation loss", run.val_losses, baseline.val_losses),
        ("loss", run.losses, baseline.losses),
    ):
        found = _at_equal_tokens(run, baseline, losses, others)
        if found is not None:
            tokens, loss, other = found
            told = f"{name} {loss:.3f}, the baseline {other:.3f}, at {tokens:,.0f} tokens"
            if other_measure := _measured_otherwise(run, baseline):
                return Check(what, "not known", f"{told}; {other_measure}")
            if name == "loss":
                return Check(what, "not known", f"{told}, each of one batch")
            if loss > other * (1 + SAME_LOSS):
                return Check(what, "bad", f"{told}: it learns less of them", "learning")
            return Check(what, "good", told)
    return Check(what, "not known", "they logged no loss at the same number of tokens")


def _measured_otherwise(run: Side, baseline: Side) -> str | None:
    """Why two losses are not to be compared; None: nothing known speaks against it."""
    held_out = [_held_out(side) for side in (run, baseline)]
    sizes = [section(side.plan, "model").get("vocab_size") for side in (run, baseline)]
    if held_out[0] != held_out[1] or sizes[0] != sizes[1]:
        return "other text is held out, or other tokens, so that says nothing"
    steps = [section(side.plan, "data").get("tokens_seen") for side in (run, baseline)]
    if steps[0] != steps[1]:
        return "their lengths differ, and with them the learning rate at that point"
    return None


def _held_out(side: Side) -> tuple[object, ...]:
    """What tells the held-out text from others; a share of the training's examples is another one of others."""
    told = section(section(side.plan, "data"), "identity")
    shared = side.config is not None and side.config.model.source is not None and side.config.data.val is None
    return told.get("val"), told.get("train") if shared else None


def _at_equal_tokens(
    run: Side, baseline: Side, losses: Mapping[int, float], others: Mapping[int, float]
) -> tuple[float, float, float] | None:
    """The latest tokens at which both have one, and these."""
    ours, theirs = (
        {side.tokens_at[step]: loss for step, loss in found.items() if step in side.tokens_at and isfinite(loss)}
        for side, found in ((run, losses), (baseline, others))
    )
    both = [tokens for tokens in ours if tokens in theirs]
    return None if not both else (max(both), ours[max(both)], theirs[max(both)])
