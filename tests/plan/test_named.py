"""The plan of a model by its name: what is settled, what is chosen, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ganeum.errors import ConfigError, Several
from ganeum.hardware.card import card
from ganeum.hardware.device import Device
from ganeum.plan import memory
from ganeum.plan.architecture import find
from ganeum.plan.question import named
from ganeum.plan.question.use import keys, read

CPU = Device("a CPU", "cpu", memory_gib=64, usable_gib=50)


def plan(name: str, *settings: str, gpu: str = "RTX 4090") -> dict[str, Any]:
    return named.plan(find(name), read(settings), CPU if gpu == "cpu" else card(gpu))


def chosen(found: dict[str, Any]) -> dict[str, Any]:
    return {choice["key"]: choice["value"] for choice in found["choices"]}


def test_t5_base_is_what_its_publishers_count() -> None:
    """222,903,552 parameters (google-t5/t5-base), six products a weight and token of its stream, 512 tokens in and 128
    out unless said otherwise."""
    found = plan("t5-base")
    assert found["parameters"]["total"] == 222_903_552
    assert (512, 128) == (found["model"]["source_length"], found["model"]["length"])
    # Of 128 tokens: self-attention's four matrices, two of the attention across, the MLP's two, the head. Of 512: the
    # encoder's, and the keys and values that the decoder looks across at.
    decoder = 12 * (6 * 768**2 + 2 * 768 * 3072) + 32_128 * 768
    encoder = 12 * (4 * 768**2 + 2 * 768 * 3072) + 12 * 2 * 768**2
    attention = 12 * 4 * 768 * (512**2 + 128**2 + 128 * 512)
    forward = 2 * decoder * 128 + 2 * encoder * 512 + attention
    assert found["flops"]["per_step"] == 3 * forward * found["batch"]["batch_size"]


@pytest.mark.parametrize("purpose", ["training", "evaluation", "inference"])
def test_without_a_batch_it_is_as_large_as_fits(purpose: str) -> None:
    """The batch is the largest power of two that fits; twice as many do not."""
    found = plan("gpt2", f"purpose={purpose}", "length=512", "activation_checkpointing=none", gpu="RTX 3070")
    size = found["batch"]["micro_batch_size"]
    assert found["memory_gib"]["fits"]
    assert size == found["batch"]["batch_size"] == 2 ** (size.bit_length() - 1)
    twice = plan(
        "gpt2",
        f"purpose={purpose}",
        "length=512",
        "activation_checkpointing=none",
        f"batch={2 * size}",
        f"micro_batch_size={2 * size}",
        gpu="RTX 3070",
    )
    assert not twice["memory_gib"]["fits"]
    assert size <= found["batch"]["largest_micro_batch"] < 2 * size


def test_the_pace_is_that_of_both_streams() -> None:
    """Eight pairs of 512 tokens in and 128 out are 4,096 and 1,024 tokens a step, and the pace is that of 5,120."""
    found = plan("t5-base", "batch_size=8")
    assert (1_024, 4_096) == (found["batch"]["tokens_per_step"], found["batch"]["source_tokens_per_step"])
    assert found["time"]["tokens_per_second"] == pytest.approx(5_120 / found["time"]["step_s"])


def test_there_is_an_end_to_how_many_are_planned_at_once() -> None:
    """Where thousands would fit, 1,024 are planned, and the reason is not that they are the most that fit."""
    found = plan("gpt2", "purpose=inference", "length=64")
    assert found["batch"]["largest_micro_batch"] > found["batch"]["micro_batch_size"] == 1024
    assert found["choices"][-1]["reason"] == "the most that is planned at once where no batch is asked for"


def test_lengths_are_cut_only_where_they_may_be() -> None:
    """With --may-shorten both streams are halved until something fits; what fits is left alone."""
    settings = (
        "batch_size=64",
        "micro_batch_size=64",
        "activation_checkpointing=none",
        "length=512",
        "source_length=1024",
    )
    assert not plan("t5-base", *settings)["memory_gib"]["fits"]
    found = named.plan(find("t5-base"), read(settings), card("RTX 4090"), may_shorten=True)
    assert found["memory_gib"]["fits"]
    length = found["model"]["length"]
    assert (length, 2 * length) == (found["choices"][0]["value"], found["model"]["source_length"])
    twice = [*settings[:3], f"length={2 * length}", f"source_length={4 * length}"]
    assert not plan("t5-base", *twice)["memory_gib"]["fits"]
    assert named.plan(find("gpt2"), read([]), card("RTX 4090"), may_shorten=True)["model"]["length"] == 1024


def test_a_batch_that_is_asked_for_stays() -> None:
    """Training accumulates what does not fit at once; without training nothing can be, and it is all at once."""
    training = plan("gpt2", "batch_size=96", gpu="RTX 3070")["batch"]
    assert training["micro_batch_size"] * training["gradient_accumulation_steps"] == training["batch_size"] == 96
    inference = plan("gpt2", "batch_size=96", "purpose=inference", gpu="RTX 3070")["batch"]
    assert (96, 1) == (inference["micro_batch_size"], inference["gradient_accumulation_steps"])


def test_the_batch_is_shared_by_all_devices() -> None:
    """64 sequences on four cards are 16 for each, and a step still sees 64."""
    found = plan("gpt2", "batch_size=64", "devices=4", "length=128")
    assert {"batch_size": 64, "micro_batch_size": 16, "devices": 4, "tokens_per_step": 64 * 128}.items() <= (
        found["batch"].items()
    )
    alone = plan("gpt2", "batch_size=16", "length=128")
    assert found["flops"]["per_step"] == 4 * alone["flops"]["per_step"]
    for figure, times in (("step_s", 1), ("tokens_per_second", 4), ("mfu", 1)):
        assert found["time"][figure] == pytest.approx(times * alone["time"][figure])


def test_what_is_left_open_is_listed_with_its_reason() -> None:
    """Lengths, precision, kernel, checkpointing and micro-batch are choices; what was said is none."""
    assert ["length", "source_length", "precision", "activation_checkpointing", "attention", "micro_batch_size"] == (
        list(chosen(plan("t5-base")))
    )
    settings = ["length=64", "source_length=256", "precision=fp16", "activation_checkpointing=whole", "attention=eager"]
    assert chosen(plan("t5-base", *settings, "micro_batch_size=2")) == {}


def test_weights_are_kept_as_they_are_used_but_in_training() -> None:
    """Training keeps fp32 weights under autocast; for inference they are cast."""
    training, inference = plan("gpt2"), plan("gpt2", "purpose=inference")
    assert "weights" not in chosen(training)
    assert chosen(inference)["weights"] == "bf16"
    weights = inference["memory_gib"]["by_component"]["weights"] * 2**30
    assert weights == pytest.approx(2 * 124_439_808, rel=1e-3)


def test_weights_that_are_cast_are_computed_with_as_they_are() -> None:
    """A model cast to bf16 is multiplied in bf16 on a card that prefers fp16 too, and that is the reason."""
    found = plan("gpt2", "weights=bf16", gpu="V100 PCIe 16GB")
    assert found["device"]["precision"] == "bf16"
    assert next(one["reason"] for one in found["choices"] if one["key"] == "precision") == "as the weights"


@pytest.mark.parametrize(
    ("expected", "name", "gpu"),
    [
        ("flash", "gpt2", "RTX 4090"),
        ("efficient", "gpt2", "V100 PCIe 16GB"),  # flash is there from Ampere on
        ("efficient", "t5-base", "RTX 4090"),  # a bias on the scores
    ],
)
def test_the_kernel_is_one_that_there_is(expected: str, name: str, gpu: str) -> None:
    """Neither an old card nor a bias on the scores has flash attention."""
    assert expected == chosen(plan(name, gpu=gpu))["attention"]


def test_the_length_of_a_training() -> None:
    """Tokens by those of a step are steps, steps by their time are hours; hours the other way round."""
    found = plan("gpt2", "batch_size=64", "tokens=1e9")
    assert found["data"]["steps"] == 15_259  # 1e9 / (64 · 1,024) = 15,258.8
    assert found["time"]["hours"] == pytest.approx(15_259 * found["time"]["step_s"] / 3600)
    hours = plan("gpt2", "batch_size=64", "hours=2")
    assert hours["data"]["steps"] == int(7200 / hours["time"]["step_s"])


def test_what_does_not_fit_says_what_would() -> None:
    """Each way out, typed as it stands, is a plan that fits."""
    found = plan("gpt2-large", gpu="RTX 3070")
    assert not found["memory_gib"]["fits"]
    warning = found["warnings"][0]  # the gravest comes first
    assert (warning["severity"], warning["what"]) == ("error", "it does not fit into the memory of GeForce RTX 3070")
    least = found["memory_gib"]["tensors"]
    assert (
        warning["figure"]
        == f"{least:.2f} GiB with 1 sequence at once, {card('RTX 3070').usable_gib:.2f} GiB are usable"
    )
    ways = [line.partition(":")[0].split() for line in warning["try"].splitlines()]
    assert ways
    for settings in ways:
        assert plan("gpt2-large", *settings, gpu="RTX 3070")["memory_gib"]["fits"], settings


@pytest.mark.parametrize(
    ("gpu", "advice"),
    [("V100 PCIe 16GB", "precision=fp32, or a GPU from Ampere on"), ("RTX 4090", "precision=bf16")],
)
@pytest.mark.parametrize("name", ["t5-base", "mt5-small"])
def test_t5_in_fp16_overflows(name: str, gpu: str, advice: str) -> None:
    """Known since 2020 (huggingface/transformers#5651: 66,246 in t5-base); GPT-2 and bf16 do not."""
    (warning,) = plan(name, "precision=fp16", gpu=gpu)["warnings"]
    assert warning == {
        "severity": "warning",
        "what": f"{find(name).family} is known to overflow in fp16",
        "figure": "its makers computed in bf16 alone, and activations of t5-base pass fp16's 65,504, in autocast too: "
        "what comes out may be nan (huggingface/transformers#5651, #10956; "
        "google-research/text-to-text-transfer-transformer#539)",
        "try": advice,
    }
    assert plan(name, "precision=fp32", gpu="V100 PCIe 16GB")["warnings"] == []
    assert plan("gpt2", "precision=fp16", gpu="V100 PCIe 16GB")["warnings"] == []


@pytest.mark.parametrize(
    ("settings", "what", "advice"),
    [
        ("batch_size=8 precision=fp32", "fp32 leaves most of this device unused", "precision=auto"),
        ("batch_size=8 precision=fp16", "fp16 where bf16 costs the same", "precision=bf16"),
        ("batch_size=4 micro_batch_size=1 length=64", "too few tokens at once for this GPU", "micro_batch_size=4"),
        (
            "batch_size=1 length=64",
            "too few tokens at once for this GPU",
            "batch_size=3, with the learning rate for it",
        ),
        (
            "batch_size=8 activation_checkpointing=whole",
            "activations are computed twice although there is room for them",
            "activation_checkpointing=auto",
        ),
        (
            "batch_size=8 offload=optimizer",
            "the optimizer's state lies in the CPU's memory although there is room for it on the GPU",
            "offload=none",
        ),
        (
            "batch_size=8 tokens=1e11",
            "it will take long",
            "fewer steps, a smaller model, or a faster device (--gpu NAME plans for another)",
        ),
    ],
)
def test_what_is_wrong_with_it(settings: str, what: str, advice: str) -> None:
    """The first of what a plan by name warns of, with keys as they are typed here; an RTX 4090 does 164 FLOP in bf16
    for a byte, which takes three sequences of 64 tokens."""
    first = plan("gpt2", *settings.split())["warnings"][0]
    assert (what, advice) == (first["what"], first["try"])


@pytest.mark.parametrize("settings", ["", "batch_size=16 length=512", "purpose=inference", "purpose=generation"])
@pytest.mark.parametrize("name", ["gpt2", "t5-base", "qwen3-0.6b"])
def test_a_sane_use_is_told_nothing(name: str, settings: str) -> None:
    """Nothing is wrong with a model on a card with room for it."""
    assert plan(name, *settings.split(), gpu="A100 SXM4 40GB")["warnings"] == []


def test_an_architecture_is_settled_before_anything_is_chosen() -> None:
    """What a table compares is one sequence at once with nothing computed twice."""
    way = named.settled(find("gpt2"), read(["precision=fp16"]), card("RTX 4090"))
    assert (1, 1024, "fp16", "none") == (way.micro_batch_size, way.length, way.precision, way.checkpointing)
    assert memory.of(find("gpt2"), replace(way, micro_batch_size=2)).expected > memory.of(find("gpt2"), way).expected


REFUSED = [
    (
        ("gpt2", "length=2048"),
        "ConfigError: gpt2 knows positions for 1,024 tokens, and length is 2,048\n"
        "  where  length=2048\n"
        "  try    length=1024",
    ),
    (
        ("gpt2", "source_length=512"),
        "ConfigError: gpt2 has no encoder, and source_length is 512\n"
        "  where  source_length=512\n"
        "  try    length=512, the tokens of one sequence",
    ),
    (
        ("gpt2", "weights=nf4"),
        "ConfigError: weights in nf4 cannot be trained\n"
        "  where  weights=nf4\n"
        "  why    an update is smaller than the step between two of their values: adapters are trained on them "
        "instead\n"
        "  try    lora.rank=16",
    ),
    (
        ("gpt2", "batch_size=10", "devices=4"),
        "ConfigError: batch_size must be a multiple of devices, but 10 is not a multiple of 4\n"
        "  where  batch_size=10 devices=4\n"
        "  why    each of them takes an equal share\n"
        "  try    batch_size=12",
    ),
    (
        ("gpt2", "batch_size=10", "micro_batch_size=4"),
        "ConfigError: batch_size must be a multiple of micro_batch_size · devices, but 10 is none of 4 · 1\n"
        "  where  batch_size=10 micro_batch_size=4 devices=1\n"
        "  why    an optimizer step cannot end inside a micro-batch\n"
        "  try    micro_batch_size=auto",
    ),
    (
        ("gpt2", "tokens=1e9", "hours=2"),
        "ConfigError: tokens and hours are both given\n"
        "  where  tokens=1e+09 hours=2\n"
        "  why    each says when a training ends; the other follows from the speed\n"
        "  try    one of them",
    ),
    (
        ("gpt2", "batch_size=1000000000000000003"),
        "ConfigError: batch_size must be at most 1,000,000,000, but it is 1e+18\n"
        "  where  batch_size=1000000000000000003\n"
        "  why    no network and no run has as many",
    ),
    (
        ("gpt2", "lenght=512"),
        "ConfigError: the plan of a model by its name has no key lenght\n"
        "  where  the command line: lenght=512\n"
        "  try    length=512",
    ),
]


@pytest.mark.parametrize(("asked", "text"), REFUSED, ids=[" ".join(asked) for asked, _ in REFUSED])
def test_what_is_refused(asked: tuple[str, ...], text: str) -> None:
    """What cannot be together, or is not of this model, is said with what to type."""
    with pytest.raises(ConfigError) as error:
        plan(*asked)
    assert text == str(error.value)


def test_offload_needs_a_gpu() -> None:
    """On a CPU there is nowhere else to put anything."""
    with pytest.raises(ConfigError) as error:
        plan("gpt2", "offload=optimizer", gpu="cpu")
    assert str(error.value) == (
        "ConfigError: offload is optimizer, and a CPU is no GPU\n"
        "  where  offload=optimizer\n"
        "  why    what is offloaded lies in the CPU's memory, where everything is here anyway\n"
        '  try    --gpu "RTX 4090", or offload=none'
    )


def test_all_that_is_wrong_is_said_at_once() -> None:
    """Three wrong keys are three errors in one go."""
    with pytest.raises(Several) as error:
        read(["purpose=learning", "batch=none", "zero_stage=4"])
    assert [
        "purpose must be one of training, evaluation, inference or generation, but it is the text 'learning'",
        "batch_size must be a whole number of at least 1, or auto, but it is the text 'none'",
        "zero_stage must be a whole number from 0 to 3, but it is 4",
    ] == [one.what for one in error.value.errors]


def test_every_key_is_documented() -> None:
    """docs/plan.md has a line for each key, as the schema has it."""
    page = (Path(__file__).parents[2] / "docs" / "plan.md").read_text(encoding="utf-8")
    for key in keys().values():
        default = "null" if key.default is None else key.default
        assert f"| `{key.name}` | {key.kind} | `{default}` | {key.description} |" in page


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("per_device_train_batch_size=4", {"micro_batch_size": 4}),
        ("max_source_length=512", {"source_length": 512}),
        ("optim=adafactor", {"optimizer": "adafactor"}),
        ("train.precision=bf16", {"precision": "bf16"}),
        ("num_beams=4", {"beams": 4}),
        ("gradient_checkpointing=true", {"activation_checkpointing": "whole"}),
        ("fp16=true", {"precision": "fp16"}),
    ],
)
def test_other_names_are_understood(said: str, meant: dict[str, Any]) -> None:
    """Hugging Face's names, and a config's with their section, mean the same keys."""
    assert read([said]).model_dump(include=set(meant)) == meant
