"""Pasted nvidia-smi output: every capture is read right, every trap is silent, and nothing pasted is a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from mutilated import mutilated

from ganeum.doctor import health, smi
from ganeum.doctor.finding import Report

CAPTURES = {
    path.stem: path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("captures/*.txt"))
}
# A person's own paste: two commands, remarks behind the figures, and a training log after them.
PASTED = (Path(__file__).parent / "logs" / "one_book.txt").read_text(encoding="utf-8")
CAPTURES["remarks_576_windows_laptop"] = PASTED[: PASTED.index("# of tokens")]
FAULTS = {
    "issue_csv_noheader_power_limited_tail": ["firmware_budget"],
    "issue_facts_rtx2000ada_laptop_bogus_power": ["telemetry"],
    "issue_facts_rtx5080_laptop_pinned_80W_no_flag": ["firmware_budget"],
    "issue_q_v100_power_brake_active": ["power_brake"],
}
# Read off the captures by eye: name, state, utilisation, power, limit, SM clock, its maximum, capped seconds.
FIGURES = {
    "code_q_570_rtx5090_idle_sw_power_cap_active": ("NVIDIA GeForce RTX 5090", "P8", 0, 23.78, 575, 22, 3090, None),
    "issue_q_freebsd_rtx5070_p0_counters": ("", "P0", None, None, None, None, None, 613.738145),
    "issue_q_v100_power_brake_active": ("", None, None, None, None, 382, None, None),
    "smi_csv_590_linux_h200_load": ("NVIDIA H200", "P0", 100, 627.4, 700, 1980, 1980, 0),
    "smi_csv_595_linux_rtx2080super_idle": (
        "NVIDIA GeForce RTX 2080 SUPER", "P8", 0, 39.32, 250, 765, 2145, 212.553937,
    ),
    "smi_q_595_linux_l40s_idle": ("NVIDIA L40S", "P0", 100, 119.88, 350, 2520, 2520, 200.740215),
    "smi_q_595_linux_rtx2080super_load": ("NVIDIA GeForce RTX 2080 SUPER", "P2", 8, 98.55, 250, 2055, 2145, 221.310321),
    "smi_q_610_windows_wddm_rtx2080super_idle": (
        "NVIDIA GeForce RTX 2080 SUPER", "P8", 0, 37.21, 250, 300, 2145, 824.547036,
    ),
    "smi_xml_515_linux_a10g_x8": ("NVIDIA A10G", "P8", 0, 25.58, 300, 210, 1710, None),
    "smi_xml_536_windows_wddm_rtx3080": ("NVIDIA GeForce RTX 3080", "P8", 0, 22.78, 336, 210, 2100, None),
    "smi_xml_580_linux_h100": ("NVIDIA H100 80GB HBM3", "P0", 0, 68.92, 700, 345, 1980, 7015.662857),
}  # fmt: skip


def looked(text: str) -> Report:
    return health.report(smi.read(text))


def alarms(text: str) -> list[str]:
    return [finding.cause for finding in looked(text).alarms]


@pytest.mark.parametrize("name", CAPTURES)
def test_faults_are_named_and_traps_are_silent(name: str) -> None:
    """A capture with a fault in its name has just that alarm, every other one has none."""
    assert FAULTS.get(name, []) == alarms(CAPTURES[name])


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_those_of_the_capture(name: str) -> None:
    """Names, states, watts and clocks are read as they stand there, in each form and generation."""
    sample = smi.read(CAPTURES[name]).samples[0]
    capped = sample.counters_s.get("sw_power_cap")
    found = (
        sample.name, sample.performance_state, sample.utilization_percent, sample.power_w, sample.power_limit_w,
        sample.sm_mhz, sample.sm_max_mhz, capped and pytest.approx(capped),
    )  # fmt: skip
    assert FIGURES[name] == found


def test_remarks_of_a_person_do_not_disturb() -> None:
    """Figures with remarks behind them are read; two commands one after the other are two samples of one GPU."""
    first, second = smi.read(CAPTURES["remarks_576_windows_laptop"]).samples
    assert ("576.88", "P0", {"sw_power_cap": 3.737587}) == (
        first.driver,
        first.performance_state,
        {name: seconds for name, seconds in first.counters_s.items() if seconds},
    )
    assert [False] * 9 == list(first.reasons.values())
    assert (2827, 14001, 46.83) == (second.sm_mhz, second.memory_mhz, second.power_w)


def test_old_counters_cannot_explain_a_long_run() -> None:
    """3.7 s of capping in all is told as the share of the run that it could at most have been."""
    report = health.report(smi.read(CAPTURES["remarks_576_windows_laptop"]), run_s=34_414)
    assert not report.alarms
    assert (
        "SW power cap: 3.7 s counted since the driver was loaded; even if all of it fell into the run, that is 0.01% "
        "of its 34,414 s"
    ) in report.ruled_out


BUSY = """timestamp, name, pstate, utilization.gpu [%], clocks.sm [MHz], clocks.max.sm [MHz], power.draw [W], \
power.limit [W], temperature.gpu, clocks_event_reasons.sw_power_cap, clocks_event_reasons.sw_thermal_slowdown, \
clocks_event_reasons.hw_thermal_slowdown, clocks_event_reasons_counters.sw_power_cap [us]
"""


def row(
    at: int, clock: int = 1900, power: float = 340.0, temperature: int = 70, reasons: str = "...", us: int = 0
) -> str:
    """A look; `reasons`: an x for each that is active, of power cap, soft and hard thermal slowdown."""
    said = ["Active" if letter == "x" else "Not Active" for letter in reasons]
    return (
        f"2026/07/03 22:10:{at:02d}.000, NVIDIA GeForce RTX 3090, P2, 99 %, {clock} MHz, 2100 MHz, {power:.2f} W, "
        f"350.00 W, {temperature}, {', '.join(said)}, {us} us\n"
    )


def test_a_cap_that_costs_is_an_alarm_and_one_that_does_not_is_a_note() -> None:
    """The flag counts only at the limit, and as much as the clock lacks of what NVIDIA promises (3090: 1,695 MHz)."""
    (costly,) = looked(BUSY + row(0, 1300, 349.0, reasons="x..")).findings
    assert ("power_cap", "warning", pytest.approx(1 - 1300 / 1695)) == (costly.cause, costly.severity, costly.size)
    (cheap,) = looked(BUSY + row(0, 1700, 349.0, reasons="x..")).findings
    assert ("power_cap", "note") == (cheap.cause, cheap.severity)
    (flag,) = looked(BUSY + row(0, 1700, 150.0, reasons="x..")).findings
    assert ("note", None) == (flag.severity, flag.size)


def test_counters_count_as_differences_while_it_works() -> None:
    """9 s in 10 s of a busy window at the limit are an alarm; the same total, unchanged, is none."""
    report = looked(BUSY + row(0, 1400, 348.0, us=5_000_000) + row(10, 1400, 348.0, us=14_000_000))
    assert ["SW power cap for 90% of the time that was watched"] == [finding.title for finding in report.alarms]
    assert [] == alarms(BUSY + row(0, us=914_000_000) + row(10, us=914_000_000))


def test_heat_is_named_with_its_temperature() -> None:
    """The driver's reason is a warning, the hardware's an error."""
    soft = looked(BUSY + row(0, 1200, 250.0, 84, ".x.")).alarms[0]
    assert ("thermal", "warning") == (soft.cause, soft.severity)
    assert "temperature 84 °C" in soft.evidence
    assert "error" == looked(BUSY + row(0, 600, 150.0, 97, "..x")).alarms[0].severity


def test_a_busy_gpu_at_a_fraction_of_its_clock_without_reason_is_told() -> None:
    """210 of 2,100 MHz at 99 % is no idling; 1,700 is a warm card's."""
    assert ["low_clock"] == alarms(BUSY + row(0, 210, 40.0))
    assert [] == alarms(BUSY + row(0, 1700, 300.0))


def test_the_table_and_dmon_are_read() -> None:
    """The framed table with its processes, and the columns of `dmon`."""
    table = """
| NVIDIA-SMI 550.54.15              Driver Version: 550.54.15      CUDA Version: 12.4     |
|   0  NVIDIA GeForce RTX 3090        On  |   00000000:01:00.0  On |                  N/A |
| 54%   62C    P2            338W /  350W |   21000MiB /  24576MiB |     98%      Default |
|    0   N/A  N/A      4242      C   python                                      18000MiB |
|    0   N/A  N/A      4343      C   other                                        2000MiB |
"""
    (sample,) = smi.read(table).samples
    assert ("NVIDIA GeForce RTX 3090", "P2", 98, 338, 350, 21_000, 62) == (
        sample.name, sample.performance_state, sample.utilization_percent, sample.power_w, sample.power_limit_w,
        sample.memory_used_mib, sample.temperature_c,
    )  # fmt: skip
    assert [(4242, 18_000), (4343, 2_000)] == [(one.pid, one.memory_mib) for one in sample.processes]
    assert {"other_processes", "power_cap"} == {finding.cause for finding in looked(table).findings}  # 338 of 350 W
    dmon = "# gpu    pwr  gtemp  mtemp     sm    mem   mclk   pclk\n# Idx      W      C      C      %      %    MHz\n"
    (drawn,) = smi.read(dmon + "    0    310     66      -     99     70   9501   1800\n").samples
    assert (310, 99, 1800, 9501) == (drawn.power_w, drawn.utilization_percent, drawn.sm_mhz, drawn.memory_mhz)


def test_dmon_with_the_time_and_of_old_drivers_is_read() -> None:
    """`-o T` puts a column in front; until 390 the temperature was called temp."""
    timed = "#Time        gpu    pwr  gtemp     sm  pviol   mclk   pclk\n"
    (drawn,) = smi.read(timed + " 12:00:01      0    349     72    100     90   9501   1100\n").samples
    assert ("0", 349, 72, 1100) == (drawn.gpu, drawn.power_w, drawn.temperature_c, drawn.sm_mhz)
    old = (
        "# gpu   pwr  temp    sm   mem   enc   dec  mclk  pclk\n    0   240    83    99    60     0     0  5005  1600\n"
    )
    assert 83 == smi.read(old).samples[0].temperature_c


def test_dmons_violations_are_those_of_a_busy_card() -> None:
    """tviol is a fault while it works; pviol alone a note, as the limit is not there; at rest both are nothing."""
    head = (
        "# gpu    pwr  gtemp     sm   mclk   pclk  pviol  tviol\n# Idx      W      C      %    MHz    MHz      %   bool"
    )
    head += "\n"
    row = "    0    {}     {}     {}   9501   {}     {}      {}\n"
    hot, capped = row.format(250, 88, 99, 1100, 0, 1), row.format(348, 70, 99, 1500, 97, 0)
    assert ["thermal"] == alarms(head + 3 * hot)
    assert [] == alarms(head + 3 * capped)
    assert "SW power cap is active" in looked(head + 3 * capped).text()
    assert [] == alarms(head + 3 * row.format(3, 44, 18, 210, 99, 1))


MASKS = (
    "name, pstate, clocks_throttle_reasons.active, clocks.sm [MHz], power.draw [W], power.limit [W], "
    "utilization.gpu [%]\n"
)


def test_reasons_are_read_from_their_bits() -> None:
    """nvml.h: 0x4 is the power cap, 0x40 with 0x8 the hardware's thermal slowdown; idle, the cap is no alarm."""
    card = "NVIDIA GeForce RTX 3090, P2, 0x00000000000000{}, {} MHz, {} W, 350.00 W, {} %\n"
    assert ["power_cap"] == alarms(MASKS + card.format("04", 1095, "349.50", 100))
    assert ["thermal"] == alarms(MASKS + card.format("48", 600, "150.00", 100))
    assert [] == alarms(MASKS + card.format("04", 210, "20.00", 0))
    assert [] == alarms(MASKS + card.format("4", 1095, "349.50", 100))  # cut: it may be any of three


@pytest.mark.parametrize("separator", ["\t", ";"])
def test_a_spreadsheet_s_columns_are_read(separator: str) -> None:
    """With tabs, or with semicolons and decimal commas, they are what they were."""
    text = (BUSY + row(0, 1300, 349.0, reasons="x..")).replace(", ", separator).replace("349.00", "349,00")
    assert ["power_cap"] == alarms(text)


def test_what_names_no_reason_clears_nobody() -> None:
    """The table has no reasons: at its limit that is a note, below it only said; text of another kind gets advice."""
    table = (
        "|   0  Tesla K80           Off  | 00000000:00:04.0 Off |                    0 |\n"
        "| N/A   69C    P0   {}W / 149W |  11000MiB / 11441MiB |    100%      Default |\n"
    )
    (note,) = looked(table.format(148)).findings
    assert ("power_cap", "note", "unconfirmed here") == (note.cause, note.severity, note.sure)
    for text in (table.format(90), table.format(148), "a photo of my card"):
        assert "nothing limits it" not in looked(text).headline
        assert "nvidia-smi -q -d PERFORMANCE" in looked(text).headline


def test_a_limit_that_is_reached_above_the_promised_clock_costs_nothing() -> None:
    """NVIDIA promises 1,695 MHz: at 1,900 the limit is reached, and nothing is lost."""
    (note,) = looked(BUSY + row(0, 1900, 349.0, reasons="x..")).findings
    assert ("note", None, "the power limit is reached, above the clock that its maker promises") == (
        note.severity, note.size, note.title,
    )  # fmt: skip


def test_a_driver_that_does_not_answer_is_an_error() -> None:
    """Its own words are the evidence."""
    said = "Failed to initialize NVML: Driver/library version mismatch"
    report = looked(said)
    assert (("driver", "error", (said,)),) == tuple((f.cause, f.severity, f.evidence) for f in report.findings)


@pytest.mark.parametrize(
    ("lines", "cause", "severity"),
    [
        ("ECC Errors\n  Volatile\n    SRAM Uncorrectable : 0\n    DRAM Uncorrectable : 3", "ecc", "error"),
        ("ECC Errors\n  Aggregate\n    SRAM Uncorrectable : 0\n    DRAM Uncorrectable : 3", "ecc", "note"),
        ("Remapped Rows\n    Pending : Yes\n    Remapping Failure Occurred : No", "ecc", "warning"),
        ("Remapped Rows\n    Pending : No\n    Remapping Failure Occurred : Yes", "ecc", "error"),
        ("Remapped Rows\n    Pending : No\n    Remapping Failure Occurred : No", None, None),
        (
            "Utilization\n    GPU : 100 %\nTemperature\n    GPU Current Temp : 88 C\n    GPU T.Limit Temp : 1 C",
            "thermal",
            "note",
        ),
        (
            "Utilization\n    GPU : 100 %\nTemperature\n    GPU Current Temp : 70 C\n    GPU T.Limit Temp : 19 C",
            None,
            None,
        ),
        (
            "PCIe Generation\n Max : 4\n Current : 1\nLink Width\n Max : 16x\n Current : 4x\nUtilization\n GPU : 99 %",
            "pcie",
            "note",
        ),
        (
            "PCIe Generation\n Max : 4\n Current : 1\nLink Width\n Max : 16x\n Current : 4x\nUtilization\n GPU : 0 %",
            None,
            None,
        ),
        ("GPU Power Readings\n Current Power Limit : 250.00 W\n Default Power Limit : 350.00 W", "power_cap", "note"),
        ("GPU Power Readings\n Current Power Limit : 350.00 W\n Default Power Limit : 350.00 W", None, None),
        ("Driver Model\n Current : WDDM\nFB Memory Usage\n Total : 8192 MiB\n Used : 8100 MiB", "spill", "note"),
        ("Driver Model\n Current : WDDM\nFB Memory Usage\n Total : 8192 MiB\n Used : 5000 MiB", None, None),
        (
            "Clocks Event Reasons\n SW Power Cap : Not Active\nUtilization\n GPU : 99 %\nClocks\n SM : 900 "
            "MHz\nApplications Clocks\n Graphics : 900 MHz\nMax "
            "Clocks\n SM : 1980 MHz",
            "locked_clocks",
            "warning",
        ),
    ],
)
def test_what_else_a_card_says_of_itself(lines: str, cause: str | None, severity: str | None) -> None:
    """Memory errors, heat, link, limit, memory, clocks that somebody set: each is seen, and silent where right."""
    found = [(finding.cause, finding.severity) for finding in looked(lines).findings]
    assert ([(cause, severity)] if cause else []) == found


def test_figures_that_lost_a_sign_are_left_out() -> None:
    """A power without its two decimals may be a hundred times too large; a clock is the larger of its two names."""
    idle = CAPTURES["smi_q_595_linux_rtx2080super_idle"]
    (sample,) = smi.read(idle.replace("37.62 W", "3762 W")).samples
    assert sample.power_w is None
    (clocks,) = smi.read(
        idle.replace("SM                                                 : 300 MHz", "SM : 30 MHz")
    ).samples
    assert 300 == clocks.sm_mhz


def test_a_figure_from_further_up_is_another_gpu_s() -> None:
    """Where the line between two cards was lost, the second one's utilisation is not the first one's."""
    first = "    Performance State : P0\n    Utilization\n        GPU : 100 %\n"
    lost = first + "    Performance State : P8\n    Clocks\n        SM : 210 MHz\n"
    assert [("P0", 100, None), ("P8", None, 210)] == [
        (one.performance_state, one.utilization_percent, one.sm_mhz) for one in smi.read(lost).samples
    ]


def test_a_counter_that_gained_more_than_there_was_time_is_not_believed() -> None:
    """90 s in 10 s: two cards, or a driver that was loaded anew."""
    assert [] == alarms(BUSY + row(0, 1400, 348.0, us=5_000_000) + row(10, 1400, 348.0, us=95_000_000))


def test_two_cards_are_kept_apart() -> None:
    """An idle card's figures are not the busy one's, in either order."""
    both = CAPTURES["smi_q_595_linux_l40s_idle"] + CAPTURES["smi_q_595_linux_rtx2080super_idle"].replace(":01:", ":02:")
    reading = smi.read(both)
    assert ["00000000:01:00.0", "00000000:02:00.0"] == list(reading.by_gpu())
    assert [] == alarms(both)


# One asserts its power brake at rest: cut to that line, it is like one that does under load.
SILENT = [name for name in CAPTURES if name not in FAULTS and "power_brake" not in name]


def mutations(number: int, seed: int) -> None:
    dice = random.Random(seed)
    for at in range(number):
        name, other = dice.choice(SILENT), dice.choice(SILENT)
        text = mutilated(CAPTURES[name], CAPTURES[other], dice)
        report = looked(text)
        assert not report.alarms, f"mutation {at} of {name} with {other}: {report.text()}\n\n{text}"
        report.json(), report.text()


def test_mutilated_captures_raise_no_alarm() -> None:
    """Nothing that a page, a mail or a person does to a capture without a fault makes one, or a traceback."""
    mutations(150, seed=8)


def test_the_lines_of_two_cards_in_each_other_raise_no_alarm() -> None:
    """Line by line and in pieces, in any order that keeps each card's own."""
    dice = random.Random(5)
    for _ in range(100):
        one, other = (CAPTURES[dice.choice(SILENT)].split("\n") for _ in range(2))
        most, lines = dice.choice((1, 15)), []
        while one or other:
            taken = one if one and (not other or dice.random() < 0.5) else other
            number = dice.randint(1, most)
            lines += taken[:number]
            del taken[:number]
        assert [] == alarms("\n".join(lines))


@pytest.mark.campaign
def test_two_thousand_mutilated_captures_raise_no_alarm() -> None:
    """The same, 2,000 times."""
    mutations(2_000, seed=2026)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_survives_what_a_page_does_to_it(name: str) -> None:
    """Escaped, quoted, re-indented, with Windows' line ends: what is wrong is still seen."""
    from mutilated import decimal_commas, escaped, line_ends, quoted, reindented

    for change in (escaped, quoted, reindented, line_ends, decimal_commas):
        assert FAULTS[name] == alarms(change(CAPTURES[name], random.Random(1))), change.__name__


def test_two_cards_of_one_name_are_two() -> None:
    """Without an index: a clock of the other card is no clock that fell, and its capped seconds are nobody's gain."""
    heading = "name, pstate, utilization.gpu [%], clocks.sm [MHz], clocks.max.sm [MHz], power.draw [W], power.limit [W]"
    rows = [f"NVIDIA A100-SXM4-40GB, P0, 100 %, {clock} MHz, 1410 MHz, {watts:.2f} W, 400.00 W" for clock, watts in
            ((1410, 300), (1185, 390))]  # fmt: skip
    assert 2 == len(smi.read("\n".join([heading, *rows])).by_gpu())
    assert [] == alarms("\n".join([heading, *rows]))
    timed = [f"2026/11/22 00:00:0{at // 2}.000, {row}" for at, row in enumerate(rows * 3)]
    cards = smi.read("\n".join([f"timestamp, {heading}", *timed])).by_gpu()
    assert [[1410] * 3, [1185] * 3] == [[sample.sm_mhz for sample in card] for card in cards.values()]


def test_one_card_over_time_stays_one() -> None:
    """Without an index, with the time of each row: a clock that falls while it is busy is still seen."""
    heading = "timestamp, name, pstate, utilization.gpu [%], clocks.sm [MHz], clocks.max.sm [MHz]"
    rows = [
        f"2026/11/22 00:00:{at:02d}.000, NVIDIA A100-SXM4-40GB, P0, 100 %, {1400 if at < 4 else 700} MHz, 1410 MHz"
        for at in range(9)
    ]
    text = "\n".join([heading, *rows])
    assert 1 == len(smi.read(text).by_gpu())
    assert [] != alarms(text)
