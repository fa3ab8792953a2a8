"""Operands in another format are copied into the common one on a CPU: as many bytes as torch's profiler sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from ganeum.plan.trace.cpu_casts import inside

aten = torch.ops.aten
CASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "a sum in place": (aten.add_, (torch.zeros(64, 96), torch.zeros(64, 96, dtype=torch.bfloat16))),
    "a row onto a matrix": (aten.add_, (torch.zeros(64, 96), torch.zeros(96, dtype=torch.bfloat16))),
    "a product": (aten.mul, (torch.zeros(32, 96, dtype=torch.bfloat16), torch.zeros(32, 96))),
    "equal formats": (aten.add_, (torch.zeros(64, 96), torch.zeros(64, 96))),
    "a number on the device": (aten.mul_, (torch.zeros(64, 96), torch.zeros((), dtype=torch.float64))),
}


@pytest.mark.parametrize("name", CASES)
def test_copies_are_those_that_the_profiler_sees(name: str) -> None:
    packet, operands = CASES[name]
    packet(*operands)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = packet(*operands)
    assert seen.profiler is not None
    taken = [event.nbytes() for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    taken = [size for size in taken if size > 64]  # what is no larger is a number
    if not name.endswith("in place") and result is not operands[0]:
        taken.remove(result.nbytes)
    assert taken == inside(packet, operands, {})
