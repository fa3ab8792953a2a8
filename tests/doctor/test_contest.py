"""Two variants by turns: the median of their ratios, its exact interval, and what noise and drift do to it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ganeum.doctor.measured import bursts
from ganeum.doctor.measured.contest import Ratio, contest, interval, of, ratio
from ganeum.doctor.measured.training import Block


@dataclass
class Time:
    """A clock that only the variants move."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Fake:
    """A variant whose steps of 100 tokens take ``step_s``, times what ``noise`` says at that moment.

    ``shared``: of its seconds so many are waiting for a core; ``computed``: cores that it keeps busy.
    """

    clock: Time
    step_s: float
    noise: Callable[[float], float] = lambda _: 1.0
    waits: Callable[[float], float] = lambda _: 0.0
    cores: float | None = None
    blocks: list[Block] = field(default_factory=list)

    def rewind(self) -> None: ...

    def warm(self, seconds: float = 0.3, least: int = 3) -> float:
        self.clock.now += seconds
        return self.step_s

    def block(self, steps: int) -> Block:
        own = steps * self.step_s * self.noise(self.clock.now)
        waited = own * self.waits(self.clock.now)
        self.clock.now += own + waited
        computed = None if self.cores is None else own * self.cores
        known = None if self.cores is None else waited
        self.blocks.append(Block(steps, own + waited, 100 * steps, computed=computed, waited=known))
        return self.blocks[-1]


def measured(a: Fake, b: Fake, seconds: float = 3.0, **more: Any) -> Ratio:
    return contest(a, b, seconds=seconds, clock=a.clock, **more)


@pytest.mark.parametrize(
    ("n", "k", "confidence"),
    [(8, 1, 0.9921875), (20, 4, 0.99742), (60, 20, 0.99378), (5, 1, 0.9375), (2500, 1186, 0.99013)],
)
def test_the_interval_is_that_of_the_tables(n: int, k: int, confidence: float) -> None:
    """Of n values the k-th from both ends enclose the median with at least 99 % (binomial tables, p = ½); five values
    cannot, and say how sure they are instead."""
    values = [float(value) for value in range(1, n + 1)]
    random.Random(n).shuffle(values)
    low, high, sure = interval(values)
    assert (low, high) == (k, n + 1 - k)
    assert sure == pytest.approx(confidence, abs=5e-5)


def test_a_faster_variant_is_found_as_much_faster_as_it_is() -> None:
    """8 ms against 10 ms are 1.25 times, in blocks by turns, A B B A, after one of each that is not counted."""
    clock = Time()
    order: list[str] = []
    a = Fake(clock, 0.010, noise=lambda _: order.append("a") or 1.0)  # type: ignore[func-returns-value]
    b = Fake(clock, 0.008, noise=lambda _: order.append("b") or 1.0)  # type: ignore[func-returns-value]
    found = measured(a, b)
    assert found.median == pytest.approx(1.25)
    assert "".join(order).startswith("ab" + "abbaabba")
    assert found.rates == pytest.approx((10_000, 12_500))


def test_drift_favours_neither() -> None:
    """Everything becomes 3 % slower each second: the ratio of two like ones stays 1, and encloses it."""
    clock = Time()
    slower = lambda now: 1.03**now  # noqa: E731
    found = measured(Fake(clock, 0.01, slower), Fake(clock, 0.01, slower), seconds=10, floor=0.0001)
    assert found.median == pytest.approx(1.0, abs=1e-3)
    assert found.low <= 1.0 <= found.high


def test_some_disturbed_blocks_do_not_move_it() -> None:
    """Every fifth block takes eight times as long: 1.25 stays 1.25 within 2 %."""
    clock, draw = Time(), random.Random(1)
    noise = lambda _: 8.0 if draw.random() < 0.2 else draw.uniform(0.98, 1.02)  # noqa: E731
    found = measured(Fake(clock, 0.01, noise), Fake(clock, 0.008, noise), seconds=20, floor=0.001)
    assert found.median == pytest.approx(1.25, rel=0.02)
    assert found.low > 1.1


def test_waiting_for_a_core_is_left_out_of_what_computes_on_one() -> None:
    """Another program takes one half of all blocks' time, at random: the ratio is exact all the same."""
    clock, draw = Time(), random.Random(2)
    waits = lambda _: draw.choice([0.0, 1.0, 3.0])  # noqa: E731
    one = [Fake(clock, step_s, waits=waits, cores=1.0) for step_s in (0.010, 0.008)]
    found = measured(*one)
    assert found.undisturbed
    assert (found.low, found.high) == pytest.approx((1.25, 1.25))


def test_an_account_that_is_off_in_some_blocks_hides_no_crowd() -> None:
    """Three blocks of ten seem to have waited for nearly all their time, since clock and account are not read at once:
    what the others waited is left out all the same."""
    waits = [0.019, 0.01, 0.01, 0.019, 0.01, 0.01, 0.019, 0.01, 0.01, 0.01]
    blocks = [Block(1, 0.02, 100, computed=0.01, waited=waited) for waited in waits]
    found = ratio([(block, block) for block in blocks])
    assert found.undisturbed
    assert found.rates == pytest.approx((10_000, 10_000))


def test_what_could_be_chance_is_measured_longer() -> None:
    """A gain of 1.1 in noise of a third: after the time it could be chance still, and goes on until it is none, where
    there is time; 1.6 ends in time, and so does the run against itself."""
    spent = {}
    for gain, only_gain in ((1.1, True), (1.6, True), (1.1, False)):
        clock, draw = Time(), random.Random(4)
        noise = lambda _, draw=draw: draw.uniform(0.67, 1.33)  # noqa: E731
        a, b = Fake(clock, 0.02, noise), Fake(clock, 0.02 / gain, noise)
        spent[gain, only_gain] = measured(a, b, seconds=2.0, only_gain=only_gain).seconds
    assert spent[1.1, True] > 2.5
    assert max(spent[1.6, True], spent[1.1, False]) < 2.2
    clock, draw = Time(), random.Random(4)
    a, b = Fake(clock, 0.02, noise), Fake(clock, 0.02 / 1.1, noise)
    found = measured(a, b, seconds=2.0, only_gain=True, patience=100.0)
    assert found.beyond(0.01)
    assert found.seconds < 100


def test_longer_steps_that_learn_more_are_not_given_up() -> None:
    """Five times the time for a step of six times the tokens is no slower."""

    @dataclass
    class Large(Fake):
        def block(self, steps: int) -> Block:
            found = super().block(steps)
            return replace(found, tokens=6 * found.tokens)

    clock = Time()
    found = measured(Fake(clock, 0.01), Large(clock, 0.05), only_gain=True)
    assert found.pairs >= 8
    assert found.median == pytest.approx(1.2)


def test_waiting_for_its_own_threads_is_its_own_affair() -> None:
    """One that keeps four cores busy waits for itself: nothing is left out."""
    clock = Time()
    plain = Fake(clock, 0.010, cores=1.0)
    crowded = Fake(clock, 0.010, waits=lambda _: 3.0, cores=4.0)
    found = measured(plain, crowded)
    assert not found.undisturbed
    assert found.median == pytest.approx(0.25)


def test_a_thread_that_fetches_is_paid_for() -> None:
    """One that computes a tenth more in a thread beside, for which its main thread waits, is a tenth slower."""
    clock = Time()
    plain = Fake(clock, 0.010, cores=1.0)
    helped = Fake(clock, 0.010, waits=lambda _: 0.1, cores=1.1)
    assert measured(plain, helped).median == pytest.approx(1 / 1.1)


def test_like_ones_are_called_different_as_rarely_as_promised() -> None:
    """1,000 contests of a thing with itself, in noise with a heavy tail: the interval misses 1 in at most 1 % and
    three standard deviations of that."""
    draw, missed, contests = random.Random(3), 0, 1_000
    for _ in range(contests):
        logs = [draw.gauss(0, 0.05) * math.exp(abs(draw.gauss(0, 1))) for _ in range(24)]
        low, high, _ = interval(logs)
        missed += not low <= 0 <= high
    assert missed <= contests * 0.01 + 3 * math.sqrt(contests * 0.01)


def test_what_is_certainly_no_gain_ends_early() -> None:
    """Only whether it is faster matters: a variant of half the speed is given up after the fewest pairs."""
    clock = Time()
    noise = lambda now: 1.0 + 0.2 * math.sin(1e3 * now)  # noqa: E731
    found = measured(Fake(clock, 0.01, noise), Fake(clock, 0.018, noise), seconds=1e3, only_gain=True)
    assert found.pairs == 8
    assert found.below(0.01)


def test_a_block_holds_whole_periods() -> None:
    """Where each tenth step is unlike the others, blocks are of ten steps, or twenty."""
    clock = Time()
    a, b = Fake(clock, 0.001), Fake(clock, 0.001)
    measured(a, b, multiple=15)
    assert {block.steps for block in a.blocks + b.blocks} == {30}  # 20 ms need 20 steps


def test_a_step_that_is_long_at_regular_distances() -> None:
    """Each tenth step saves something: 30 ms beside 10 ms are 1/6 of the time, seen as that, and not in the data."""
    times = [0.03 if place % 10 == 9 else 0.01 for place in range(60)]
    found = bursts.find(times, [0.0] * 60)
    assert found is not None
    assert (found.period, found.in_data) == (10, False)
    assert found.share == pytest.approx(0.02 / 0.12)
    assert bursts.between(times) == 10
    collections = [0.02 if place % 10 == 9 else 0.0 for place in range(60)]
    assert bursts.find(times, [0.0] * 60, collections) is None  # Python's own, at which another remedy looks


def test_a_block_holds_long_steps_unless_their_tokens_make_them_long() -> None:
    """A fifth of the steps takes three times as long: it has three times the tokens, or it has not."""
    times = [0.03 if place % 5 == 4 else 0.01 for place in range(60)]
    assert bursts.together(times, [round(1e4 * seconds) for seconds in times], 100) == 1
    assert bursts.together(times, [100] * 60, 100) == 10


def test_long_steps_at_random_are_nothing_regular() -> None:
    """Of 50 rows of noise none is called regular."""
    for seed in range(50):
        draw = random.Random(seed)
        times = [0.05 if draw.random() < 0.1 else draw.uniform(0.009, 0.011) for _ in range(60)]
        gaps = bursts.find(times, [0.0] * 60)
        assert gaps is None


def test_of_very_few_pairs_only_what_no_noise_looks_like_is_believed() -> None:
    slower, far_slower = math.log(0.8), math.log(0.4)
    assert of([slower] * 6, (1.0, 1.0), 0.0).below(0.01)
    assert not of([slower] * 2, (1.0, 1.0), 0.0).below(0.01)
    assert of([far_slower] * 2, (1.0, 1.0), 0.0).below(0.01)
    assert not of([-slower] * 2, (1.0, 1.0), 0.0).beyond(0.01)
    assert of([-far_slower] * 2, (1.0, 1.0), 0.0).beyond(0.01)
