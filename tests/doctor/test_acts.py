"""Each act takes its cause away from a training, which then learns the same."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import COLUMNS, ROWS, Sound, Tiny, apart, batches, losses
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from ganeum.doctor.measured import acts, facts, remedies
from ganeum.doctor.measured.acts.data import Ahead, cut
from ganeum.doctor.measured.training import Training
from ganeum.doctor.measured.untouched import outcome

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes of these tests are forked")


@pytest.fixture(scope="module", autouse=True)
def loaded() -> Iterator[None]:
    """What torch loads at its first update, before processes are forked."""
    losses(Sound().build(), 1)
    gc.freeze()  # else gc.collect() in a step looks at every test there is
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def saw(name: str, bad: Callable[[Any], bool]) -> Callable[[Training], bool]:
    """Whether the model, in a step, sees what it should not."""

    def found(training: Training) -> bool:
        training.step(next(iter(training.batches)))
        return bad(training.model.saw[name])  # type: ignore[union-attr,index]

    return found


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
    """Whether batches are waited for; half of the time that they take to come passes in the step."""
    iterator = iter(training.batches)
    next(iterator)
    waited = 0.0
    for _ in range(5):
        time.sleep(0.03)  # a step
        began = time.perf_counter()
        next(iterator)
        waited += time.perf_counter() - began
    return waited > 0.05


def recomputing() -> Tiny:
    model = Tiny()
    model.around = lambda block, x: checkpoint(block, x, use_reentrant=False)
    return model


def calls(training: Training) -> bool:
    """Whether a block runs more often than once a step."""
    block = training.model.blocks[0]
    before = block.calls
    training.step(next(iter(training.batches)))
    return bool(block.calls > before + 1)


def collects(training: Training) -> bool:
    seen: list[str] = []
    gc.callbacks.append(lambda phase, _: seen.append(phase))
    gc.disable()
    training.step(next(iter(training.batches)))
    gc.callbacks.pop()
    return bool(seen)


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
    began = time.perf_counter()
    training.step(next(iter(training.batches)))
    return time.perf_counter() - began > 0.05


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


def dense() -> list[dict[str, Tensor]]:
    return batches(columns=40)


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
        training = Sound().build()
        facts.of(training)
        after = (gc.collect, print, time.sleep, torch.save, Tensor.backward, copy.deepcopy, checkpoint)
        return before == after and "forward" not in vars(training.model) and not gc.callbacks

    assert apart(look)


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


# ------------------------------------------------------------------------------------ acts that must not pretend


def refused(act: str, sound: Sound) -> str:
    def work() -> str:
        with pytest.raises(acts.NotApplicable) as told:
            getattr(acts, act)(sound.build())
        return str(told.value)

    return apart(work)


def doubling(model: Tiny) -> Tiny:
    model.head.register_forward_hook(lambda _m, _i, out: 2 * out)
    return model


def labelled() -> list[dict[str, Tensor]]:
    """Padding that is learnt."""
    found = dense()
    for batch in found:
        batch["labels"] = batch["input_ids"].clone()
    return found


def ragged() -> list[dict[str, Tensor]]:
    return [{name: t[:, : COLUMNS - n % 3] for name, t in batch.items()} for n, batch in enumerate(batches())]


class Sign(torch.optim.Optimizer):
    """Moves weights as none of torch's does."""

    def __init__(self, params: Any, lr: float = 1e-2) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad.sign())


@pytest.mark.parametrize(
    ("act", "sound", "why"),
    [
        ("no_hooks", Sound(model=lambda: doubling(Tiny())), "the hooks change what is learnt"),
        ("no_hooks", Sound(), "there are no hooks"),
        ("cut_padding", Sound(data=labelled()), "no column at the right end is padding in every row"),
        ("doubled", Sound(data=ragged()), "batches do not have one shape"),
        ("fused", Sound(optimizer=Sign), "Sign moves weights as none of torch's fused optimizers does"),
        ("fused", Sound(), "it is fused already"),
        ("no_mask", Sound(data=dense()), "the masks of its batches mask something"),
        ("sdpa", Sound(), "no attention of transformers' is eager"),
        ("loader_workers", Sound(), "the batches do not come from torch's DataLoader"),
        ("single", Sound(), "no weight is in fp64"),
        ("tf32", Sound(), "TF32 is something of NVIDIA's GPUs"),
        ("only_learnt", Sound(), "every weight with a gradient is updated"),
        ("no_generating", Sound(), "nothing of that kind is loaded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_act_that_does_not_apply_says_so(act: str, sound: Sound, why: str) -> None:
    """And leaves the training as it was."""
    if act == "no_generating" and "transformers.generation.utils" in sys.modules:
        pytest.skip("another test loaded it")
    assert why in refused(act, sound)


# ------------------------------------------------------------------------------------ batches


def test_columns_are_cut_at_the_right_only() -> None:
    """Padding at the left stays, since positions are counted from there; labels go with their ids."""
    ids = torch.tensor([[0, 5, 6, 7, 0, 0], [0, 0, 8, 9, 3, 0]])
    mask = (ids != 0).long()
    batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.where(mask == 1, ids, -100)}
    found = cut(batch)
    assert found["input_ids"].tolist() == [[0, 5, 6, 7, 0], [0, 0, 8, 9, 3]]
    assert found["labels"].tolist() == [[-100, 5, 6, 7, -100], [-100, -100, 8, 9, 3]]
    assert {name: tuple(t.shape) for name, t in found.items()} == dict.fromkeys(batch, (2, 5))


def test_sources_and_targets_of_pairs_are_cut_for_themselves() -> None:
    """A source's mask says nothing about its target, though both may be equally wide."""
    batch = {
        "input_ids": torch.tensor([[3, 4, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 0, 0]]),
        "decoder_input_ids": torch.tensor([[0, 5, 6, 0]]),
        "labels": torch.tensor([[5, 6, 7, -100]]),
    }
    found = {name: tuple(t.shape) for name, t in cut(batch).items()}
    assert found == {"input_ids": (1, 2), "attention_mask": (1, 2), "decoder_input_ids": (1, 3), "labels": (1, 3)}


def test_without_a_mask_only_a_known_padding_token_is_cut() -> None:
    """And not where a label stands on it."""
    pair = (torch.tensor([[5, 6, 0, 0]]), torch.tensor([[6, 0, -100, -100]]))
    assert [tuple(t.shape) for t in cut(pair)] == [(1, 4), (1, 4)]
    assert [tuple(t.shape) for t in cut(pair, 0)] == [(1, 2), (1, 2)]
    learnt = (pair[0], torch.tensor([[6, 0, 0, -100]]))
    assert [tuple(t.shape) for t in cut(learnt, 0)] == [(1, 3), (1, 3)]


def test_batches_that_are_fetched_ahead_keep_their_order_and_their_errors() -> None:
    """Also when a step stops in the middle, and when it begins anew."""
    ahead = Ahead(list(range(20)))
    assert next(iter(ahead)) == 0
    assert list(ahead) == list(range(20))

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    iterator = iter(Ahead(broken()))
    assert next(iterator) == 1
    with pytest.raises(OSError, match="gone"):
        next(iterator)


def test_two_batches_become_one_and_rows_are_dealt_out_by_length() -> None:
    """Every row is there once; sorted, there is less padding."""

    def look() -> tuple[int, bool, int, int]:
        training = Sound(data=dense()).build()
        first = next(iter(acts.doubled(training).batches))
        dealt = list(acts.sorted_rows(training).batches)
        rows = sorted(row[row > 0].tolist() for batch in dealt for row in batch["input_ids"])
        same = rows == sorted(row[row > 0].tolist() for batch in dense() for row in batch["input_ids"])
        places = sum(batch["input_ids"].numel() for batch in dealt)
        return len(first["input_ids"]), same, places, sum(cut(b)["input_ids"].numel() for b in dense())

    rows, same, sorted_places, cut_places = apart(look)
    assert rows == 2 * ROWS
    assert same
    assert sorted_places < cut_places


def test_a_loader_gets_workers_that_stay() -> None:
    """They fetch the same batches in the same order."""

    def look() -> tuple[bool, int]:
        data = [{name: t[0] for name, t in batch.items()} for batch in batches()]
        training = Sound(data=DataLoader(data, batch_size=2)).build()  # type: ignore[arg-type]
        mended = acts.loader_workers(training)
        assert isinstance(mended.batches, DataLoader)
        pairs = zip(training.batches, mended.batches, strict=True)
        return all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in pairs), mended.batches.num_workers

    assert apart(look)[0]
    assert apart(look)[1] >= 1


# ------------------------------------------------------------------------------------ numbers, memory, transformers


def test_bf16_computes_in_bf16_and_gives_logits_in_fp32() -> None:
    """The losses are those of fp32 within bf16's rounding."""

    def look() -> tuple[str, str, list[float]]:
        training = acts.bf16(Sound().build())
        inside: list[str] = []
        training.model.blocks[0].up.register_forward_hook(lambda _m, _i, out: inside.append(str(out.dtype)))  # type: ignore[union-attr,index]
        found = losses(training)
        return inside[0], str(training.model(batches()[0]["input_ids"]).dtype), found

    inside, outside, found = apart(look)
    assert (inside, outside) == ("torch.bfloat16", "torch.float32")
    assert found == pytest.approx(apart(lambda: losses(Sound().build())), rel=2e-2)


def test_autocast_is_switched_off() -> None:
    """Where a device only emulates it."""

    def look() -> str:
        acts.fp32(Sound().build())
        with torch.autocast("cpu", torch.bfloat16):
            return str((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)

    assert apart(look) == "torch.float32"


def test_kept_memory_is_not_faulted_in_again() -> None:
    """A step that takes 32 MiB and gives it back faults it in each time; afterwards hardly ever."""
    if torch.empty(0).is_cuda or not sys.platform.startswith("linux"):
        pytest.skip("glibc's malloc")

    def look() -> tuple[float, float]:
        def large(_: Training) -> None:
            torch.empty(8 << 20).fill_(1.0)

        before = facts.of(Sound(after=large).build())["page_faults"]
        return before, facts.of(acts.memory_kept(Sound(after=large).build()))["page_faults"]

    before, after = apart(look)
    assert before > 3 * after


def test_models_of_transformers() -> None:
    """Eager attention becomes fused, checkpointing by their switch goes, the cache and attention weights too; the
    same is learnt."""
    transformers = pytest.importorskip("transformers")

    def gpt2(**settings: Any) -> nn.Module:
        config = transformers.GPT2Config(
            n_embd=16, n_layer=2, n_head=2, vocab_size=48, n_positions=64, attn_pdrop=0.0, embd_pdrop=0.0,
            resid_pdrop=0.0, **settings,
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(config)  # type: ignore[no-any-return]

    def recomputed() -> nn.Module:
        model: Any = gpt2()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return model  # type: ignore[no-any-return]

    def eager() -> nn.Module:
        return gpt2(attn_implementation="eager")

    def reads() -> nn.Module:
        return gpt2(attn_implementation="eager", output_attentions=True)

    def mended(make: Callable[[], nn.Module], act: str) -> tuple[list[str], list[float], list[float], list[str]]:
        as_it_is = losses(Sound(model=make).build())
        chosen = [str(one.act) for one in remedies.of_training(facts.of(Sound(model=make).build()))]
        training = getattr(acts, act)(Sound(model=make).build())
        found = losses(training)
        after = [str(one.act) for one in remedies.of_training(facts.of(training))]
        return chosen, as_it_is, found, after

    for make, act in ((recomputed, "not_recomputed"), (eager, "sdpa"), (reads, "fewer_outputs"), (gpt2, "no_cache")):
        chosen, as_it_is, found, after = apart(lambda make=make, act=act: mended(make, act))
        assert act in chosen, act
        assert act not in after, act
        assert found == pytest.approx(as_it_is, rel=1e-4)


def test_two_remedies_go_together() -> None:
    """Acts are done one after the other, on one training."""

    def look() -> tuple[bool, bool, list[float]]:
        sound = Sound(after=lambda _: gc.collect(), model=recomputing, data=dense())  # type: ignore[arg-type,return-value]
        training = sound.build()
        for act in ("not_recomputed", "cut_padding", "no_collecting", "no_hooks"):
            with contextlib.suppress(acts.NotApplicable):
                training = getattr(acts, act)(training)
        return calls(training), collects(training), losses(acts.kept_batches(training), 2)

    again, collected, found = apart(look)
    assert not again
    assert not collected
    assert len(found) == 2


def test_kernels_asked_for_inside_a_step_are_overruled() -> None:
    """The whole forward pass runs within somebody's choice of kernels."""

    def look() -> bool:
        training = Sound().build()
        own = training.step

        def within(batch: Any) -> Any:
            with sdpa_kernel([SDPBackend.MATH]):
                return own(batch)

        training.step = within
        without = saw("flash", lambda on: not on)
        return without(training) and not without(acts.all_kernels(training))

    assert apart(look)
