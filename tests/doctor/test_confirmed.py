"""Causes that only a GPU can confirm are labelled, until one was measured here."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganeum.doctor import audit
from ganeum.doctor.confirmed import Seen, file, labelled, remember
from ganeum.doctor.finding import Finding
from ganeum.hardware.device import Device

SLOW = Finding(cause="fp32", title="everything is computed in fp32", change="bf16=True")
CARD = Device("GeForce RTX 3090", "cuda", 24.0, 23.0)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path))


def test_what_only_a_gpu_can_confirm_says_so_until_it_was_measured_there() -> None:
    """The driver's name of the card and the catalogue's are one; another card stays unconfirmed."""
    text = labelled(SLOW, CARD).text()
    assert "size   not known before it is measured (unconfirmed here)" in text
    assert "others T5-base on an A100" in text
    assert "check  20 steps each with and without autocast(bf16), by turns" in text
    assert remember("NVIDIA GeForce RTX 3090", {"fp32": Seen(2.5, 2.4, 2.6, "a GPT-2 of 6 layers", "2026-11-22")})
    text = labelled(SLOW, CARD).text()
    assert "2.5 (2.4 to 2.6) times, a GPT-2 of 6 layers on this GPU, 2026-11-22 (measured)" in " ".join(text.split())
    assert "check" not in text
    assert labelled(SLOW, Device("GeForce RTX 4090", "cuda", 24.0, 23.0)).sure == "unconfirmed here"
    assert labelled(SLOW, None).sure == "unconfirmed here"


def test_nothing_else_is_labelled() -> None:
    """Other causes, sizes that were computed, and CPUs keep what they say."""
    other = Finding(cause="pad_is_eos", title="the end is never learnt")
    computed = Finding(cause="fp32", title="fp32", sure="computed", size=2.0, unit="times")
    assert [other, computed, SLOW] == [
        labelled(other, CARD),
        labelled(computed, CARD),
        labelled(SLOW, Device("AMD EPYC", "cpu", 8.0, 8.0)),
    ]


def test_a_file_that_cannot_be_read_was_never_measured() -> None:
    """Half a file, another layout: unconfirmed, and no traceback."""
    for text in ("{", "[]", '{"GeForce RTX 3090": {"fp32": {"times": 2}}}', '{"GeForce RTX 3090": []}'):
        file().write_text(text, encoding="utf-8")
        assert labelled(SLOW, CARD).sure == "unconfirmed here"
    assert remember("GeForce RTX 3090", {"fp32": Seen(2.5, 2.4, 2.6, "x", "2026-11-22")})


def test_the_label_reaches_an_audit() -> None:
    """Of a script that computes in fp32."""
    script = "from transformers import Trainer, TrainingArguments\nTrainer(m, TrainingArguments('out')).train()\n"
    found = {one.cause: one.sure for one in audit.of_script(script, "train.py", CARD).findings}
    assert found["fp32"] == "unconfirmed here"
