"""The exact memory of a run: in its plan, on its page, beside a probe, and what a machine teaches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ganeum import units
from ganeum.cli import main
from ganeum.config import Config
from ganeum.config.schema import Model, Train
from ganeum.hardware import peaks
from ganeum.hardware.card import card
from ganeum.hardware.machine import look
from ganeum.plan.closed_form import plan
from ganeum.plan.execution import Execution
from ganeum.plan.page import memory_picture
from ganeum.plan.page.render import Page
from ganeum.plan.trace import exact, learnt
from ganeum.plan.trace.allocator import CachingAllocator
from ganeum.plan.trace.allocator_settings import Settings
from ganeum.plan.trace.child import Answer, Child, NotTraced, OutOfTime
from ganeum.plan.trace.events import Allocation, Trace
from ganeum.plan.trace.replay import peaks as reach
from ganeum.plan.trace.replay import sizes
from ganeum.plan.trace.room import SPARE

CARD = card("Small Card: 3GB, bf16 30 TFLOPS, bandwidth 300 GB/s")
RUN = Config(
    name="small",
    model=Model(n_layer=3, n_head=4, n_embd=256, block_size=256, vocab_size=4096),
    train=Train(batch_size=960, precision="bf16", max_iters=10, compile=False),
)


class Shared(Child):
    """One process for all tests of this file, and what it has traced; it ends with them."""

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def tracing() -> Iterator[Child]:
    shared = Shared(limit_s=3600)
    yield shared
    shared.close()


@pytest.fixture(autouse=True)
def shared(tracing: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "Child", lambda **_: tracing)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that has learnt nothing yet."""
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path))
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    return tmp_path


@pytest.mark.slow
def test_a_plan_becomes_exact(tracing: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """The traced peak stands beside the closed form's, within its bounds, with its parts, its line and its picture; the
    micro-batch is the largest share of the batch that goes through, and one twentieth more does not."""
    monkeypatch.setattr(exact.levers, "keeping", lambda *_: [])
    closed = plan(RUN, device=CARD)
    found = exact.refined(closed, RUN, CARD, explain=True)
    memory, before = found["memory_gib"], closed["memory_gib"]
    assert ("traced", "traced") == (found["method"], memory["source"])
    assert before["tensors"] == memory["closed_form"]["tensors"]
    assert sum(memory["by_component"].values()) == pytest.approx(memory["peak_allocated"])
    assert memory["low"] <= memory["peak_allocated"] <= memory["peak_reserved"] <= memory["high"]
    assert memory["source_line"].startswith("ganeum/step/loss.py:")
    assert max(memory["curve"]["allocated_gib"]) == pytest.approx(memory["peak_allocated"], abs=1e-4)
    batch = found["batch"]
    assert 960 == batch["micro_batch_size"] * batch["gradient_accumulation_steps"]
    assert batch["micro_batch_size"] <= batch["largest_micro_batch"]
    assert json.loads(json.dumps(found)) == found
    most, length = batch["largest_micro_batch"], batch["largest_length"]
    assert length >= RUN.model.block_size
    with tracing as child:
        way = exact.execution.of(exact.change(RUN, {"train.activation_checkpointing": "none"}), CARD, 1)
        way = replace(way, micro_batch_size=batch["micro_batch_size"], accumulation=2)
        room = exact.Room.of(CARD, child.run(RUN, CARD, way))
        for tokens, fits in ((length, True), (length + 64, False)):
            assert fits == room.holds(sizes(child.run(RUN, CARD, replace(way, length=tokens)).trace))
        for size, fits in ((most, True), (round(most * 1.05) + 1, False)):
            settled = exact.change(RUN, {"train.activation_checkpointing": "none", "train.micro_batch_size": size})
            way = replace(exact.execution.of(settled, CARD, size), accumulation=1)
            events = sizes(child.run(settled, CARD, way).trace)
            free = round(CARD.usable_gib * units.GIB * (1 - SPARE))
            allocator = CachingAllocator(Settings(expandable_segments=True), capacity=free, memory=3 * units.GIB)
            assert fits == reach(events, allocator)


@pytest.mark.slow
def test_the_page_shows_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is, the curve, what is there by layer, the closed form beside it; with --explain what levers save."""
    small = exact.change(RUN, {"train.batch_size": 64, "train.micro_batch_size": 64})
    monkeypatch.setattr(
        exact.levers, "keeping", lambda *_: [("train.activation_checkpointing", "whole", "the same result")]
    )
    found = exact.refined(plan(small, device=CARD), small, CARD, explain=True)
    shown = Page(found).markdown()
    for said in (
        "fullest in aten::",
        "by the closed form",
        "|forward",
        "|backward",
        "blocks.*.mlp",
        "reserved at most",
    ):
        assert said in shown.replace("\\|", "|")
    (whole, fewer) = sorted(found["memory_gib"]["levers"], key=lambda lever: lever["key"])
    assert ("train.activation_checkpointing", "train.micro_batch_size") == (whole["key"], fewer["key"])
    assert whole["saves"] == pytest.approx(found["memory_gib"]["peak_reserved"] - whole["gib"])
    assert whole["saves"] > 0.1
    assert "train.activation_checkpointing=whole: the same result" in shown


def test_without_a_trace_the_closed_form_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan stays as it is, and says why."""

    def ends(*_: object, **__: object) -> None:
        raise NotTraced("the tracing process was ended by SIGABRT")

    monkeypatch.setattr(Child, "run", ends)
    closed = plan(RUN, device=CARD)
    for found in (exact.refined(closed, RUN, CARD), exact.started(closed, _settled(closed), CARD)):
        assert ("closed_form", closed["batch"]) == (found["method"], found["batch"])
        assert closed["memory_gib"] | {"not_traced": "the tracing process was ended by SIGABRT"} == found["memory_gib"]
        assert "not traced: the tracing process was ended by SIGABRT; this is the closed form" in Page(found).markdown()
    settled = _settled(closed)
    told = settled.train.micro_batch_size, "the closed form's, not traced: the tracing process was ended by SIGABRT"
    assert told == exact.micro_batch(settled, CARD)


def test_a_plan_has_what_was_traced_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time is over, what was traced until then stands, and the page says what was not."""
    asked: list[int] = []

    def run(_: Child, config: Config, device: object, way: Execution, **__: object) -> Answer:
        if asked:
            raise OutOfTime("it took longer than 120 s")
        asked.append(way.micro_batch_size)
        return Answer(Trace((Allocation(1, 4096, "aten::mm"),)))

    monkeypatch.setattr(Child, "run", run)
    found = exact.refined(plan(RUN, device=CARD), RUN, CARD, explain=True)
    assert "traced" == found["method"]
    assert (asked[0], "out of time") == (found["batch"]["largest_micro_batch"], found["batch"]["one_more"])
    shown = " ".join(Page(found).markdown().split())
    for what in ("all ways to run it were traced", "the longest rows were not looked for", "all levers were traced"):
        assert what in shown
    assert shown.count(": it took longer than 120 s") == 3


def test_compiled_code_that_cannot_be_traced_is_traced_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a note; what fails uncompiled fails."""
    plain = Trace((Allocation(1, 4096, "aten::mm"),))

    def run(_: Child, config: Config, device: object, way: Execution, **__: object) -> Answer:
        if way.compiled or way.precision == "fp16":
            raise NotTraced("no driver")
        return Answer(plain)

    monkeypatch.setattr(Child, "run", run)
    found = exact.of(Child(), RUN, CARD, Execution(compiled=True))
    assert ("compiled code could not be traced (no driver): it takes a little less than this",) == found.trace.uncertain
    assert exact.of(Child(), RUN, CARD, Execution()).trace.uncertain == ()
    with pytest.raises(NotTraced, match="no driver"):
        exact.of(Child(), RUN, CARD, Execution(precision="fp16"))


def test_a_run_is_traced_with_its_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where those cannot be traced, its steps alone are, with a note."""
    asked: list[bool] = []

    def run(*_: object, between: bool = False, **__: object) -> Answer:
        asked.append(between)
        if between:
            raise NotTraced("no numbers")
        return Answer(Trace((Allocation(1, 4096, "aten::mm"),)))

    monkeypatch.setattr(Child, "run", run)
    closed = plan(RUN, device=CARD)
    found = exact.started(closed, _settled(closed), CARD)
    assert asked == [True, False]
    told = "evaluations and samples could not be traced (no numbers): these are the steps alone"
    assert found["memory_gib"]["uncertain"] == [told]


def _settled(closed: exact.Plan) -> Config:
    return exact.change(RUN, {one["key"]: one["value"] for one in closed["choices"]})


def test_a_run_learns_from_what_it_measured() -> None:
    """A run's plan is traced once; what three different configs measured corrects the next plan, not their own."""
    small = exact.change(RUN, {"train.batch_size": 8, "train.micro_batch_size": 8})
    closed = plan(small, device=CARD)
    settled = exact.change(small, {one["key"]: one["value"] for one in closed["choices"]})
    first = exact.started(closed, settled, CARD)
    memory = first["memory_gib"]
    assert "correction" not in memory
    for number in range(3):
        exact.ended(
            first | {"config_sha256": f"config {number}"}, memory["peak_allocated"], memory["peak_reserved"] * 1.02
        )
    second = exact.started(closed, settled, CARD)["memory_gib"]
    assert memory["peak_reserved"] * 1.02 == pytest.approx(second["peak_reserved"], rel=1e-6)
    assert (3, pytest.approx(1.02)) == (second["correction"]["configs"], second["correction"]["factor"])
    exact.ended(first | {"memory_gib": second}, second["peak_allocated"], second["peak_reserved"])
    kept = learnt.comparisons(CARD.name)[-1]
    assert kept.reserved == pytest.approx(memory["peak_reserved"] * units.GIB, rel=1e-6)


def test_what_is_learnt_is_bounded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest of each config counts, the median of all; too few or absurd ones correct nothing; other cards and
    damaged files are no matter."""
    for config, ratio in (("a", 3.0), ("a", 1.01), ("b", 1.03), ("c", 1.02)):
        learnt.remember("Card", "run", config, (100, 10_000), (100, round(10_000 * ratio)))
    found = learnt.correction("Card")
    assert (pytest.approx(1.02), 3, pytest.approx(0.01)) == (found.factor, found.configs, found.spread)
    assert learnt.correction("Other").factor == 1
    for config in "abc":
        learnt.remember("Other", "probe", config, (100, 10_000), (100, 20_000))
    assert learnt.correction("Other").factor == 1
    monkeypatch.setattr(peaks, "torch_version", lambda: "9.9")
    assert learnt.correction("Card").configs == 0
    learnt.file().write_text("{")
    assert learnt.comparisons("Card") == []
    assert cache in learnt.file().parents


def test_a_probe_stands_beside_the_trace() -> None:
    """On this CPU: two real steps within 0.1 % of the trace."""
    from ganeum.train.probe import probe

    here = look("cpu")
    small = exact.change(RUN, {"train.batch_size": 4, "train.micro_batch_size": 2, "train.precision": "fp32"})
    found = exact.refined(plan(small, device=here), small, here, probe=probe)
    told = found["memory_gib"]["probe"]
    assert told["traced_by_measured"] == pytest.approx(0, abs=1e-3)
    (kept,) = learnt.comparisons(here.name)
    assert ("probe", 0) == (kept.what, kept.reserved)
    assert "allocated in two real steps here: the trace is off by" in Page(found).markdown()


def test_anybodys_step_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`ganeum plan --script FILE:FUNCTION`: the peak of a step that is nobody's but the user's, as JSON."""
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n"
        "def training():\n"
        "    def build():\n"
        "        model = torch.nn.Linear(1024, 1024, device='cuda')\n"
        "        return model, torch.optim.SGD(model.parameters())\n"
        "    def step(built):\n"
        "        built[0](torch.zeros(4096, 1024, device='cuda')).sum().backward()\n"
        "        built[1].step()\n"
        "        built[1].zero_grad()\n"
        "    return build, step\n"
    )
    with pytest.raises(SystemExit) as end:
        main(["plan", "--script", f"{file}:training", "--gpu", "RTX 4090", "--json"])
    assert not end.value.code
    memory = json.loads(capsys.readouterr().out)["memory_gib"]
    # Weights, input, output and the gradients of both at once, in fp32, with cuBLAS's workspace.
    least = (2 * 4 * 1024**2 + 2 * 4 * 4096 * 1024) / units.GIB
    assert least <= memory["peak_allocated"] <= least + 0.06
    assert memory["source_line"].startswith("mine.py:")


@pytest.mark.slow
def test_the_fastest_that_fits_is_chosen_by_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one level of checkpointing lets the whole batch go through at once and the plain way's many parts are slow,
    it is taken, with its reason; where the whole batch fits plainly, no other is traced."""
    closed = plan(RUN, device=CARD)
    monkeypatch.setattr(
        exact.timed, "step_s", lambda plan, device, way, operations: 1.0 if way.checkpointing == "whole" else 2.0
    )
    found = exact.refined(closed, RUN, CARD)
    (level,) = [one for one in found["choices"] if one["key"] == "train.activation_checkpointing"]
    assert "whole" == level["value"]
    assert level["reason"].startswith("100% faster than none with ")
    batch = found["batch"]
    assert batch["micro_batch_size"] > closed["batch"]["micro_batch_size"]
    assert 960 == batch["micro_batch_size"] * batch["gradient_accumulation_steps"]
    first = closed["batch"]["micro_batch_size"]  # the closed form's figures are those of its own way, and say so
    assert first == found["memory_gib"]["closed_form"]["micro_batch_size"]
    rows = str(memory_picture.rows(found["memory_gib"]))
    assert f"by the closed form with {first:,} at once, checkpointing none" in rows
    small = exact.change(RUN, {"train.batch_size": 8})
    (level,) = [
        one
        for one in exact.refined(plan(small, device=CARD), small, CARD)["choices"]
        if one["key"] == "train.activation_checkpointing"
    ]
    assert "none" == level["value"]
