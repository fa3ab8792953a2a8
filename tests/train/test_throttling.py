"""What may be said about a GPU's clocks, from made-up lines of system.jsonl: facts, and nothing that is no evidence."""

from __future__ import annotations

from typing import Any

import pytest

from ganeum.train.throttling import in_words, throttling

AT_WORK = {
    "gpu_utilization_percent": 99,
    "sm_clock_mhz": 1695,
    "sm_clock_max_mhz": 2100,
    "power_w": 230.0,
    "power_limit_w": 250.0,
    "temperature_c": 70,
    "throttle_reasons": [],
}


def lines(*parts: tuple[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """So many seconds of each, a line a second."""
    figures = [AT_WORK | part for seconds, part in parts for _ in range(seconds)]
    return [{"elapsed_s": float(i), **line} for i, line in enumerate(figures)]


HOT = {"throttle_reasons": ["sw_thermal_slowdown"], "sm_clock_mhz": 1200, "temperature_c": 87}


def test_how_long_and_by_how_much() -> None:
    """60 of 100 seconds at work too hot: the share, the clocks then and otherwise, power and temperature."""
    found = throttling(lines((41, {}), (60, HOT)))
    assert found is not None
    assert (100.0, 60.0, 0.6) == (found["at_work_s"], found["throttled_s"], found["share"])
    assert {"sw_thermal_slowdown": 60.0} == found["reasons"]
    assert in_words(found) == (
        "GPU: for 60% of its 100 s at work its clocks were held down by its temperature; "
        "SM clock 1,200 MHz, 1,695 otherwise, 2,100 at most; 230 of 250 W; 87 °C"
    )


def test_two_reasons_each_with_its_part() -> None:
    """The longer one first; the hardware's umbrella is not named where it says which guard it was."""
    hot = {"throttle_reasons": ["hw_slowdown", "hw_thermal_slowdown"], "sm_clock_mhz": 900}
    capped = {"throttle_reasons": ["sw_power_cap"], "power_w": 249.0, "sm_clock_mhz": 1500}
    found = throttling(lines((1, {}), (25, hot), (75, capped)))
    assert found is not None
    assert {"sw_power_cap": 75.0, "hw_thermal_slowdown": 25.0} == found["reasons"]
    assert (
        (in_words(found) or "")
        .split(";")[0]
        .endswith(
            "held down by the power limit (75% of that) and its temperature (the hardware's own guard) (25% of that)"
        )
    )


@pytest.mark.parametrize(
    "nothing",
    [
        {"gpu_utilization_percent": 3, "throttle_reasons": ["gpu_idle", "sw_power_cap"], "sm_clock_mhz": 210},
        {"throttle_reasons": ["sw_power_cap"], "power_w": 98.0},
        {"throttle_reasons": ["sw_power_cap"], "sm_clock_mhz": 2100, "power_w": 250.0},
        {"throttle_reasons": ["applications_clocks_setting"]},
    ],
    ids=["a power cap that idles", "far below the power limit", "at the highest clock", "a clock that its owner set"],
)
def test_what_is_no_evidence(nothing: dict[str, Any]) -> None:
    """A reason alone proves nothing: drivers name the power cap on cards that idle, too."""
    found = throttling(lines((50, {}), (50, nothing)))
    assert found is not None
    assert (0.0, {}) == (found["throttled_s"], found["reasons"])
    assert in_words(found) is None


def test_a_moment_is_not_worth_a_line() -> None:
    """Four of 100 seconds."""
    found = throttling(lines((97, {}), (4, HOT)))
    assert found is not None
    assert in_words(found) is None


def test_too_few_looks_say_nothing() -> None:
    """Nine seconds at work, or a card that does not tell how busy it is."""
    assert throttling(lines((10, HOT))) is None
    assert throttling(lines((100, {"gpu_utilization_percent": None}))) is None


def test_a_line_stands_for_the_time_since_the_one_before() -> None:
    """In a long run the looks are further apart: 19 of them, 2 s each."""
    apart = [line | {"elapsed_s": 2 * line["elapsed_s"]} for line in lines((20, HOT))]
    found = throttling(apart)
    assert found is not None
    assert (38.0, 38.0) == (found["at_work_s"], found["throttled_s"])


def test_figures_that_are_missing_are_left_out() -> None:
    """A card that knows no power limit and no highest clock."""
    bare = {"gpu_utilization_percent": 99, "throttle_reasons": ["hw_slowdown"]}
    found = throttling([{"elapsed_s": float(i), **bare} for i in range(20)])
    assert found is not None
    assert in_words(found) == (
        "GPU: for 100% of its 19 s at work its clocks were held down by the hardware's guard (power or temperature)"
    )
