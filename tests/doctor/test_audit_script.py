"""A training script is read and never run: every fault alone is seen, and what only looks like one is not."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import scripts
import settings_faults
from scripts import LOOP, TRAINER, loop, trainer

from ganeum.doctor import audit
from ganeum.doctor.causes import causes, page
from ganeum.errors import DataError
from ganeum.hardware.card import card

FAULTS = scripts.FAULTS | settings_faults.FAULTS


def seen(text: str, gpu: str | None = None) -> list[str]:
    return [finding.cause for finding in audit.of_script(text, "train.py", card(gpu) if gpu else None).findings]


@pytest.mark.parametrize("text", [LOOP, TRAINER], ids=["loop", "trainer"])
def test_a_good_script_has_nothing_to_change(text: str) -> None:
    """Neither the loop by hand nor the Trainer's script has one finding, not even a note."""
    assert [] == seen(text)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_alone_is_seen(name: str) -> None:
    """It is among the findings, with the line that it stands in."""
    cause = name.split()[0]
    (finding, *_) = [f for f in audit.of_script(FAULTS[name][0], "train.py").findings if f.cause == cause] or [None]
    assert finding is not None, seen(FAULTS[name][0])
    assert finding.where is not None
    assert finding.where.startswith("train.py, line ")


@pytest.mark.parametrize("name", FAULTS)
def test_what_only_looks_like_it_is_silent(name: str) -> None:
    """The same script without the fault does not have that finding."""
    assert name.split()[0] not in seen(FAULTS[name][1])


def test_a_device_that_is_set_in_a_branch_is_not_held_to_be_set() -> None:
    """`device = "cpu"` for a test, and a GPU else."""
    both = 'if testing:\n    device = "cpu"\nelse:\n    device = choose()\n'
    assert "on_cpu" in seen('device = "cpu"\n' + loop(('"cuda"', "device")))
    assert "on_cpu" not in seen(both + loop(('"cuda"', "device")))


def test_cards_that_are_hidden_in_a_branch_are_not_held_to_be_hidden() -> None:
    """In an `if`, also of one line, or in a function that nobody may call."""
    hidden = 'os.environ["CUDA_VISIBLE_DEVICES"] = ""\n'
    assert "on_cpu" in seen("import os\n" + hidden + LOOP)
    for branch in ("if args.cpu: ", "if args.cpu:\n    ", "def on_cpu():\n    "):
        assert "on_cpu" not in seen("import os\n" + branch + hidden + LOOP)


def test_heads_that_are_too_wide_get_a_number_that_divides_them() -> None:
    """600 has no heads of 64; lists of widths are no width."""
    told = {}
    for sizes in ("n_embd = 640\nn_head = 2\n", "n_embd = 600\nn_head = 2\n", "n_embd = [600, 64]\nn_head = 2\n"):
        report = audit.of_script(sizes + LOOP, "train.py")
        told[sizes] = [one.change for one in report.findings if one.cause == "wide_heads"]
    assert [["n_head = 10, whose heads are 64 wide"], ["a larger n_head"], []] == list(told.values())


def test_faults_in_pairs_are_both_seen() -> None:
    """Two changes at once are two findings."""
    both = loop((scripts.CAST, scripts.PLAIN), ("shuffle=True", "shuffle=False"))
    assert {"fp32", "sorted_data"} <= set(seen(both))


def test_the_card_decides_about_formats() -> None:
    """bf16 is an alarm on a V100 and none on an RTX 3090; fp16 on it is a note that bf16 costs the same."""
    bf16, fp16 = TRAINER, trainer(("bf16=True", "fp16=True"))
    assert ["bf16_emulated"] == seen(bf16, "V100 SXM2 16GB")
    assert [] == seen(bf16, "RTX 3090")
    assert ["fp16"] == seen(fp16, "RTX 3090")
    assert [] == seen(fp16, "V100 SXM2 16GB")


def test_the_card_decides_about_kernels_and_peaks() -> None:
    """FlashAttention 2 is for Ampere and later; 312 TFLOPS are an A100's."""
    flash = trainer(
        ('from_pretrained("gpt2")\nrows', 'from_pretrained("gpt2", attn_implementation="flash_attention_2")\nrows')
    )
    assert ["attention_kernel"] == seen(flash.replace("bf16", "fp16"), "RTX 2080 Ti")
    assert [] == seen(flash, "RTX 3090")
    assert ["wrong_peak"] == seen("PEAK = 312e12\n" + LOOP, "RTX 4090")
    assert [] == seen("PEAK = 312e12\n" + LOOP, "A100 SXM4 80GB")


def test_values_are_followed_through_what_is_plain_to_see() -> None:
    """Constants, argparse's defaults, dataclasses, dictionaries, arithmetic and **settings."""
    for before, value in (
        ("SAVE = 5", "SAVE"),
        (
            "p = argparse.ArgumentParser()\np.add_argument('--save-every', default=5)\nargs = p.parse_args()",
            "args.save_every",
        ),
        ("class C:\n    every: int = 5\ncfg = C()", "cfg.every"),
        ("cfg = {'every': 5}", "cfg['every']"),
        ("EPOCH = 50", "EPOCH // 10"),
    ):
        text = before + "\n" + trainer(("save_steps=500", f"save_steps={value}"))
        assert ["too_often"] == seen(text), before
    spread = trainer(
        ("    save_steps=500,\n", "    **more,\n"), ("arguments =", "more = {'save_steps': 5}\narguments =")
    )
    assert "too_often" in seen(spread)
    assert [] == seen(
        "if quick:\n    SAVE = 5\nelse:\n    SAVE = 500\n" + trainer(("save_steps=500", "save_steps=SAVE"))
    )


def test_what_changes_nothing_is_said_and_is_no_finding() -> None:
    """A team's remedies for a slow run: flash switched on, TF32 on a GeForce, padding=False and more."""
    text = trainer(
        (
            "rows =",
            "torch.backends.cuda.matmul.allow_tf32 = True\ntorch.backends.cuda.enable_flash_sdp(True)\n"
            "torch.backends.cudnn.benchmark = True\nos.environ['TOKENIZERS_PARALLELISM'] = 'false'\n"
            "os.environ['MKL_THREADING_LAYER'] = 'GNU'\ntokenizer.padding_side = 'right'\nrows =",
        ),
        ("truncation=True", "truncation=True, padding=False, add_special_tokens=True"),
        (
            "dataloader_num_workers=4",
            "dataloader_num_workers=4, dataloader_pin_memory=True, dataloader_prefetch_factor=2",
        ),
    )
    report = audit.of_script("import os\nimport torch\n" + text, "train.py")
    assert () == report.findings
    said = "\n".join(report.without_effect)
    for what in (
        "enable_flash_sdp(True): it is on by default",
        "TF32",
        "cudnn.benchmark",
        "padding=False in the tokenizer",
        "add_special_tokens=True: the default",
        "dataloader_pin_memory=True",
        "dataloader_prefetch_factor=2",
        'padding_side = "right"',
        "TOKENIZERS_PARALLELISM=false",
        "MKL_THREADING_LAYER",
    ):
        assert what in said, what


def test_the_worst_comes_first() -> None:
    """What teaches the wrong thing, before what is slow, before what is worth knowing."""
    text = loop(
        (scripts.CAST, scripts.PLAIN), ("            optimizer.zero_grad(set_to_none=True)\n", ""), (", fused=True", "")
    )
    order = [finding.severity for finding in audit.of_script(text, "train.py").findings]
    assert ["error", "warning"] == order[:2]
    assert sorted(order, key=("error", "warning", "note").index) == order


def test_every_cause_that_is_named_is_in_the_catalogue_with_a_check() -> None:
    """No finding names a cause that the catalogue lacks; each says how it is confirmed."""
    for name, (text, _) in FAULTS.items():
        for finding in audit.of_script(text, "train.py").findings:
            assert finding.known.confirm, name
    assert all(cause.what and cause.confirm for cause in causes().values())


def test_the_page_of_causes_says_what_scripts_show() -> None:
    """`python -m ganeum.doctor.causes` would change nothing; what it says a script shows is held by a fault here, or
    needs a card's name."""
    assert page() == (Path(__file__).parents[2] / "docs" / "doctor_causes.md").read_text(encoding="utf-8")
    rows = [line.replace("\\|", "") for line in page().splitlines() if line.startswith("|")]
    assert {5} == {line.count("|") for line in rows}
    of_cards = {"bf16_emulated", "attention_kernel", "wrong_peak"}
    shown = {cause for text, _ in FAULTS.values() for cause in seen(text)} | of_cards
    assert {name for name, cause in causes().items() if "script" in cause.seen} == shown


def test_what_is_no_python_is_an_error_with_its_line() -> None:
    """Also a notebook."""
    with pytest.raises(DataError) as error:
        audit.of_script("for x in\n", "train.py")
    assert str(error.value).startswith("DataError: it is no Python that can be read: ")
    assert "where  train.py, line 1" in str(error.value)


def test_a_script_that_does_not_train_is_said_to() -> None:
    """Nothing is made up about it."""
    assert "no training is seen in it" in audit.of_script("print('hello')\n", "hello.py").headline
    flax = "import jax\nfrom flax import linen\nstate = state.apply_gradients(grads=jax.grad(loss)(state.params))\n"
    assert audit.of_script(flax, "flax.py").headline.endswith(
        "it is written for JAX, and only what trains with PyTorch is read"
    )
    converts = "import torch\n\ndef convert(path):\n    import tensorflow as tf\n    return tf.io.gfile(path)\n"
    assert "no training is seen in it" in audit.of_script(converts, "convert.py").headline


def test_our_own_and_the_library_s_files_make_no_traceback() -> None:
    """Of this project's files and the standard library's, thirty each can be read."""
    import os

    dice = random.Random(1)
    files = [
        *dice.sample(sorted(Path(audit.__file__).parents[1].rglob("*.py")), 30),
        *dice.sample(sorted(Path(os.__file__).parent.glob("*.py")), 30),
    ]
    for file in files:
        audit.of_script(file.read_text(encoding="utf-8"), file.name).json()


def test_pieces_of_scripts_make_no_traceback() -> None:
    """Lines taken out at random: it is read, or it is no Python."""
    dice = random.Random(1)
    for _ in range(150):
        text = dice.choice([case for pair in FAULTS.values() for case in pair])
        kept = "\n".join(line for line in text.split("\n") if dice.random() > 0.1)
        try:
            audit.of_script(kept, "train.py").text()
        except DataError:
            continue


def notebook(text: str) -> str:
    """A notebook with that code in its third cell, among text, magics, shell and another language."""
    cells = [
        {"cell_type": "markdown", "source": ["# Training\n", "loss.backward() happens below"]},
        {"cell_type": "code", "source": ["%load_ext autoreload\n", "!pip install transformers\n", "import os\n",
                                         "if True:\n", "    !nvidia-smi\n"]},
        {"cell_type": "code", "source": text.splitlines(keepends=True)},
        {"cell_type": "code", "source": "%%bash\nfor f in *; do echo $f; done"},
        {"cell_type": "code", "source": "this is no Python"},
        {"cell_type": "code", "source": ["model.generate?"]},
    ]  # fmt: skip
    return json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}})


@pytest.mark.parametrize("name", FAULTS)
def test_a_notebook_s_faults_are_seen_in_their_cells(name: str) -> None:
    """The same findings as in a script, each with its cell and the line in it."""
    text = FAULTS[name][0]
    plain = audit.of_script(text, "train.py").findings
    found = audit.of_script(notebook(text), "train.ipynb").findings
    assert [one.where and one.where.replace("train.py, ", "train.ipynb, cell 3, ") for one in plain] == [
        one.where for one in found
    ]


def test_a_notebook_without_python_is_refused() -> None:
    """And what is none at all, in words."""
    for text, said in (('{"cells": []}', "it has no cell with Python in it"), ("{", "it is no notebook")):
        with pytest.raises(DataError, match=said):
            audit.of_script(text, "train.ipynb")


def test_what_arithmetic_bounds_has_an_interval() -> None:
    """fp32 on an RTX 3090: at most its 71.2 TFLOPS in bf16 by 35.6; activations twice: 4 / 3; without a card none."""
    fp32 = trainer(("    bf16=True,\n", ""))
    (finding,) = [f for f in audit.of_script(fp32, "train.py", card("RTX 3090")).findings if f.cause == "fp32"]
    assert finding.interval == pytest.approx((1.0, 2.0), rel=0.01)
    assert "between 1 and 2 times as long" in finding.text()
    assert [None] == [f.interval for f in audit.of_script(fp32, "train.py").findings if f.cause == "fp32"]
    again = trainer(("bf16=True", "bf16=True, gradient_checkpointing=True"))
    assert [(1.0, 4 / 3)] == [f.interval for f in audit.of_script(again, "train.py").findings]
