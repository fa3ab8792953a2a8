"""What fits where: rows that memory and the cards bear out, the same in every form, and a page that is current."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from ganeum import units
from ganeum.cli import main
from ganeum.errors import ConfigError
from ganeum.hardware.card import card
from ganeum.plan import memory
from ganeum.plan.architecture import find
from ganeum.plan.page import what_fits
from ganeum.plan.question import named, tables
from ganeum.plan.question.use import read

SHORT = ["precision=fp16", "length=256"]


@pytest.mark.parametrize("way", tables.LEVERS)
def test_the_largest_fits_and_one_more_does_not(way: str) -> None:
    """``largest`` sequences at once fit with all bounds, and one more does not."""
    model, device, use = find("gpt2"), card("RTX 3080 10GB"), tables.levers(SHORT)[way]
    found = tables.row(model, device, use)
    one = replace(named.settled(model, use, device), checkpointing=use.activation_checkpointing)
    assert found["largest"] > 0
    assert memory.of(model, replace(one, micro_batch_size=found["largest"])).fits(device)
    assert not memory.of(model, replace(one, micro_batch_size=found["largest"] + 1)).fits(device)


def test_a_row_by_hand() -> None:
    """StarCoder has 15,517,456,384 parameters; AdamW keeps 16 bytes for each, 231 GiB, where document 001 reckons two
    bytes for each: 29 GiB."""
    found = tables.row(find("starcoder"), card("RTX 4080"), read([*SHORT, "activation_checkpointing=none"]), "plain")
    assert (15_517_456_384, "no", 0, "plain") == (found["parameters"], found["fits"], found["largest"], found["way"])
    assert 16 * 15_517_456_384 / 2**30 <= found["gib"] <= found["high"]
    assert found["low"] <= found["gib"]
    assert "tokens_per_second" not in found


def test_more_levers_let_more_fit() -> None:
    """Checkpointing, 8-bit state and offloading: each needs less than the one before, and no fewer sequences fit."""
    rows = tables.grid([find("phi-1-small")], [card("RTX 4080")], tables.levers(SHORT)).rows
    assert list(tables.LEVERS) == [row["way"] for row in rows]
    needs, fit = [row["gib"] for row in rows], [row["largest"] for row in rows]
    assert sorted(needs, reverse=True) == needs
    assert sorted(fit) == fit
    assert ["tokens_per_second" in row for row in rows] == [True, True, True, False, False]


def test_offloading_leaves_two_bytes_a_parameter() -> None:
    """Of phi-1's 1,418,270,720 parameters ZeRO-2 with the optimizer offloaded leaves 2 bytes each on the GPU, 2.64 GiB
    (Ren et al. 2021, section 4), and ZeRO-3 with all offloaded none but a layer's; the rest is in the CPU's memory: 12
    bytes each for AdamW and the weights in fp32, 4 for gradients, and 2 for ZeRO-3's weights."""
    ways = tables.levers(["precision=fp16", "length=256"])
    two, three = (
        tables.row(find("phi-1"), card("RTX 4080"), ways[way]) for way in ("ZeRO-2 offload", "ZeRO-3 offload")
    )
    each = 1_418_270_720 / 2**30
    assert 2 * each < two["gib"] < 2 * each + 1
    assert three["gib"] < 1
    assert (pytest.approx(16 * each), pytest.approx(18 * each)) == (two["host_gib"], three["host_gib"])


def test_perhaps_lies_between_the_bounds() -> None:
    """A card whose memory lies between the two bounds is a perhaps: neither promised nor refused."""
    model, use = find("gpt2"), read([*SHORT, "activation_checkpointing=none"])
    roomy = tables.row(model, card("RTX 4090"), use)
    assert roomy["fits"] == "yes"
    between = replace(card("RTX 4090"), usable_gib=(roomy["low"] + roomy["high"]) / 2)
    below = replace(between, usable_gib=0.99 * roomy["low"])
    assert ("perhaps", 0) == (tables.row(model, between, use)["fits"], tables.row(model, between, use)["largest"])
    assert tables.row(model, below, use)["fits"] == "no"


def test_an_uncertain_card_asks_to_be_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """The plan for a laptop's card shows ± its peak and what to type where it is; its desktop sister's does not."""
    config = str(Path(__file__).parents[2] / "configs" / "one_book.yaml")
    for gpu, asks in (("4090 laptop", True), ("4090", False)):
        with pytest.raises(SystemExit) as end:
            main(["plan", config, "--tokens", "130520", "--gpu", gpu])
        assert not end.value.code
        said = " ".join(capsys.readouterr().out.split())
        assert asks == ("in bf16 ±17%; ganeum gpus --measure says what yours does" in said)


def test_hours_follow_from_tokens() -> None:
    """With a length of training in tokens, hours are tokens ÷ tokens per second."""
    found = tables.row(find("gpt2"), card("RTX 4090"), read([*SHORT, "tokens=1e9"]))
    assert 1e9 / found["tokens_per_second"] / 3600 == pytest.approx(found["hours"])


def test_every_form_holds_the_same_rows() -> None:
    """Text, Markdown, JSON and CSV of one table: each row once, in the order models, GPUs, ways."""
    models, gpus = [find("gpt2"), find("t5-small")], [card("RTX 3080 10GB"), card("RTX 4090")]
    ways = {"train": read(["precision=fp16"]), "ask": read(["purpose=inference"])}
    table = tables.grid(models, gpus, ways)
    order = [(row["model"], row["gpu"], row["way"]) for row in table.rows]
    assert order == [(m.name, g.name, w) for m in models for g in gpus for w in ways]
    assert order == [(row["model"], row["gpu"], row["way"]) for row in json.loads(table.json())]
    assert order == [(row["model"], row["gpu"], row["way"]) for row in csv.DictReader(io.StringIO(table.csv()))]
    assert len(order) + 2 == len(table.markdown().splitlines())


def test_there_is_nothing_to_offload_from_without_a_gpu() -> None:
    """On a Mac the ways that people try are those without ZeRO; one that is asked for is refused."""
    mac = card("Apple M2 Max 64GB")
    found = tables.grid([find("gpt2")], [mac, card("RTX 4090")], tables.levers())
    offloading = [way for way in tables.LEVERS if "ZeRO" in way]
    assert [row["way"] for row in found.rows] == [
        *(way for way in tables.LEVERS if way not in offloading),
        *tables.LEVERS,
    ]
    with pytest.raises(ConfigError, match="offload is optimizer, and Apple M2 Max is no GPU"):
        tables.grid([find("gpt2")], [mac], {"": read(["zero_stage=2", "offload=optimizer"])})


def test_what_cannot_be_is_refused() -> None:
    """A length that a model has no positions for is an error, not a row."""
    with pytest.raises(ConfigError, match="gpt2 knows positions for 1,024 tokens, and length is 4,096"):
        tables.grid([find("gpt2")], [card("RTX 4090")], {"": read(["length=4096"])})


def test_the_documents_questions_are_asked() -> None:
    """Six models in five ways; two models on five cards for training (two optimizers), evaluation and inference."""
    six, two = what_fits.six(), what_fits.two()
    assert (6 * 5, 2 * 5 * 4) == (len(six.rows), len(two.rows))
    asked = {(row["model"], row["gpu"], row["way"]): row["batch"] for row in two.rows}
    assert asked["t5-base", "Tesla V100 SXM2 16GB", "inference, 4 beams"] == 8
    assert asked["mt5-large", "A100 SXM4 40GB", "training, AdamW"] == 4
    assert asked["mt5-large", "GeForce RTX 4090", "evaluation, AdamW"] == 1


@pytest.mark.parametrize(("name", "rows"), [("six", 30), ("two", 40)])
def test_the_documents_tables_in_every_form(
    name: str, rows: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each table with its author's figures as Markdown, JSON, CSV and text of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    printed = {}
    for form in ("markdown", "json", "csv", "text"):
        what_fits.main([name, form])
        printed[form] = capsys.readouterr().out
    assert (rows, rows) == (len(json.loads(printed["json"])), len(list(csv.DictReader(io.StringIO(printed["csv"])))))
    assert printed["markdown"].strip() in what_fits.PAGE.read_text(encoding="utf-8")
    assert "| it says, GB |" in printed["markdown"]
    assert max(map(len, printed["text"].splitlines())) <= 80
    words = printed["text"].split()
    assert (words.count("checkpointing"), words.count("limited"), words.count("Adafactor")) == (
        (6, 1, 0) if name == "six" else (0, 0, 10)  # none is folded
    )
    with pytest.raises(SystemExit, match=r"what_fits \[six\|two text\|markdown\|json\|csv\]"):
        what_fits.main([name])


def test_the_page_is_current(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """docs/what_fits.md is what `python -m ganeum.plan.page.what_fits` writes."""
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path))  # without what was measured here
    assert what_fits.PAGE.read_text(encoding="utf-8") == what_fits.page()


def test_rows_are_in_gib() -> None:
    """GiB of a row are the bytes of the planner over 2³⁰."""
    model, device, use = find("t5-small"), card("RTX 4090"), read(["purpose=inference", "micro_batch_size=2"])
    one = replace(named.settled(model, use, device), micro_batch_size=2)
    found = tables.row(model, device, use)
    assert (2, memory.of(model, one).total / units.GIB) == (found["batch"], found["gib"])
