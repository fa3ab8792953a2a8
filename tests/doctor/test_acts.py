"""Each act takes its cause away from a training, which then learns the same."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from tiny_training import COLUMNS, Sound, Tiny, apart, batches, calls, collects, dense, losses, recomputing, saw
from tiny_training import loaded as loaded
from tiny_training import one_thread as one_thread
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ganeum.doctor.measured import acts, facts, remedies
from ganeum.doctor.measured.training import Training
from ganeum.doctor.measured.untouched import outcome
from ganeum.doctor.measured.watch import watched

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes of these tests are forked")


class ForLoop(torch.optim.Optimizer):
    """AdamW as somebody writes it down."""

    def __init__(self, params: Any, lr: float = 1e-2, betas: Any = (0.9, 0.999), weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": 1e-8})
        self.moved = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                self.moved += 1
                state = self.state[p]
                state.setdefault("n", 0)
                m, v = state.setdefault("m", torch.zeros_like(p)), state.setdefault("v", torch.zeros_like(p))
                state["n"] += 1
                (a, b), lr = group["betas"], group["lr"]
                m.mul_(a).add_(p.grad, alpha=1 - a)
                v.mul_(b).addcmul_(p.grad, p.grad, value=1 - b)
                p.mul_(1 - lr * group["weight_decay"])
                p.sub_(lr * (m / (1 - a ** state["n"])) / ((v / (1 - b ** state["n"])).sqrt() + group["eps"]))


@dataclass
class Slow:
    """Batches that have to be waited for."""

    batches: list[Any]
    seconds: float = 0.02

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            time.sleep(self.seconds)
            yield batch


def fetching(training: Training) -> bool:
    """Whether batches are waited for, most of them for half of the time that they take to come; a step is longer."""
    iterator = iter(training.batches)
    next(iterator)
    waited = []
    for _ in range(5):
        time.sleep(0.03)  # a step
        began = time.perf_counter()
        next(iterator)
        waited.append(time.perf_counter() - began)
    return median(waited) > Slow.seconds / 2


def prints(training: Training) -> bool:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        training.step(next(iter(training.batches)))
    return bool(out.getvalue())


def hooked() -> Tiny:
    model = Tiny()
    for module in model.modules():
        module.register_forward_hook(lambda module, _in, out: setattr(module, "seen", out.detach().mean().item()))
    return model


def hooks_run(training: Training) -> bool:
    training.model.head.seen = None
    training.step(next(iter(training.batches)))
    return training.model.head.seen is not None


def math_only(training: Training) -> None:
    torch.backends.cuda.enable_flash_sdp(False)


def anomalous(loss: Tensor) -> None:
    with torch.autograd.detect_anomaly(check_nan=True):
        loss.backward()


def traced_backward(training: Training) -> bool:
    seen: list[bool] = []
    training.model.head.weight.register_hook(lambda _: seen.append(torch.is_anomaly_enabled()))
    training.step(next(iter(training.batches)))
    return any(seen)


def evaluated(training: Training) -> None:
    with torch.no_grad():
        for batch in batches(3):
            training.model(batch["input_ids"])


def copied(training: Training) -> None:
    training.copies = [*getattr(training, "copies", []), copy.deepcopy(training.model)]  # type: ignore[attr-defined]


def copies(training: Training) -> bool:
    training.copies = []  # type: ignore[attr-defined]
    for batch in [*training.batches][:2]:
        training.step(batch)
    return len({id(one) for one in training.copies}) > 1  # type: ignore[attr-defined]


def kept_profiler(training: Training) -> None:
    if not hasattr(training, "profiler"):
        training.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])  # type: ignore[attr-defined]
        training.profiler.start()  # type: ignore[attr-defined]


def with_spare(parameters: Any) -> Any:
    """Holds all but the first weight."""
    return torch.optim.AdamW(list(parameters)[1:], lr=1e-2, fused=True)


def fills(training: Training) -> bool:
    training.step(next(iter(training.batches)))
    return training.model.head.weight.grad is not None


def sleeps(training: Training) -> bool:
    """Every step does; one that had to wait for a core is not every one."""
    took = []
    for batch in [*training.batches][:3]:
        began = time.perf_counter()
        training.step(batch)
        took.append(time.perf_counter() - began)
    return min(took) > 0.05


def for_loop(training: Training) -> bool:
    assert isinstance(training.optimizer, ForLoop)
    before = training.optimizer.moved
    training.step(next(iter(training.batches)))
    return training.optimizer.moved > before


def saved(training: Training) -> None:
    torch.save(training.model.state_dict(), "weights.pt")


def saves(training: Training) -> bool:
    Path("weights.pt").unlink(missing_ok=True)
    training.step(next(iter(training.batches)))
    return Path("weights.pt").exists()


def full() -> list[dict[str, Tensor]]:
    found = batches()
    for batch in found:
        batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    return found


# Act → the training with its cause, and whether the cause is there.
CAUSES: dict[str, tuple[Callable[[], Sound], Callable[[Training], bool]]] = {
    "kept_batches": (lambda: Sound(data=Slow(batches())), fetching),
    "fetched_ahead": (lambda: Sound(data=Slow(batches())), fetching),
    "cut_padding": (lambda: Sound(data=dense()), saw("columns", lambda count: count > COLUMNS)),
    "no_mask": (lambda: Sound(data=full()), saw("mask", bool)),
    "not_recomputed": (lambda: Sound(model=recomputing), calls),
    "all_kernels": (lambda: Sound(before=math_only), saw("flash", lambda on: not on)),
    "no_collecting": (lambda: Sound(after=lambda _: gc.collect()), collects),  # type: ignore[arg-type,return-value]
    "no_printing": (lambda: Sound(after=lambda t: print(t.model.head.weight, t.model.tokens.weight)), prints),
    "no_sleeping": (lambda: Sound(after=lambda _: time.sleep(0.06)), sleeps),
    "no_saving": (lambda: Sound(after=saved), saves),
    "no_copying": (lambda: Sound(after=copied), copies),
    "no_hooks": (lambda: Sound(model=hooked), hooks_run),
    "debug_off": (lambda: Sound(backward=anomalous), traced_backward),
    "set_to_none": (lambda: Sound(zero=lambda optimizer: optimizer.zero_grad(set_to_none=False)), fills),
    "plain_backward": (
        lambda: Sound(backward=lambda loss: loss.backward(create_graph=True), zero=lambda _: None),
        lambda t: bool(t.step(next(iter(t.batches))) is not None and t.model.head.weight.grad.requires_grad),  # type: ignore[union-attr]
    ),
    "no_extra_forwards": (lambda: Sound(after=evaluated), calls),
    "only_learnt": (lambda: Sound(optimizer=with_spare), lambda t: next(t.model.parameters()).requires_grad),
    "fused": (lambda: Sound(optimizer=ForLoop), for_loop),
    "single": (
        lambda: Sound(model=lambda: Tiny().double()),
        lambda t: next(t.model.parameters()).dtype is torch.float64,
    ),
    "all_threads": (
        lambda: Sound(before=lambda _: torch.set_num_threads(3)),
        saw("threads", lambda count: count > 2),
    ),
}


@pytest.mark.parametrize("act", CAUSES)
def test_an_act_takes_its_cause_away_and_the_same_is_learnt(
    act: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the fault the cause is there; after the act it is not, and the losses are the sound training's."""
    monkeypatch.chdir(tmp_path)
    sound = apart(lambda: losses(Sound().build()))
    faulty, there = CAUSES[act]
    assert apart(lambda: there(faulty().build()))

    def mended() -> tuple[bool, list[float], list[float]]:
        with contextlib.redirect_stdout(io.StringIO()):
            as_it_is = losses(faulty().build())
            training = getattr(acts, act)(faulty().build())
            found = losses(training)
            return there(training), as_it_is, found

    monkeypatch.setattr("ganeum.hardware.machine.cores", lambda: 2)
    still, as_it_is, found = apart(mended)
    assert not still
    assert found == pytest.approx(as_it_is, rel=1e-4)
    if act not in ("only_learnt", "no_mask", "plain_backward"):
        assert found == pytest.approx(sound, rel=1e-4)


def test_what_an_optimizer_calls_and_a_profiler_of_every_step_are_taken_away() -> None:
    """A hook of the optimizer that only watches is a hook; a profiler that a step switches on again stays off."""

    def counted() -> tuple[bool, int, int, object]:
        calls: list[int] = []
        training = Sound(after=lambda _: sys.setprofile(lambda *_: None)).build()
        training.optimizer.register_step_pre_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
        found = bool(facts.of(training)["hooks"])
        sys.setprofile(None)
        before = len(calls)
        after = acts.debug_off(acts.no_hooks(training))
        now = len(calls)
        losses(after)
        return found, before, len(calls) - now, sys.getprofile()

    found, before, since, profiler = apart(counted)
    assert found
    assert before > 0
    assert since == 0
    assert profiler is None


# Fault → the act that facts lead to.
CHOSEN = [act for act in CAUSES if act not in ("no_mask", "fetched_ahead")]


def chosen(sound: Sound) -> list[str]:
    """The acts that its facts lead to."""
    with contextlib.redirect_stdout(io.StringIO()):
        return [str(one.act) for one in remedies.of_training(facts.of(sound.build()))]


@pytest.fixture(scope="module")
def of_the_sound() -> list[str]:
    return apart(lambda: chosen(Sound()))


@pytest.mark.parametrize("act", CHOSEN)
def test_facts_lead_to_the_remedy(
    act: str, of_the_sound: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A faulty training gets the remedy of its cause, and a sound one does not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ganeum.hardware.machine.cores", lambda: 2)
    assert act in apart(lambda: chosen(CAUSES[act][0]()))
    if act != "all_threads":  # how many threads a sound one has is the machine's
        assert act not in of_the_sound


def test_looking_leaves_nothing_behind() -> None:
    """After facts were gathered, every function that was watched is itself again."""

    def look() -> bool:
        before = (gc.collect, print, time.sleep, torch.save, Tensor.backward, copy.deepcopy, checkpoint)
        listening = list(gc.callbacks)
        training = Sound().build()
        facts.of(training)
        after = (gc.collect, print, time.sleep, torch.save, Tensor.backward, copy.deepcopy, checkpoint)
        return before == after and "forward" not in vars(training.model) and gc.callbacks == listening

    assert apart(look)


def test_a_thread_that_sleeps_beside_a_step_costs_it_nothing() -> None:
    """Only who sleeps in the step's own thread is counted; another thread's printing is."""

    def look() -> list[int]:
        with watched() as seen:
            time.sleep(0.001)
            beside = threading.Thread(target=lambda: (time.sleep(0.001), print(end="")))
            beside.start()
            beside.join()
        return [seen["sleeping"].calls, seen["printing"].calls]

    assert apart(look) == [1, 1]


def test_a_trial_step_changes_nothing() -> None:
    """Weights, gradients, optimizer and random state are bit for bit as they were."""

    def look() -> bool:
        training = Sound().build()
        assert training.optimizer is not None
        losses(training, 2)
        before = copy.deepcopy((training.model.state_dict(), training.optimizer.state_dict()))
        random = torch.get_rng_state()
        found = outcome(training, batches()[0])
        after = (training.model.state_dict(), training.optimizer.state_dict())
        same = all(torch.equal(a, b) for a, b in zip(before[0].values(), after[0].values(), strict=True))
        steps = [s["step"].item() for s in after[1]["state"].values()]
        no_gradient = all(p.grad is None for p in training.model.parameters())
        assert found.loss is not None
        assert found.norm is not None
        assert found.norm > 0
        return same and steps == [2.0] * len(steps) and no_gradient and torch.equal(random, torch.get_rng_state())

    assert apart(look)
