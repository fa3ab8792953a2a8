"""The fastest way that fits: micro-batch, checkpointing and precision chosen together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from ganeum.config.batch import divisors
from ganeum.config.change import change
from ganeum.config.schema import Config, Model, Train
from ganeum.hardware.device import Device
from ganeum.plan import execution, fastest, memory, time
from ganeum.plan.architecture import Architecture, ours
from ganeum.plan.execution import Execution
from ganeum.plan.time import StepTime

RATES = {"fp32": 35.6e12, "tf32": 35.6e12, "fp16": 71.2e12, "bf16": 71.2e12}
CPU = Device("a CPU", "cpu", memory_gib=64, usable_gib=50)
CHOSEN = ("train.precision", "train.activation_checkpointing", "train.micro_batch_size")


def gpu(usable_gib: float, **facts: object) -> Device:
    known = {"peak_flops_per_second": RATES, "memory_bandwidth_gb_s": 936.0, "capability": (8, 6)}
    return Device("a GPU", "cuda", memory_gib=usable_gib, usable_gib=usable_gib, **known | facts)  # type: ignore[arg-type]


def config(batch_size: int = 64, model: dict[str, object] | None = None, **train: object) -> Config:
    shape = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "vocab_size": 50_257}
    return Config(model=Model(**shape | (model or {})), train=Train(batch_size=batch_size, **train))  # type: ignore[arg-type]


def weighed(run: Config, device: Device) -> memory.Memory:
    size = run.train.micro_batch_size
    assert isinstance(size, int)
    return memory.of(ours.architecture(run.model), execution.of(run, device, size))


def paced(run: Config, device: Device) -> float:
    size = run.train.micro_batch_size
    assert isinstance(size, int)
    found = time.of(ours.architecture(run.model), execution.of(run, device, size), device)
    assert found is not None
    return found.tokens_per_second


def test_with_room_for_everything_nothing_is_computed_twice() -> None:
    """On a card with memory to spare the whole batch goes through at once, in the format of its tensor cores."""
    chosen, choices = fastest.choose(config(16), gpu(140))
    assert dict(zip(CHOSEN, ("bf16", "none", 16), strict=True)) == chosen
    assert list(CHOSEN) == [choice["key"] for choice in choices]
    assert choices[2]["reason"].startswith("the whole batch fits at once: about ")


@effort(max_examples=25)
@given(batch=st.integers(1, 256), usable=st.floats(1.5, 80))
def test_it_divides_the_batch_and_fits(batch: int, usable: float) -> None:
    """What is chosen fits by the prediction, or the reason says that nothing does; the batch is never touched."""
    run, device = config(batch, {"n_layer": 2, "n_embd": 256, "n_head": 4}), gpu(usable)
    chosen, choices = fastest.choose(run, device)
    assert set(chosen) == set(CHOSEN)
    assert batch % chosen["train.micro_batch_size"] == 0
    assert weighed(change(run, chosen), device).fits(device) or choices[2]["reason"].startswith("even one sequence")


@effort(max_examples=25)
@given(usable=st.floats(4, 60), more=st.floats(1, 3))
def test_more_memory_is_never_slower(usable: float, more: float) -> None:
    """A card with more memory and the same rates is as fast at least, but for what counts as equally fast."""
    run = config(32)
    small, large = gpu(usable), gpu(usable * more)
    before, after = (change(run, fastest.choose(run, device)[0]) for device in (small, large))
    if weighed(before, small).fits(small):
        assert paced(after, large) * (1 + fastest.EQUAL) >= paced(before, small)


@effort(max_examples=25)
@given(
    usable=st.floats(3, 40),
    batch=st.sampled_from([8, 48, 64]),
    width=st.sampled_from([256, 512, 1024]),
    block_size=st.sampled_from([128, 512, 1024]),
)
def test_no_other_way_that_fits_is_faster(usable: float, batch: int, width: int, block_size: int) -> None:
    """Going through every micro-batch and every level finds nothing that is faster by more than 3 %, though only the
    largest micro-batch of each level was looked at."""
    run, device = config(batch, {"n_embd": width, "n_head": 8, "block_size": block_size}, precision="bf16"), gpu(usable)
    every = [change(run, {CHOSEN[1]: level, CHOSEN[2]: size}) for level in fastest.LEVELS for size in divisors(batch)]
    fitting = [way for way in every if weighed(way, device).fits(device)]
    if fitting:
        taken = change(run, fastest.choose(run, device)[0])
        assert paced(taken, device) * (1 + fastest.EQUAL) >= max(paced(way, device) for way in fitting)


def test_what_is_set_stays() -> None:
    """A value that the user gave is neither changed nor listed."""
    run = config(activation_checkpointing="selective", precision="fp32")
    chosen, choices = fastest.choose(run, gpu(24))
    assert ["train.micro_batch_size"] == list(chosen) == [choice["key"] for choice in choices]
    assert fastest.choose(change(run, {"train.micro_batch_size": 2}), gpu(24)) == ({}, [])


def test_weights_in_bf16_are_multiplied_in_bf16() -> None:
    """Even on a card whose tensor cores have fp16 only; and the reason is the weights, not the card."""
    turing = gpu(16, capability=(7, 5))
    assert fastest.choose(config(8), turing)[0]["train.precision"] == "fp16"
    chosen, (choice, *_) = fastest.choose(config(8, weights="bf16"), turing)
    assert chosen["train.precision"] == "bf16"
    assert choice["reason"] == "train.weights is bf16"


def test_where_one_sequence_needs_checkpointing_it_is_taken_with_the_figure() -> None:
    """A card that is too small for one sequence without it computes the blocks twice, and says what was lacking."""
    run = config(8, {"n_layer": 24, "n_embd": 1024, "n_head": 16})
    one = change(run, {"train.micro_batch_size": 1, "train.activation_checkpointing": "none"})
    needed = weighed(one, gpu(9))
    device = gpu(0.99 * needed.high / 2**30)
    chosen, choices = fastest.choose(run, device)
    assert chosen["train.activation_checkpointing"] != "none"
    assert choices[1]["reason"] == (
        f"without it one sequence needs about {needed.total / 2**30:.2f} GiB, and "
        f"{device.usable_gib:.2f} GiB are usable"
    )


def test_nothing_fits() -> None:
    """Then the way that needs least is taken, and each reason says that it does not fit."""
    run, device = config(8), gpu(1.0)
    chosen, choices = fastest.choose(run, device)
    assert ("bf16", "whole", 1) == tuple(chosen[key] for key in CHOSEN)
    needed = f"{weighed(change(run, chosen), device).total / 2**30:.2f} GiB"
    assert choices[1]["reason"] == (
        f"one sequence needs about {needed}, and 1.00 GiB are usable: computing twice is not enough"
    )
    assert choices[2]["reason"] == f"even one sequence needs about {needed}, and 1.00 GiB are usable"


def test_a_context_is_cut_only_where_it_may_be() -> None:
    """With --may-shorten the context is halved until something fits, and nothing else happens to it."""
    run = config(1, {"block_size": 8192})
    whole = {"train.precision": "tf32", "train.activation_checkpointing": "whole", "train.micro_batch_size": 1}
    device = gpu(weighed(change(run, whole | {"model.block_size": 1024}), gpu(80)).high / 2**30)
    assert "model.block_size" not in fastest.choose(run, device)[0]
    chosen, choices = fastest.choose(run, device, may_shorten=True)
    assert chosen["model.block_size"] in (4096, 2048, 1024)
    assert weighed(change(run, chosen), device).fits(device)
    longer = change(run, {"model.block_size": 2 * chosen["model.block_size"]})
    assert not weighed(change(longer, fastest.choose(longer, device)[0]), device).fits(device)
    assert choices[0]["reason"] == "8,192 tokens fit in no way that is allowed: halved until they did"
    assert "model.block_size" not in fastest.choose(run, gpu(80), may_shorten=True)[0]


@pytest.mark.parametrize(("expected", "block_size"), [(4, 1024), (64, 64), (1, 8192)])
def test_a_cpu_takes_4096_tokens(expected: int, block_size: int) -> None:
    """On a CPU it is 4,096 tokens at once where the batch is larger than that, and at least one sequence."""
    chosen, choices = fastest.choose(config(64, {"n_layer": 1, "block_size": block_size}), CPU)
    assert expected == chosen["train.micro_batch_size"]
    assert (expected == 64) == choices[2]["reason"].startswith("the whole batch fits at once")


Paces = Callable[[dict[tuple[str, str], float]], None]


@pytest.fixture
def paces(monkeypatch: pytest.MonkeyPatch) -> Paces:
    """(precision, level) → tokens a second, in place of the roofline's."""

    def of(wanted: dict[tuple[str, str], float]) -> None:
        def timed(architecture: Architecture, way: Execution, device: Device) -> StepTime:
            pace = wanted[way.precision, way.checkpointing]
            return StepTime(1.0, 1.0, 1.0, {}, pace, "given")

        monkeypatch.setattr(fastest.time, "of", timed)

    return of


@pytest.mark.parametrize(
    ("expected", "bf16", "tf32"),
    [
        ("bf16 none", (100, 102, 102), (50, 50, 50)),  # 2 % faster is as fast: the fewest tricks
        ("bf16 whole", (100, 100, 104), (50, 50, 50)),
        ("bf16 none", (100, 90, 80), (109, 90, 80)),  # 9 % are not enough to leave the device's own format
        ("tf32 none", (100, 90, 80), (111, 90, 80)),
        ("bf16 selective", (100, 110, 112), (90, 90, 90)),  # within 3 % of the fastest
    ],
)
def test_of_ways_about_as_fast_the_plainest_is_taken(
    expected: str, bf16: tuple[int, ...], tf32: tuple[int, ...], paces: Paces
) -> None:
    """3 % make no way faster, and 10 % no other precision."""
    paces(
        {("bf16", level): pace for level, pace in zip(fastest.LEVELS, bf16, strict=True)}
        | {("tf32", level): pace for level, pace in zip(fastest.LEVELS, tf32, strict=True)}
    )
    chosen, _ = fastest.choose(config(2), gpu(80))
    assert expected == f"{chosen[CHOSEN[0]]} {chosen[CHOSEN[1]]}"


def test_the_reason_names_what_was_given_up(paces: Paces) -> None:
    """That whole blocks leave room for more at once, and what that would gain or cost, stands beside the choice."""
    device, run = gpu(8), config(64, precision="bf16")
    paces({("bf16", "none"): 100.0, ("bf16", "selective"): 100.0, ("bf16", "whole"): 82.0})
    chosen, (level, _) = fastest.choose(run, device)
    fits = {mode: fastest.choose(change(run, {CHOSEN[1]: mode}), device)[0][CHOSEN[2]] for mode in ("none", "whole")}
    assert chosen[CHOSEN[1]] == "none"
    assert level["reason"] == (
        f"nothing is computed twice; whole fits {fits['whole']} at once instead of {fits['none']}, but is 18% slower"
    )
    paces({("bf16", "none"): 100.0, ("bf16", "selective"): 100.0, ("bf16", "whole"): 118.0})
    _, (level, _) = fastest.choose(run, device)
    assert level["reason"] == f"whole fits {fits['whole']} at once, and is 18% faster than none with {fits['none']}"


def test_without_known_rates_the_fewest_tricks_are_taken() -> None:
    """Of a card whose speed nobody knows only memory decides: nothing is computed twice where anything fits so."""
    chosen, _ = fastest.choose(config(64), gpu(8, peak_flops_per_second={}))
    assert chosen["train.activation_checkpointing"] == "none"


@pytest.mark.parametrize("usable", [2.5, 3.0, 5.0])
def test_the_largest_micro_batch_is_that_of_trying_every_one(usable: float) -> None:
    """Halving the numbers in between finds what going through them one by one finds."""
    run, device = config(1, {"n_layer": 2, "block_size": 256}), gpu(usable)
    architecture, base = ours.architecture(run.model), execution.of(run, device, 1)
    every = (
        size
        for size in range(1, 2000)
        if not memory.of(architecture, replace(base, micro_batch_size=size)).fits(device)
    )
    assert next(every) - 1 == fastest.largest(architecture, base, device)


def test_the_largest_micro_batch_where_none_fits() -> None:
    """Zero sequences fit where one does not."""
    run, device = config(1), gpu(0.5)
    assert fastest.largest(ours.architecture(run.model), execution.of(run, device, 1), device) == 0
