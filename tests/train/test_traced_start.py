"""On a GPU a run's micro-batch is what a trace says fits, and its plan is traced; on a CPU neither is."""

from __future__ import annotations

from typing import Any

import pytest

from ganeum.config import Config
from ganeum.config.schema import Model, Train
from ganeum.hardware.card import card
from ganeum.plan.trace import exact
from ganeum.train import resolve
from ganeum.train.resolve import MICRO, Choices

CARD = card("Small Card: 3GB, bf16 30 TFLOPS, bandwidth 300 GB/s")
RUN = Config(
    name="small",
    model=Model(n_layer=3, n_head=4, n_embd=256, block_size=256, vocab_size=4096),
    train=Train(batch_size=960, max_iters=10, compile=False),
)


def chosen(config: Config) -> dict[str, Any]:
    choices = Choices(exact.change(config, {"device": "cuda"}), [], CARD)
    resolve._step(choices, CARD)
    return {one["key"]: one for one in choices.reasons}


def test_the_micro_batch_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace's answer takes the estimate's place, with its reason; where there is none, the estimate stays."""
    asked: list[Config] = []

    def micro_batch(config: Config, device: object) -> tuple[int, str] | None:
        asked.append(config)
        return (160, "the largest that fits: 170 would, traced for this GPU") if len(asked) == 1 else None

    monkeypatch.setattr(exact, "micro_batch", micro_batch)
    traced = chosen(RUN)[MICRO]
    assert (160, "the largest that fits: 170 would, traced for this GPU") == (traced["value"], traced["reason"])
    assert isinstance(asked[0].train.micro_batch_size, int)
    estimate = chosen(RUN)[MICRO]
    assert "traced" not in estimate["reason"]
    assert len(asked) == 2


@pytest.mark.parametrize("settings", [{"train.trace_memory": False}, {"train.micro_batch_size": 8}])
def test_nothing_is_traced_unasked(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    """Not with train.trace_memory: false, and not for a size that is given."""
    monkeypatch.setattr(exact, "micro_batch", lambda *_: pytest.fail("traced"))
    chosen(exact.change(RUN, settings))


def test_a_batch_that_fits_whole_is_not_traced() -> None:
    """Nothing could be gained: no process is started."""
    whole = exact.change(RUN, {"train.micro_batch_size": 960})
    assert exact.micro_batch(whole, CARD) is None
