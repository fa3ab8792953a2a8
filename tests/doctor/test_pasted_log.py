"""A pasted log beside its plan: how slow, what explains it, what cannot; in every form that people paste."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from mutilated import mutilated

from ganeum.config import load
from ganeum.doctor import log
from ganeum.doctor.finding import Report
from ganeum.hardware.card import card
from ganeum.hardware.machine import cpu

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PASTED = (HERE / "logs" / "one_book.txt").read_text(encoding="utf-8")
CAPTURE, BOOK = PASTED[: PASTED.index("# of tokens")], PASTED[PASTED.index("# of tokens") :]


def of_the_book(text: str = BOOK, gpu: str | None = "RTX 5080 Laptop") -> Report:
    return log.report(text, load(ROOT / "configs" / "one_book.yaml"), device=card(gpu) if gpu else None)


def test_epochs_and_marks_of_a_person_s_script() -> None:
    """20 epochs, 5 marks; 254 steps an epoch follow from the two clocks; 4,096 tokens a step from the marks."""
    found = log.read(BOOK)
    assert (20, 5) == (len(found.spans["epochs"]), len(found.spans["marks"]))
    assert (254, 130_520, 34_414.43, 2.9, "cuda") == (
        found.steps_per_epoch, found.text_tokens, found.total_s, found.first_step_s, found.device,
    )  # fmt: skip
    assert 4_096 == found.spans["marks"][0].tokens / found.spans["marks"][0].steps  # type: ignore[operator]


def test_steps_per_epoch_follow_from_the_last_marks() -> None:
    """The first epochs of a log say them least exactly: here their marks are a second late."""
    lines = []
    for epoch in range(1, 11):
        lines += [f"[Step {200 * epoch - 100}] Total elapsed: {20 * epoch - 10 + (epoch < 4) * 4:.2f} sec"]
        lines += [f"Epoch {epoch} completed.", "Epoch Time: 20.00 sec", f"Total Time Elapsed: {20 * epoch:.2f} sec"]
    assert 200 == log.read("\n".join(lines)).steps_per_epoch


def test_the_book_s_step_takes_twenty_times_what_its_work_needs() -> None:
    """6.7 s a step (5,000 steps in 33,857 s by its own marks), where the plan has 0.28 s at the most, even in fp32."""
    report = of_the_book()
    assert report.facts["step_s"] == pytest.approx(33_857 / 5_000, rel=0.01)
    assert report.facts["tokens_per_second"] == pytest.approx(605, rel=0.01)
    slow = report.findings[0]
    assert ("unexplained_time", "warning", "computed") == (slow.cause, slow.severity, slow.sure)
    assert slow.size is not None
    assert 15 < slow.size < 50


def test_one_epoch_stands_out_and_small_drifts_do_not() -> None:
    """Epoch 17 took 1,868.6 s where the seven around it took 1,710.3 in the middle; epochs 1 to 4 and 20 are usual."""
    (pause,) = (finding for finding in of_the_book().findings if finding.cause == "pauses")
    assert ("epoch 17 took 1,868.6 s where its neighbours took 1,710.3 s",) == pause.evidence
    assert "note" == pause.severity


def test_what_physics_rules_out_is_said() -> None:
    """33 KB of token ids, capped power, number formats: none can explain seconds."""
    ruled_out = "\n".join(of_the_book(CAPTURE + BOOK).ruled_out)
    for said in (
        "copying the batch to the GPU (pin_memory, non_blocking): inputs and labels are 33 KB of token ids each",
        "SW power cap: 3.7 s counted since the driver was loaded; even if all of it fell into the run, that is 0.01%",
        "number format, TF32, compiling, fused attention and a fused optimizer, all of them together",
        "tokenising in the loop: 4,096 tokens",
    ):
        assert said in ruled_out


def test_an_unknown_gpu_gives_a_range() -> None:
    """Even the slowest card that it fits on needs less than a quarter of what was measured."""
    report = of_the_book(gpu=None)
    bounds = report.facts["expected_s"]
    assert bounds["cards"] > 50
    assert bounds["low"] < 0.05 < bounds["high"] < 6.7 / 4
    assert "any of" in report.headline


def test_memory_that_spilled_is_suspected_only_where_it_can_spill() -> None:
    """With a capture of Windows beside it, and a first step faster than the rest; never without."""
    assert "spill" in [finding.cause for finding in of_the_book(CAPTURE + BOOK).findings]
    assert "spill" not in [finding.cause for finding in of_the_book().findings]


def test_a_run_as_fast_as_its_work_has_nothing_to_explain() -> None:
    """100 ms a step on that card lie within the plan: nothing unexplained, nothing ruled out."""
    quick = "\n".join(
        f"iter {at}: loss {10.9 - at / 20:.4f}, time {100 + at % 3}.00ms, mfu 30.00%" for at in range(100)
    )
    report = of_the_book(quick)
    assert "its work explains it" in report.headline
    assert ["overlapping_windows"] == [finding.cause for finding in report.findings]
    assert () == report.ruled_out


FORMS = {
    "nanogpt": ("iterations", 0.0235, "\n".join(f"iter {n}: loss 2.5000, time 23.50ms, mfu 12.00%" for n in range(40))),
    "llm.c": (
        "iterations", 0.13911,
        "\n".join(f"step {n}/19560 | train loss 10.9 | norm 15.4 | 139.11 ms | 60% MFU" for n in range(1, 9)),
    ),
    "hugging face": (
        "runtime", 0.25,
        "{'loss': 2.1, 'grad_norm': 1.2, 'learning_rate': 5e-05, 'epoch': 0.5}\n"
        "{'train_runtime': 250.0, 'train_samples_per_second': 64.0, 'train_steps_per_second': 4.0, 'epoch': 1.0}",
    ),
    "hugging face 5": (
        "runtime", 0.25,
        "{'loss': '2.1', 'grad_norm': '1.2', 'epoch': '0.5'}\n"
        "{'train_runtime': '250.0', 'train_steps_per_second': '4.0', 'epoch': '1'}",
    ),
    "tqdm": (
        "progress", 0.5,
        "\r".join(f" {n}%|██  | {n}/100 [00:{n // 2 % 60:02d}<00:10, 2.00it/s]" for n in range(0, 100, 10)),
    ),
    "notebook": (
        "progress", 0.5,
        "[ 100/1500 00:50 < 11:40, 2.00 it/s, Epoch 0/3]\n[1500/1500 12:30, Epoch 3/3]\n"
        "Step\tTraining Loss\tValidation Loss\n500\t2.123400\t2.345600\n1000\tNo log\t2.1\n1500\t1.5\t2.0\n",
    ),
    "logging": (
        "stamps", 2.2,
        "\n".join(f"[rank0]:2024-11-01 12:{m:02d}:{s:02d},500 - root - INFO - step: {n}  loss: 9.2571  wps: 7,503"
                  for n, m, s in ((10, 58, 38), (20, 59, 0), (30, 59, 22)))
        + "\n2024-11-01 12:59:23,500 eval step: 30 loss: 9.1\n2024-11-01 12:59:44,500 step: 40 loss: 8.8",
    ),
    "clock alone": (
        "stamps", 0.6, "23:58:30 iter 100 loss 2.2\n23:59:30 iter 200 loss 2.1\n00:00:30 iter 300 loss 2.0",
    ),
    "fairseq": (
        "stamps", 0.5,
        "2023-01-01 12:00:00 | INFO | train_inner | epoch 001:    100 / 4000 loss=9.2, num_updates=100, wall=52\n"
        "2023-01-01 12:00:50 | INFO | train_inner | epoch 001:    200 / 4000 loss=8.2, num_updates=200, wall=102",
    ),
    "megatron": (
        "iterations", 4.0,
        " [2024-05-01 12:00:00] iteration  100/ 500000 | elapsed time per iteration (ms): 4000.0 | lm loss: 8.8E+00 |",
    ),
    "lightning": (
        "progress", 0.1,
        "\r".join(f"Epoch 0: {n}%|#  | {n * 10}/1000 [00:{n:02d}<00:10, 10.00it/s, v_num=0, train_loss=2.100]"
                  for n in range(0, 60, 10)),
    ),
    "lightning, rich": (
        "progress", 0.1,
        "\n".join(f"Epoch 0/9 ━━━━━━━ {n * 10}/1000 0:00:{n:02d} • 0:01:10 10.00it/s v_num: 0 train_loss: 2.1"
                  for n in range(0, 60, 10)),
    ),
    "keras": (
        "progress", 0.008,
        "Epoch 1/2\n1563/1563 [==============================] - 13s 8ms/step - loss: 2.1 - val_loss: 2.0\n"
        "313/313 [==============================] - 1s 2ms/step - loss: 2.0\n"
        "Epoch 2/2\n1563/1563 [==============================] - 12s 8ms/step - loss: 1.9 - val_loss: 1.9",
    ),
    "keras 3": (
        "progress", 0.25,
        "Epoch 1/2\n\r 50/100 ━━━━━━━━━━──────────  12s 249ms/step - loss: 2.2"
        "\r100/100 ━━━━━━━━━━━━━━━━━━━━ 25s 250ms/step - loss: 2.1\n",
    ),
    "metrics": (
        "metrics", 0.2,
        "\n".join(json.dumps({"step": n, "loss": 2.0, "step_time_s": 0.2, "data_s": 0.05}) for n in range(1, 30)),
    ),
    "epochs alone": (
        "epochs", 60.0, "\n".join(f"Epoch {n}/5 - loss: 1.2345 - time: 60.0s" for n in range(1, 6)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_log_is_read(name: str) -> None:
    """nanoGPT, llm.c, Hugging Face of two generations, bars of four kinds, our metrics, epochs with their times."""
    form, seconds, text = FORMS[name]
    report = log.report(text)
    assert form == report.facts["form"]
    spans = log.read(text).best()
    assert spans is not None
    assert seconds == pytest.approx(log.paces.usual(spans[1]), rel=0.05)


@pytest.mark.parametrize("form", ["tabs", "bars", "spaces", "words"])
def test_tables_of_losses_are_read(form: str) -> None:
    """As a notebook shows them, as Markdown, and with their tabs lost; what was not logged is left out."""
    rows = [["Step", "Training Loss", "Validation Loss"], ["500", "2.1234", "2.3"], ["1,000", "No log", "2.1"],
            ["1500", "1.5", "2.0"]]  # fmt: skip
    joined = {"tabs": "\t", "bars": " | ", "spaces": "   ", "words": " "}[form]
    lines = [joined.join(row) for row in rows]
    if form == "bars":
        lines = [f"| {line} |" for line in [lines[0], "|".join(["---"] * 3), *lines[1:]]]
    assert {500: 2.1234, 1500: 1.5} == log.read("Some words\n" + "\n".join(lines) + "\n\nAfter 2 3 4").losses


def test_a_bar_s_losses_are_read() -> None:
    """Lightning's, which stand behind its bar."""
    assert {0: 2.1, 100: 2.1} == {at: x for at, x in log.read(FORMS["lightning"][2]).losses.items() if at <= 100}


def test_a_small_model_on_a_busy_cpu_is_no_riddle() -> None:
    """Twice what the plan has at most, or some milliseconds, are other programs and Python; ten times are told."""
    config = load(ROOT / "configs" / "one_book.yaml")
    device = cpu()
    wanted = log.expected.of(config, 130_520, device)
    assert wanted is not None

    def causes(step_s: float) -> list[str]:
        text = "\n".join(f"iter {n}: loss 5.0, time {1000 * step_s:.2f}ms" for n in range(20))
        return [one.cause for one in log.report(text, config, device=device, tokens=130_520).alarms]

    assert "unexplained_time" not in causes(2 * wanted.high)
    assert "unexplained_time" in causes(10 * wanted.high)


def test_stretches_that_come_regularly_are_evaluations() -> None:
    """Every 50th step ten times as slow: their share of the time, and that they come regularly."""
    lines = [f"iter {n}: loss 2.0, time {1000 if n % 50 == 0 else 100}.00ms" for n in range(500)]
    (finding,) = log.report("\n".join(lines)).findings
    assert ("too_often", "they come every 50 steps: evaluations, checkpoints or samples") == (
        finding.cause, finding.evidence[-1],
    )  # fmt: skip
    assert finding.size == pytest.approx(9 * 900 / (490 * 100 + 10 * 1000), rel=0.02)


def test_noise_alone_has_no_outliers() -> None:
    """40 runs whose steps vary by 3 %: not one stretch stands out, none slows down."""
    for seed in range(40):
        dice = random.Random(seed)
        lines = [f"iter {n}: loss 2.0, time {dice.gauss(100, 3):.2f}ms" for n in range(300)]
        assert () == log.report("\n".join(lines)).findings, seed


def test_a_clock_of_whole_seconds_makes_no_outliers() -> None:
    """At an even pace of 0.53 s, ten steps take 5 s or 6 s by a bar, and by lines with the time of day."""
    bar = "\r".join(
        f"{n}/3000 [{n * 53 // 6000:02d}:{n * 53 // 100 % 60:02d}<10:00, 1.88it/s]" for n in range(0, 900, 10)
    )
    stamped = "\n".join(
        f"2025-01-01 10:{n * 53 // 6000:02d}:{n * 53 // 100 % 60:02d} step {n}" for n in range(0, 900, 10)
    )
    for text, form in ((bar, "progress"), (stamped, "stamps")):
        report = log.report(text)
        assert (form, ()) == (report.facts["form"], report.findings)
        assert report.facts["step_s"] == pytest.approx(0.53, rel=0.1)
    late = stamped.replace("10:07:", "10:09:")
    assert ["1 interval took far longer than the others"] == [one.title for one in log.report(late).findings]


def test_losses_whose_steps_are_not_said_convict_nobody() -> None:
    """Trainer's first line may stand for 500 steps: 6.2 is no first loss; the line that is nan is counted."""
    config = load(ROOT / "configs" / "one_book.yaml")
    lines = ["{'loss': 6.2, 'epoch': 0.5}", "{'loss': nan, 'epoch': 1.0}"]
    lines += ["{'train_runtime': 250.0, 'train_steps_per_second': 4.0}"]
    found = log.report("\n".join(lines), config, device=card("RTX 5080 Laptop")).findings
    assert "first_loss" not in [one.cause for one in found]
    assert "the loss is no number from line 2 on" in [one.title for one in found]


def test_a_run_that_slows_down_is_told() -> None:
    """From 100 to 160 ms, little by little."""
    lines = [f"iter {n}: loss 2.0, time {100 + n * 0.3:.2f}ms" for n in range(200)]
    assert ["slows_down"] == [finding.cause for finding in log.report("\n".join(lines)).findings]


def test_losses_that_cannot_be_are_told() -> None:
    """A fresh model's first loss is near ln V (10.82 for GPT-2's vocabulary); nan is an error; jumps a note."""
    config = load(ROOT / "configs" / "one_book.yaml")

    def causes(first: str) -> list[str]:
        lines = [f"iter {n}: loss {first if n == 0 else '5.0'}, time 100.00ms" for n in range(10)]
        return [f.cause for f in log.report("\n".join(lines), config, device=card("RTX 5080 Laptop")).alarms]

    assert ["overlapping_windows"] == causes("10.99")
    assert ["first_loss", "overlapping_windows"] == causes("2.1")
    assert ["first_loss", "overlapping_windows"] == causes("98.0")
    nan = [f"iter {n}: loss {'nan' if n > 6 else '5.0'}, time 100.00ms" for n in range(10)]
    assert ["loss_nan"] == [f.cause for f in log.report("\n".join(nan)).findings]
    zeros = [f"iter {n}: loss {'0.0' if n > 6 else '5.0'}, time 100.00ms" for n in range(10)]
    assert ["the loss is exactly 0 at its end"] == [f.title for f in log.report("\n".join(zeros)).findings]
    norms = [json.dumps({"step": n, "loss": 2.0, "grad_norm": 50.0 if n == 40 else 1.0}) for n in range(60)]
    assert "gradient_norm" in [f.cause for f in log.report("\n".join([*norms, "iter 1: time 9.0ms"])).findings]


def test_mutilated_logs_make_no_traceback() -> None:
    """Cut, escaped, quoted, with decimal commas and remarks: it is read, or it is said that nothing is in it."""
    dice = random.Random(3)
    texts = [PASTED, *(text for _, _, text in FORMS.values())]
    for _ in range(150):
        text = mutilated(dice.choice(texts), dice.choice(texts), dice)
        report = log.report(text)
        report.json()
        assert report.headline


def test_text_without_times_says_what_it_can_read() -> None:
    """No guess is made of what is no log."""
    report = log.report("dear diary,\nnothing happened today\n")
    assert report.headline.startswith("no times are in it")
    assert () == report.findings
