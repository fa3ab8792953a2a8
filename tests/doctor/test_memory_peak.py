"""`ganeum doctor memory`: the peak with its levers, what a run and torch itself recorded, the whole command."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from ganeum import cli
from ganeum.config import load
from ganeum.config.change import change
from ganeum.doctor import memory
from ganeum.doctor.memory import levers, peak, recorded, snapshot
from ganeum.errors import ConfigError, DataError
from ganeum.hardware.card import card
from ganeum.plan.question.subject import Run
from ganeum.plan.trace.child import OutOfTime
from ganeum.record import RunDirectory
from ganeum.units import GIB

MIB = 2**20
CARD = "RTX 3060 12GB"


def test_every_gib_of_the_peak_is_there_and_levers_do_what_they_say() -> None:
    """Parts sum up to what is needed; a lever's effect is the difference of two plans; each names what it acts on."""
    config = load("configs/one_book.yaml", [])
    device = card(CARD)
    report = memory.of_config(config, device, 130_520, trace=False)
    told = report.facts["peak"]
    plan = Run.of(config, 130_520).plan(device)["memory_gib"]
    beside = plan["peak_reserved"] - plan["tensors"] if "fragmentation" in plan else 0.0
    assert sum(told["parts_gib"].values()) == pytest.approx(plan["tensors"] + plan["context"] + beside)
    levers = {json.dumps(one["settings"]): one for one in told["levers"]}
    chunk = levers['{"train.loss_chunk": 128}']
    assert "logits" == chunk["part"]
    then = Run.of(change(config, {"train.loss_chunk": 128, "train.micro_batch_size": 128}), 130_520).plan(device)
    assert chunk["saves_gib"] == pytest.approx(plan["tensors"] - then["memory_gib"]["tensors"], rel=0.02)
    assert "optimizer" == levers['{"train.optimizer": "adamw8bit"}']["part"]
    logits = next(one for one in report.findings if one.cause == "logits")
    assert "train.loss_chunk=128 saves" in logits.change
    assert () == report.alarms  # it fits


def test_what_does_not_fit_is_an_error_with_levers_that_are_enough() -> None:
    """On 6 GB a longer context needs more than there is; whatever is suggested is below it."""
    config = load(
        "configs/one_book.yaml",
        ["train.micro_batch_size=128", "model.block_size=128", "train.activation_checkpointing=none"],
    )
    device = card("RTX 2060 6GB")
    found_here = peak.of_config(config, device, 130_520, trace=False)
    (first, *_) = found_here.findings()
    assert ("does_not_fit", "error") == (first.cause, first.severity)
    enough = [lever for lever in found_here.levers if found_here.beside_the_context - lever.saves <= device.usable_gib]
    assert [{"train.activation_checkpointing": "whole"}] == [lever.settings for lever in enough]
    assert enough[0].sentence() == first.change


def test_levers_are_traced_as_far_as_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first by traces, sized anew, under the part that fell; the rest keep the closed form's, and say "about"."""
    config = load("configs/one_book.yaml", ["train.micro_batch_size=128", "train.activation_checkpointing=none"])
    config = change(config, {"model.vocab_size": 50257, "train.precision": "bf16"})
    ways = levers.by_closed_form(config, card(CARD))
    assert {False} == {lever.traced for lever in ways}
    asked: list[Mapping[str, Any]] = []

    def of(_: object, changed: Any, *__: object, between: bool) -> Any:
        if len(asked) == 4:
            raise OutOfTime("over")
        asked.append({"loss_chunk": changed.train.loss_chunk, "between": between})
        steps = (0, 1) if len(asked) == 3 else (0, 1, 2, 3)
        size = (4 * GIB, 3 * GIB, GIB, 4 * GIB)[len(asked) - 1]
        kinds: tuple[dict[str, int], ...] = (
            {"logits": 2 * GIB, "other": 2 * GIB},
            {"logits": GIB, "other": 2 * GIB},
            {},
            {"logits": 4 * GIB},
        )
        replayed = SimpleNamespace(peak_reserved=size, peak_allocated=1, by_kind=kinds[len(asked) - 1])
        return SimpleNamespace(replayed=replayed, fits=True, trace=SimpleNamespace(steps=steps))

    monkeypatch.setattr("ganeum.plan.trace.exact.of", of)
    found = levers.traced(None, config, card(CARD), ways)  # type: ignore[arg-type]
    first = next(lever for lever in found if lever.traced)
    assert (ways[0].settings, "logits", 1.0) == (first.settings, first.part, first.saves)
    assert [first] == [lever for lever in found if lever.traced]  # the second: steps alone, which are another thing
    assert len(found) == len(ways) - 1  # what was third saves nothing by its trace
    assert " saves 1.00 GiB" in first.sentence()
    assert all(" saves about " in lever.sentence() for lever in found if not lever.traced)
    assert all(one["between"] for one in asked)


@pytest.mark.slow
def test_a_traced_lever_saves_what_the_traced_plans_differ_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest of the logits' and of the activations', as the trace of the changed config has it, within 5 %."""
    keys = ["model.n_layer=2", "model.n_embd=64", "model.n_head=2", "model.block_size=256"]
    config = load("configs/one_book.yaml", [*keys, "train.micro_batch_size=128", "train.compile=false"])
    monkeypatch.setattr(peak, "LIMIT_S", 1800.0)  # on a busy machine, too
    told = peak.of_config(config, card(CARD), 130_520)
    monkeypatch.setattr(levers, "traced", lambda child, config, device, ways: ways)
    for part in ("logits", "activations"):
        lever = next(lever for lever in told.levers if lever.part == part)
        assert lever.traced
        then = peak.of_config(change(config, lever.settings), card(CARD), 130_520).needed
        assert lever.saves == pytest.approx(told.needed - then, rel=0.05)


def recorded_run(root: Path, held: Callable[[int], float], **plan: Any) -> RunDirectory:
    """Only what `recorded` reads."""
    (root / "logs").mkdir(parents=True)
    rows = [
        {"step": n, "memory_allocated_gib": held(n) / GIB, "memory_reserved_gib": 1.5 * held(n) / GIB}
        for n in range(1, 201)
    ]
    (root / "logs" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "plan.json").write_text(json.dumps(plan))
    return RunDirectory(root)


def test_a_run_is_shown_with_what_it_recorded(tmp_path: Path) -> None:
    """Growth over its steps, pieces beside tensors, and a peak above what was planned."""
    config = load("configs/one_book.yaml", [f"data.directory={tmp_path}"])
    planned = {"memory_gib": {"peak_allocated": 1.0, "low": 0.9, "high": 1.1}, "device": {"kind": "cuda"}}
    findings, facts = recorded.of_run(recorded_run(tmp_path / "run", lambda n: GIB + 8 * MIB * n, **planned), config)
    causes = {one.cause: one for one in findings}
    assert {"memory_growth", "fragmentation", "unplanned_memory"} == set(causes)
    assert causes["memory_growth"].size == pytest.approx(8, rel=0.01)
    assert "warning" == causes["unplanned_memory"].severity
    assert facts["fragmentation"] == pytest.approx(1 / 3)
    level, _ = recorded.of_run(recorded_run(tmp_path / "level", lambda n: GIB, **planned), config)
    assert {"fragmentation", "unplanned_memory"} == {one.cause for one in level}
    assert all(one.severity == "note" for one in level if one.cause == "unplanned_memory")


def test_growth_that_may_be_pages_of_its_data_is_no_alarm(tmp_path: Path) -> None:
    """On a CPU 1 MiB a step beside 300 MiB of data are its pages; 8 MiB a step are more, and on a GPU nothing is."""
    (tmp_path / "train.bin").touch()
    os.truncate(tmp_path / "train.bin", 300 * MIB)  # with nothing in it
    config = load("configs/one_book.yaml", [f"data.directory={tmp_path}"])
    for kind, each, alarms in (("cpu", 1, False), ("cpu", 8, True), ("cuda", 1, True)):
        held = partial(lambda each, n: GIB + each * MIB * n, each)
        run = recorded_run(tmp_path / f"{kind}{each}", held, device={"kind": kind})
        told = {one.cause for one in recorded.of_run(run, config)[0]}
        assert alarms == ("memory_growth" in told)


def test_examples_as_tokens_are_pages_too_and_a_dozen_steps_show_nothing(tmp_path: Path) -> None:
    """An adopted model's 100 million tokens are 400 MB at the most; 12 steps of 8 MiB are a process that starts."""
    config = load("configs/one_book.yaml", [])
    config = config.model_copy(update={"data": config.data.model_copy(update={"train": "pairs.jsonl"})})
    for each, tokens, alarms in ((4, 10**8, False), (4, 10**7, True), (8, 10**8, True)):
        held = partial(lambda each, n: GIB + each * MIB * n, each)
        plan = {"device": {"kind": "cpu"}, "data": {"tokens": tokens, "examples": 1000, "val_examples": 10}}
        run = recorded_run(tmp_path / f"{each}{tokens}", held, **plan)
        assert alarms == ("memory_growth" in {one.cause for one in recorded.of_run(run, config)[0]})
        lines = run.metrics_path.read_text().splitlines(keepends=True)
        run.metrics_path.write_text("".join(lines[:12]))
        assert "memory_growth" not in {one.cause for one in recorded.of_run(run, config)[0]}


def test_a_run_whose_model_is_not_here_has_its_peak_and_no_levers(tmp_path: Path) -> None:
    """From its plan alone, and it is said; of a plan of an older version nothing is taken."""
    config = load("configs/one_book.yaml", [])
    device = card(CARD)
    plan = Run.of(config, 130_520).plan(device)
    run = recorded_run(tmp_path / "run", lambda n: GIB, **plan)
    settled = change(config, {"train.micro_batch_size": 128, "model.vocab_size": 50257})
    found, why = recorded.peak_of(run, settled, device)
    assert found is not None
    assert ("", True) == (why, len(found.levers) > 3)
    gone = settled.model_copy(update={"model": settled.model.model_copy(update={"source": "gone/config.json"})})
    alone, why = recorded.peak_of(run, gone, device)
    assert alone is not None
    assert (found.parts, ()) == (alone.parts, alone.levers)
    assert "gone/config.json" in why
    del plan["memory_gib"]["by_component"]
    older = recorded_run(tmp_path / "older", lambda n: GIB, **plan)
    assert (None, "") == recorded.peak_of(older, settled, device)


def frames(line: int) -> list[dict[str, Any]]:
    return [
        {"filename": "/x/torch/nn/functional.py", "line": 1, "name": "linear"},
        {"filename": "/home/me/train.py", "line": line, "name": "forward"},
    ]


def a_snapshot() -> dict[str, Any]:
    """In the form that torch's docstring gives: now 3 MiB of weights; at the peak 8 MiB more, let go since."""
    weights = {
        "size": 3 * MIB,
        "requested_size": 3 * MIB,
        "address": 0,
        "state": "active_allocated",
        "frames": frames(3),
    }
    hole = {"size": 17 * MIB, "requested_size": 0, "address": 3 * MIB, "state": "inactive", "frames": []}
    idle = {"size": 20 * MIB, "requested_size": 0, "address": 100 * MIB, "state": "inactive", "frames": []}
    events = [
        {"action": "segment_alloc", "addr": 0, "size": 20 * MIB, "frames": []},
        {"action": "alloc", "addr": 0, "size": 3 * MIB, "frames": frames(3)},
        {"action": "alloc", "addr": 4 * MIB, "size": 8 * MIB, "frames": frames(9)},
        {"action": "free_requested", "addr": 4 * MIB, "size": 8 * MIB, "frames": frames(9)},
        {"action": "free_completed", "addr": 4 * MIB, "size": 8 * MIB, "frames": frames(9)},
        {"action": "alloc", "addr": 4 * MIB, "size": 2 * MIB, "frames": frames(12)},
        {"action": "free_completed", "addr": 4 * MIB, "size": 2 * MIB, "frames": frames(12)},
    ]
    segment = {"device": 0, "stream": 0, "segment_type": "large", "address": 0}
    return {
        "segments": [
            {**segment, "total_size": 20 * MIB, "blocks": [weights, hole]},
            {**segment, "address": 100 * MIB, "total_size": 20 * MIB, "blocks": [idle]},
        ],
        "device_traces": [events],
    }


def test_torchs_own_snapshot_is_read_backwards_to_its_peak(tmp_path: Path) -> None:
    """The peak is 11 MiB, of two lines of the user's own; 17 MiB lie in a piece, a whole segment idles."""
    seen = snapshot.read(a_snapshot())
    assert (3 * MIB, 40 * MIB, 20 * MIB, 17 * MIB) == (seen.allocated, seen.reserved, seen.idle, seen.torn)
    assert 11 * MIB == seen.peak_requested
    assert {"train.py:9 forward": 8 * MIB, "train.py:3 forward": 3 * MIB} == seen.at_peak
    assert snapshot.read({"segments": [], "device_traces": []}).peak_requested == 0
    file = tmp_path / "memory.pickle"
    file.write_bytes(pickle.dumps(a_snapshot()))
    report = memory.of_snapshot(file)
    assert "fragmentation" in {one.cause for one in report.alarms}


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    """Whatever names a function is refused before it is called; what is no snapshot is, too."""
    file = tmp_path / "memory.pickle"
    others: tuple[Any, ...] = ([1], {"segments": 3}, {"segments": [{}]}, {"segments": [], "device_traces": [[3]]})
    dangerous = (pickle.dumps(print), pickle.dumps({"segments": [Path("x")]}))
    for content in (*dangerous, b"", b"nothing", *map(pickle.dumps, others)):
        file.write_bytes(content)
        with pytest.raises(DataError, match="no memory snapshot"):
            memory.of_snapshot(file)


SCRIPT = """
import torch
from torch import nn
from ganeum.doctor.measured.training import Training

def build():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head, self.spare = nn.Embedding(300, 16), nn.Linear(16, 300), nn.Linear(16, 16)
        def forward(self, ids):
            return self.head(self.embedding(ids))
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters())
    def step(batch):
        loss = nn.functional.cross_entropy(model(batch).flatten(0, 1), batch.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss
    return Training(model, [torch.randint(0, 300, (4, 8))] * 2, step, optimizer)
"""


def test_somebody_elses_training_is_traced_and_watched(tmp_path: Path) -> None:
    """By the command, in processes of their own: the peak by part, its dead layer, and nothing that grows."""
    file = tmp_path / "mine.py"
    file.write_text(SCRIPT)
    done = CliRunner().invoke(cli.build(), ["doctor", "memory", f"{file}:build", "--steps", "20", "--json"])
    told = json.loads(done.stdout)
    weights = 4 * (300 * 16 + 16 * 300 + 300 + 16 * 16 + 16)
    assert told["facts"]["peak"]["parts_gib"]["weights"] == pytest.approx(weights / GIB, rel=0.001)
    assert ["dead_parameters"] == [one["cause"] for one in told["findings"] if one["severity"] != "note"]
    assert 32 == told["facts"]["watched"]["steps"]
    assert any(line.startswith("graphs kept") for line in told["ruled_out"])


def test_the_command_says_what_it_cannot_take(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two subjects, keys on a run that was trained, and a file that is not there."""
    runner = CliRunner()
    for arguments, error in (
        (["a.yaml", "b.yaml"], ConfigError),
        (["memory.pickle", "train.batch_size=3"], ConfigError),
        (["mine.py:build", "train.batch_size=3"], ConfigError),
        ([str(tmp_path / "none.pickle")], DataError),
        ([str(tmp_path / "none.py") + ":build"], ConfigError),
    ):
        done = runner.invoke(cli.build(), ["doctor", "memory", *arguments])
        assert isinstance(done.exception, error), done.output
