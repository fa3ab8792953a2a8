"""Each look at text, length and learning: a run that it speaks of, its figure by hand, and one that it lets be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from criticised import BOOK, CPU, GPU, PLENTY, ROOT, SANE, V100, facts, seen, silent

from ganeum.config import load
from ganeum.config.change import change
from ganeum.hardware.device import Device
from ganeum.plan import critique
from ganeum.plan.critique import data, learning, length


def prepared(directory: Path, *, documents: int = 1, tokens: int = 21_000, val: int = 0) -> str:
    """A directory as `prepare` leaves it, as far as its meta.json."""
    part = {"tokens": tokens, "bytes": tokens, "documents": documents, "sha256": ""}
    meta = {
        "ganeum_version": "0.1.0", "tokenizer": "bytes", "vocab_size": 257, "dtype": "uint16", "train": part,
        "val": part | {"tokens": val} if val else None, "sources": [], "replaced_bytes": 0, "skipped_files": 0,
        "split": {"rule": "none", "val_share": 0.0, "seed": 0, "separator": None, "held_out": None}, "fingerprint": "",
    }  # fmt: skip
    (directory / "meta.json").write_text(json.dumps(meta))
    return str(directory)


def test_a_sane_run_is_left_in_peace() -> None:
    """Enough text, no overlap, a usual learning rate, a precision that the card has: nothing is said."""
    assert critique.of(facts(SANE, tokens=PLENTY)) == []


@pytest.mark.parametrize("name", ["demo.yaml", "modern.yaml", "exp_v100/test_run.yaml", "exp_v100/exp2_layer12.yaml"])
@pytest.mark.parametrize("device", [GPU, V100])
def test_shipped_configs_are_not_scolded(name: str, device: Device) -> None:
    """On their own corpora (TinyStories: 470M tokens, the standard library: 6M) they get notes at most."""
    config = load(ROOT / "configs" / name)
    small = config.data.directory.endswith("pystdlib")
    settled = {"train.micro_batch_size": config.train.batch_size, "train.activation_checkpointing": "none"}
    settled |= {"model.vocab_size": 4096 if small else 50_257}
    if config.train.hours is not None:
        settled |= {"train.hours": None, "train.max_iters": 921}
    found = critique.of(facts(change(config, settled), device, 6_000_000 if small else 470_000_000))
    assert [warning for warning in found if warning.severity != "note"] == []


def test_document_000_is_told_what_costs_most_first() -> None:
    """Its run on a card where it fits: learnt by heart, repeated, slow format, overlapping; then notes."""
    found = critique.of(facts(BOOK))
    assert [warning.what for warning in found if warning.severity == "warning"] == [
        "the model has room to learn the text by heart",  # 1 - 130,520 / 162,247,680 = 0.999
        "the same text is repeated more often than it teaches",  # 1 - 16.4 / 159.4 = 0.897
        "the windows overlap, so an epoch is several",  # 1 - 4 / 32 = 0.875
        "fp32 leaves most of this device unused",  # 1 - 20 / 80 = 0.75
    ]
    assert [warning.severity for warning in found] == sorted(
        (warning.severity for warning in found), key=critique.GRAVEST_FIRST.index
    )


def test_errors_come_before_everything() -> None:
    """Without data nothing else matters."""
    first, *_ = critique.of(facts(BOOK, tokens=None))
    assert (first.severity, first.what) == ("error", "there is no data in no/book yet")


# Data


def test_nothing_held_out(tmp_path: Path) -> None:
    """train.bin alone, one document: the loss says nothing about other text, and there is a way to divide it."""
    config = change(BOOK, {"data.directory": prepared(tmp_path)})
    warning = seen(data.nothing_held_out, config)
    assert (warning.severity, warning.what) == ("warning", "there is no validation set")
    assert "train.bin alone: the loss on text seen 159 times says nothing about other text" in warning.figure
    assert warning.try_ == (
        "prepare it again with --val OTHER_TEXT, or --split-on with what divides this text into documents"
    )
    held = change(BOOK, {"data.directory": prepared(tmp_path, val=1_000)})
    assert silent(data.nothing_held_out, held)


def test_nothing_held_out_of_nanogpts_files(tmp_path: Path) -> None:
    """train.bin without meta.json is looked at by its name; nothing at all is another look's business."""
    config = change(BOOK, {"data.directory": str(tmp_path)})
    assert silent(data.nothing_held_out, config)
    (tmp_path / "train.bin").touch()
    assert seen(data.nothing_held_out, config).try_ == "prepare it again with --val OTHER_TEXT"
    (tmp_path / "val.bin").touch()
    assert silent(data.nothing_held_out, config)


def test_windows_that_overlap() -> None:
    """32 tokens, 4 apart: 8 times an epoch; (130,520 - 33) // 32 + 1 = 4,078 windows apart, 31 steps of 128."""
    warning = seen(data.overlap, BOOK)
    assert warning.figure == "windows of 32 tokens start 4 apart: each token is trained on 8 times an epoch"
    assert warning.try_ == "data.stride=auto: 4,078 windows, 31 steps an epoch instead of 254"
    assert silent(data.overlap, change(BOOK, {"data.stride": 32}))
    assert silent(data.overlap, change(BOOK, {"data.order": "random"}))


def test_a_context_longer_than_the_documents(tmp_path: Path) -> None:
    """300 documents of 70 tokens: a window of 256 holds 3.66 of them; the next power of two above 70 is 128."""
    config = change(SANE, {"data.directory": prepared(tmp_path, documents=300)})
    warning = seen(data.short_documents, config)
    assert warning.figure == (
        "300 documents of 70 tokens on average: a window of 256 holds about 3.66 of them, one after the other"
    )
    assert warning.try_ == "model.block_size=128, with train.batch_size=128 for the same tokens in a step"
    assert silent(data.short_documents, change(config, {"data.directory": prepared(tmp_path, documents=100)}))


def test_text_too_short() -> None:
    """Shorter than a window, or than a batch of windows: (133 - 33) // 4 + 1 = 26."""
    assert seen(data.too_little, BOOK, tokens=32).figure == "32 tokens; a window needs model.block_size + 1 = 33"
    few = seen(data.too_little, BOOK, tokens=133)
    assert (few.figure, few.try_) == (
        "26 windows, and train.batch_size is 128",
        "train.batch_size=26 at most, or data.order=random",
    )
    assert silent(data.too_little, BOOK)


# Length


def test_a_length_in_steps_that_was_counted_in_windows() -> None:
    """Document 000 reckons 642,440 steps; 32,622 windows in batches of 128 are 254 steps an epoch, 20 of them 5,080."""
    config = change(BOOK, {"train.epochs": None, "train.max_iters": 642_440})
    warning = seen(length.windows_for_steps, config)
    assert warning.figure == (
        "642,440 steps are 19.7 times the 32,622 windows, but a step takes 128 of them: these are 2,529 epochs"
    )
    assert warning.try_ == "train.max_iters=5080 (20 epochs of 254 steps)"
    assert silent(length.windows_for_steps, change(config, {"train.max_iters": 5_080}))
    assert silent(length.windows_for_steps, BOOK)


def test_a_warm_up_longer_than_the_run() -> None:
    """10,000 steps of warm-up in 5,080: the rate ends at half of its peak; 100 are fine."""
    warning = seen(length.warm_up, change(BOOK, {"train.warmup_iters": 10_160}))
    assert (warning.what, warning.figure) == (
        "the warm-up is longer than the run",
        "train.warmup_iters is 10,160, and there are 5,080 steps: the learning rate ends at 50% of its peak",
    )
    most = seen(length.warm_up, change(BOOK, {"train.warmup_iters": 4_000}))
    assert most.what == "the warm-up is most of the run"
    assert silent(length.warm_up, change(BOOK, {"train.warmup_iters": 100}))


def test_half_a_day_is_long() -> None:
    """3.05 TFLOP · 5,080 at 100 GFLOP/s are 154,961 s, 43 h: all that is known without the time of a step, whatever
    share of the peak others reach; with a step of 59 s it is 5,080 of them."""
    warning = seen(length.long, BOOK, CPU)
    assert warning.figure == ("15.5 PFLOP at this device's 100 GFLOP/s are 1 d 19 h at the very least")
    assert "and about 3 d 11 h at the 52% of it that is expected" in seen(length.long, BOOK, CPU, step_s=59.0).figure
    assert silent(length.long, BOOK)


def test_evaluations_that_cost_more_than_training() -> None:
    """2,540 of 65,536 tokens, a third of training's work a token: 55.5M of 76.3M tokens' worth, 73 %."""
    warning = seen(length.evaluations, change(BOOK, {"train.eval_interval": 2}))
    # 2,540 · 65,536 / (2,540 · 65,536 + 3 · 20,807,680) = 0.7273
    assert warning.figure == (
        "2,540 evaluations of 65,536 tokens beside 20,807,680 tokens of training: 73% of the arithmetic"
    )
    # a twentieth of 3 · 20,807,680 / 65,536 = 952.5 evaluations' worth: 47, one every 109 steps
    assert (warning.severity, warning.try_) == ("warning", "train.eval_interval=109")
    assert silent(length.evaluations, BOOK)


def test_an_evaluation_too_large_for_the_run() -> None:
    """100 steps of 1,024 tokens and ten evaluations of 65,536: fewer tokens each, since rarer is hardly possible."""
    config = change(SANE, {"train.tokens": None, "train.max_iters": 100, "train.batch_size": 4})
    config = change(config, {"train.micro_batch_size": 4})
    # 655,360 / (655,360 + 3 · 102,400) = 0.681; a twentieth of 307,200 in ten evaluations: 1,536 tokens
    warning = seen(length.evaluations, config, tokens=PLENTY)
    assert (warning.severity, warning.try_) == ("warning", "train.eval_tokens=1536")


def test_checkpoints_that_take_longer_than_the_steps_between() -> None:
    """162M parameters with AdamW's state are 1.95 GB, 3.2 s on a disk of 600 MB/s; every 10 steps of 0.1 s: 76 %."""
    often = change(BOOK, {"train.checkpoint_interval": 10})
    warning = seen(length.checkpoints, often, step_s=0.1)
    assert warning.figure.endswith("every 10 steps of 100 ms: 76% of the time, on a disk that takes 572 MiB a second")
    assert warning.severity == "warning"
    offloaded = change(often, {"train.optimizer_offload": True})
    assert warning.figure == seen(length.checkpoints, offloaded, step_s=0.1).figure  # it is written all the same
    assert silent(length.checkpoints, BOOK, step_s=0.1)
    assert silent(length.checkpoints, often)


# Learning


def test_what_repeated_text_is_worth() -> None:
    """Muennighoff et al. 2023: 4 passes are nearly as good as new, and none are worth more than 1 + 15.39."""
    assert learning.worth(1) == 1
    assert learning.worth(4) == pytest.approx(4, rel=0.07)
    assert learning.worth(1e9) == pytest.approx(16.39, abs=0.01)


def test_text_repeated_too_often() -> None:
    """20,807,680 tokens seen of 130,520: 159.4 times; 4 times are 127 steps of 4,096."""
    warning = seen(learning.repeats, BOOK)
    assert warning.figure.startswith("each token is seen 159.4 times; that teaches like 16.4 passes over new text:")
    assert warning.try_.startswith("train.max_iters=127 (4 times), 5.2M tokens of text for this length")
    assert silent(learning.repeats, SANE, tokens=PLENTY)


def test_a_model_that_can_learn_the_text_by_heart() -> None:
    """162M parameters for 130.5k tokens; Chinchilla's 20 a parameter would be 3.2B."""
    warning = seen(learning.tokens_per_parameter, BOOK)
    assert warning.figure.startswith("162.2M parameters for 130.5k tokens of text, 0.0008 tokens a parameter;")
    assert "3.2B tokens for this one" in warning.try_
    assert silent(learning.tokens_per_parameter, SANE, tokens=PLENTY)


def test_a_model_too_large_for_its_training() -> None:
    """13.9M parameters, 20M tokens seen of 600M: 1.4 a parameter."""
    short = change(SANE, {"train.tokens": 20e6})
    warning = seen(learning.tokens_per_parameter, short, tokens=PLENTY)
    assert warning.what == "the model is large for so short a training"
    assert warning.figure.startswith("1.4 tokens a parameter;")


def test_repeated_text_without_dropout() -> None:
    """159 times with dropout 0; with 0.1 it says nothing."""
    assert seen(learning.no_dropout, change(BOOK, {"model.dropout": 0.0})).try_ == "model.dropout=0.1"
    assert silent(learning.no_dropout, BOOK)


@pytest.mark.parametrize(
    ("rate", "severity", "says"),
    [(4e-3, "note", "far above"), (1e-1, "warning", "far above"), (1e-5, "note", "far below")],
)
def test_a_learning_rate_far_from_usual(rate: float, severity: str, says: str) -> None:
    """Kaplan et al.: 0.003239 - 0.0001395 ln(85.03M) = 6.9e-4 for the 85M of document 000's blocks."""
    warning = seen(learning.learning_rate, change(BOOK, {"train.learning_rate": rate}))
    assert (warning.severity, warning.try_) == (severity, "train.learning_rate=6.9e-04")
    assert says in warning.what
    assert silent(learning.learning_rate, BOOK)
    assert silent(learning.learning_rate, change(BOOK, {"train.learning_rate": rate, "train.optimizer": "muon"}))


def test_the_usual_learning_rate_is_gpt3s() -> None:
    """6e-4 at 125M, 3e-4 at 350M, 2e-4 at 1.3B (Brown et al. 2020, arXiv 2005.14165, table 2.1), and twice or half."""
    for n_layer, n_embd, rate in ((12, 768, 6e-4), (24, 1024, 3e-4), (24, 2048, 2e-4)):
        model = {"model.n_layer": n_layer, "model.n_embd": n_embd, "model.n_head": n_embd // 64}
        for factor in (1.0, 2.0, 0.5):
            assert silent(learning.learning_rate, change(BOOK, model | {"train.learning_rate": factor * rate}))


def test_a_batch_beyond_what_a_step_can_learn_from() -> None:
    """8,192 sequences of 256 are 2.1M tokens; at 4 nats 2.1e8 / 4^4.76 = 286k are critical: 7.3 times, 88 % lost."""
    config = change(SANE, {"train.batch_size": 8192, "train.micro_batch_size": 64})
    warning = seen(learning.batch, change(config, {"train.tokens": 60e6}), tokens=PLENTY)
    assert warning.figure.startswith("2,097,152 tokens a step; at a loss of 4 nats about 286.0k are critical")
    assert warning.figure.endswith("88% of the tokens teach nothing new")
    assert warning.try_ == "train.batch_size=1117 with more steps"
    assert silent(learning.batch, SANE, tokens=PLENTY)


def test_every_look_is_on_its_page() -> None:
    """docs/critique.md has a row for each, by its name."""
    page = (ROOT / "docs" / "critique.md").read_text(encoding="utf-8")
    assert [look.__name__ for look in critique.LOOKS if f"`{look.__name__}`" not in page] == []
