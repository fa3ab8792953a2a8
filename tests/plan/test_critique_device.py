"""Each look at the device and the network's sizes: a run that it speaks of, its figure by hand, and one it lets be."""

from __future__ import annotations

import platform
from dataclasses import replace

import pytest
from criticised import BOOK, CPU, GPU, PLENTY, SANE, V100, facts, seen, silent

from ganeum import units
from ganeum.config.change import change
from ganeum.config.schema import Config
from ganeum.hardware.card import card
from ganeum.hardware.device import Device
from ganeum.plan import closed_form
from ganeum.plan.critique import fit, shape, speed


def test_a_slow_format() -> None:
    """fp32 at 20 TFLOP/s on a card that does 80 in bf16."""
    warning = seen(speed.slow_precision, BOOK)
    assert warning.figure == "it multiplies bf16 4 times as fast: 80 TFLOP/s instead of 20 TFLOP/s"
    assert silent(speed.slow_precision, change(BOOK, {"train.precision": "bf16"}))


def test_what_auto_chose_is_not_advised_against() -> None:
    """A tiny model on an RTX 4090 is faster in tf32: auto takes it, and nothing says to try auto; set, it is said."""
    model = {"n_layer": 1, "n_head": 1, "n_embd": 16, "block_size": 8, "vocab_size": 65}

    def told(precision: str) -> tuple[str, bool]:
        config = Config.model_validate({"model": model, "train": {"batch_size": 8, "precision": precision}})
        plan = closed_form.plan(config, device=card("RTX 4090"), tokens=10_000)
        slow = any(one["what"].endswith("leaves most of this device unused") for one in plan["warnings"])
        return plan["device"]["precision"], slow

    assert told("auto") == ("tf32", False)
    assert told("tf32") == ("tf32", True)


@pytest.mark.parametrize(
    ("device", "precision", "speaks"),
    [
        (V100, "bf16", True), (V100, "tf32", True), (V100, "fp16", False), (GPU, "bf16", False), (GPU, "tf32", False),
        (CPU, "bf16", True), (CPU, "fp16", True), (CPU, "fp32", False),
    ],
)  # fmt: skip
def test_a_format_that_the_device_lacks(device: Device, precision: str, speaks: bool) -> None:
    """bf16 and TF32 came with Ampere; a CPU multiplies bf16 only with a unit for it, and fp16 not at all."""
    config = change(BOOK, {"train.precision": precision})
    if speaks:
        assert seen(speed.absent_precision, config, device).what == f"this device has no hardware for {precision}"
    else:
        assert silent(speed.absent_precision, config, device)


def test_fp16_where_bf16_costs_the_same() -> None:
    """On Ampere; a V100 has nothing but fp16."""
    config = change(BOOK, {"train.precision": "fp16"})
    assert seen(speed.narrow_range, config).try_ == "train.precision=bf16"
    assert silent(speed.narrow_range, config, V100)


def test_too_few_tokens_at_once() -> None:
    """80e12 / 800e9 = 100 FLOP a byte; one sequence of 32 tokens does 32 (bf16): a third; 4 sequences do 128."""
    config = change(BOOK, {"train.precision": "bf16", "train.micro_batch_size": 1})
    warning = seen(speed.few_tokens_at_once, config)
    assert warning.figure == (
        "1 × 32 tokens at once do 32 FLOP for each byte of a weight that is read, and it could do 100: at most 32% of "
        "its rate"
    )
    assert warning.try_ == "train.micro_batch_size=4"
    assert silent(speed.few_tokens_at_once, change(config, {"train.micro_batch_size": 4}))
    small = change(config, {"train.batch_size": 1})
    assert seen(speed.few_tokens_at_once, small).try_ == "train.batch_size=4, with the learning rate for it"
    full = replace(GPU, usable_gib=1.0)
    assert seen(speed.few_tokens_at_once, config, full).try_ == (
        "room for more at once: train.activation_checkpointing=auto, or another lever of memory"
    )


def test_an_update_that_moves_more_than_the_batch_is_worth() -> None:
    """What the plan's time says: the update is a third and more of a step of 16 · 32 tokens, at the least the 5.7 ms
    that 28 B · 162,247,680 take at 800e9 a second; eight times as many tokens make it a seventh and less."""
    config = change(BOOK, {"train.precision": "bf16", "train.batch_size": 16, "train.micro_batch_size": 16})
    time = facts(config).time
    assert time is not None
    update, whole = time.parts["optimizer"], time.step_s
    assert 0.0057 < update < 0.0100
    assert seen(speed.optimizer_traffic, config).figure == (
        f"{units.duration(update)} of {units.duration(whole)} for 512 tokens: about {update / whole:.0%} of the step"
    )
    assert silent(speed.optimizer_traffic, BOOK)
    assert silent(speed.optimizer_traffic, config, replace(GPU, memory_bandwidth_gb_s=None))  # its time is not known


def test_a_card_without_a_peak() -> None:
    """Nobody's catalogue has it: MFU is not shown."""
    unknown = Device("a card of next year", "cuda", 100.0, 99.0, capability=(13, 0))
    assert seen(speed.unknown_peak, BOOK, unknown).figure == (
        "a card of next year has no fp32 peak in the catalogue of GPUs"
    )
    assert silent(speed.unknown_peak, BOOK)


# Fit

SMALL = Device("a small card", "cuda", 2.0, 1.5, capability=(8, 6))


def test_a_model_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """162,247,680 weights, gradients and two moments in fp32 are 2.42 GiB by themselves: not into 1.5."""
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "release", lambda: "6.8.0-generic")
    warning = seen(fit.does_not_fit, change(BOOK, {"train.micro_batch_size": 1}), SMALL)
    assert (warning.severity, warning.what) == ("error", "it does not fit into the memory of a small card")
    assert warning.figure.endswith("; 1.50 GiB are usable")
    assert all(" GiB: " in line for line in warning.try_.splitlines())
    assert silent(fit.does_not_fit, change(BOOK, {"train.micro_batch_size": 1}), V100)


@pytest.mark.parametrize(
    ("system", "release", "advice"),
    [
        (
            "Windows", "11",
            "or make it fail instead: NVIDIA control panel, CUDA - Sysmem Fallback Policy, Prefer No Sysmem Fallback "
            "(driver 546.01 and later)",
        ),
        (
            "Linux", "5.15.153.1-microsoft-standard-WSL2",
            "(the driver's setting against it is not obeyed under WSL: microsoft/WSL#11050)",
        ),
    ],
)  # fmt: skip
def test_a_step_that_spills_into_system_memory(
    monkeypatch: pytest.MonkeyPatch, system: str, release: str, advice: str
) -> None:
    """On Windows and under WSL the driver hands out the system's memory: no error, but a crawl."""
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "release", lambda: release)
    warning = seen(fit.does_not_fit, change(BOOK, {"train.micro_batch_size": 2}), SMALL)
    assert (warning.severity, warning.what) == ("warning", "it will spill out of the memory of a small card")
    assert "uses the system's memory across PCIe instead of failing" in warning.figure
    assert warning.try_ == f"train.micro_batch_size=auto\n{advice}"


def test_activations_computed_twice_for_nothing() -> None:
    """Whole blocks again: 12 · (2 · 12 · 768² + 4 · 32 · 768) of 744,731,136 FLOP a token are 23 %."""
    config = change(BOOK, {"train.activation_checkpointing": "whole", "train.micro_batch_size": 8})
    warning = seen(fit.computed_twice_for_nothing, config)
    assert warning.figure.startswith("train.activation_checkpointing=whole adds 23% to the arithmetic; without it ")
    assert warning.try_ == "train.activation_checkpointing=auto"
    assert silent(fit.computed_twice_for_nothing, config, SMALL)
    assert silent(fit.computed_twice_for_nothing, change(BOOK, {"train.micro_batch_size": 8}))


def test_state_offloaded_for_nothing() -> None:
    """1.2 GiB of moments on the CPU while the card has 11 GiB."""
    config = change(BOOK, {"train.optimizer_offload": True, "train.micro_batch_size": 8})
    assert seen(fit.offloaded_for_nothing, config).try_ == "train.optimizer_offload=false"
    assert silent(fit.offloaded_for_nothing, config, SMALL)


# Shape


def test_a_vocabulary_that_is_most_of_the_model() -> None:
    """32,000 · 128 of 4.9M parameters; and untied, document 000's two tables are 77.2M of 162.2M."""
    small = change(SANE, {"model.n_layer": 4, "model.n_head": 2, "model.n_embd": 128, "model.vocab_size": 32_000})
    warning = seen(shape.vocabulary, small, tokens=PLENTY)
    assert warning.what == "most of the model is vocabulary"
    assert warning.figure.startswith("4.1M of 4.9M parameters and ")
    untied = seen(shape.vocabulary, BOOK)
    assert (untied.what, untied.figure) == (
        "much of the model is vocabulary",
        "77.2M of 162.2M parameters and 31% of the arithmetic",
    )
    assert untied.try_.startswith("model.tie_embeddings=true: 38.6M parameters less")
    assert silent(shape.vocabulary, SANE, tokens=PLENTY)


def test_a_short_context() -> None:
    """32 tokens are a sentence or two."""
    assert "a token is predicted from the 32 before it" in seen(shape.short_context, BOOK).figure
    assert silent(shape.short_context, SANE, tokens=PLENTY)


def test_widths_that_tensor_cores_do_not_take_whole() -> None:
    """390 / 6 = 65 a head: neither is a multiple of 8; 6 heads of 72 are 432. fp32 has no such rule."""
    odd = change(SANE, {"model.n_embd": 390})
    warning = seen(shape.odd_widths, odd, tokens=PLENTY)
    assert warning.figure.startswith("model.n_embd is 390, the width of a head is 65: no multiple of 8")
    assert warning.try_ == "model.n_embd=432"
    assert silent(shape.odd_widths, change(odd, {"train.precision": "fp32"}), tokens=PLENTY)
    assert silent(shape.odd_widths, SANE, tokens=PLENTY)


def test_a_context_of_no_whole_number_of_tiles() -> None:
    """129 tokens cost the attention of 192: (192 / 129)² - 1 = 122 % more of it, here 5 % of the step."""
    odd = change(SANE, {"model.block_size": 129})
    warning = seen(shape.odd_context, odd, tokens=PLENTY)
    assert "129 cost as much as 192, 5% of the step" in warning.figure
    assert warning.try_ == "model.block_size=192 or 128"
    assert silent(shape.odd_context, SANE, tokens=PLENTY)
    assert silent(shape.odd_context, change(SANE, {"model.block_size": 1000}), tokens=PLENTY)
