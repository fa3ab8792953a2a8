"""Compiled code is traced with Inductor's own fusion, padding and memory plan, and torch is afterwards as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from ganeum.config import Config
from ganeum.errors import DeviceError
from ganeum.hardware.device import Device
from ganeum.plan import execution
from ganeum.plan.trace.events import Allocation, Event, Trace, live
from ganeum.plan.trace.inductor import ASSUMED, compiling_for, properties
from ganeum.plan.trace.operations import Operations
from ganeum.plan.trace.recorder import Recorder
from ganeum.plan.trace.roofline import FUSED
from ganeum.plan.trace.step import stage, trace

pytestmark = pytest.mark.slow

A100 = Device("NVIDIA A100-SXM4-80GB", "cuda", memory_gib=80, usable_gib=79, capability=(8, 0))
MIB = 2**20


@contextmanager
def compiling(launched: Callable[..., None] = lambda *_: None) -> Iterator[Recorder]:
    with stage(A100) as scene, compiling_for(A100, launched), torch.device("cuda"):
        yield scene.recorder


def is_workspace(event: Event) -> bool:
    return isinstance(event, Allocation) and event.kind == "workspace"


def sizes(recorder: Recorder) -> list[int]:
    return [event.bytes for event in recorder.events if isinstance(event, Allocation) and not is_workspace(event)]


def test_a_chain_of_passes_is_one_buffer() -> None:
    """Four operations make four results of 4 MiB; compiled they are one kernel, which makes one."""

    def chain(x: Tensor) -> Tensor:
        return ((x.sin() + 1).cos() * 2).relu()

    kernels: list[tuple[Any, ...]] = []
    with compiling(lambda *given: kernels.append(given)) as recorder:
        x = torch.empty(1024, 1024)
        with recorder, torch.no_grad():
            torch.compile(chain)(x)
    assert sizes(recorder) == [4 * MIB]
    assert len(kernels) == 1


def test_a_pass_takes_the_memory_of_what_it_is_of() -> None:
    """Three products and three passes make six results; compiled, each pass writes where the product lies, which
    nobody needs any more."""

    def twice(x: Tensor, w: Tensor) -> Tensor:
        return (((x @ w).relu() @ w).relu() @ w).relu()

    with compiling() as recorder:
        x, w = torch.empty(512, 512), torch.empty(512, 512)
        with recorder, torch.no_grad():
            torch.compile(twice)(x, w)
    assert sizes(recorder) == 3 * [MIB]
    assert max(live(event for event in recorder.events if not is_workspace(event))) == 2 * MIB


def test_a_product_is_padded_to_the_alignment_of_tensor_cores() -> None:
    """50,257 columns in bf16 become 50,264, a multiple of eight; 50,304 already are one. The padded weight's rows begin
    at multiples of 128 bytes (Inductor's ``padding_alignment_bytes``), so every 50,304 numbers."""

    def product(x: Tensor, w: Tensor) -> Tensor:
        return x @ w

    found = {}
    for columns in (50_257, 50_304):
        with compiling() as recorder:
            x, w = (torch.empty(size, dtype=torch.bfloat16) for size in ((2048, 768), (768, columns)))
            with recorder, torch.no_grad():
                torch.compile(product)(x, w)
        found[columns] = sizes(recorder)
    assert found[50_257] == [2 * (767 * 50_304 + 50_264), 2 * 2048 * 50_264]
    assert found[50_304] == [2 * 2048 * 50_304]


def step(compiled: bool, operations: Operations | None = None, checkpointing: str = "none") -> Trace:
    config = Config.model_validate(
        {
            "name": "compiled",
            "device": "cpu",
            "model": {"n_layer": 2, "n_head": 2, "n_embd": 128, "block_size": 256, "vocab_size": 512},
            "train": {
                "batch_size": 64,
                "micro_batch_size": 64,
                "precision": "bf16",
                "compile": compiled,
                "loss_chunk": 512,
                "activation_checkpointing": checkpointing,
            },
        }
    )
    return trace(config, A100, execution.of(config, A100, 64), operations)


def test_a_compiled_step_keeps_less_for_the_backward_pass() -> None:
    """The run's own step: both kinds of kernels are seen, weights and state are as they are uncompiled, and what is
    kept beside them is less. What could not be known is said."""
    operations = Operations()
    plain, compiled = step(False), step(True, operations)
    kept = {}
    for name, found in (("plain", plain), ("compiled", compiled)):
        kinds: dict[str, int] = {}
        for event in found.events[: found.steps[1]]:
            if isinstance(event, Allocation) and event.kind in ("weights", "optimizer"):
                kinds[event.kind] = kinds.get(event.kind, 0) + event.bytes
        kept[name] = kinds
    assert kept["compiled"] == kept["plain"]
    assert max(live(compiled.events)) < max(live(plain.events))
    assert compiled.uncertain == (ASSUMED,)
    assert plain.uncertain == ()
    assert {event.source.split("/")[0] for event in compiled.events if isinstance(event, Allocation)} <= {"ganeum", ""}
    assert any(one.name == FUSED for one in operations.counts)
    assert any(one.flops and one.phase == "backward" for one in operations.counts)


def test_what_is_computed_twice_is_compiled() -> None:
    """Checkpoints stay within the one graph: nothing that watches the step breaks it."""
    torch._dynamo.utils.counters.clear()
    found = step(True, checkpointing="whole")
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert max(live(found.events)) < max(live(step(False, checkpointing="none").events))


def test_no_driver_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build of torch with CUDA has the functions that generated code calls, and would look for a driver."""

    def driver(index: int) -> int:
        raise AssertionError(f"CUDA was asked for device {index}")

    for name in ("_cuda_getCurrentRawStream", "_cuda_getDevice", "_cuda_setDevice", "_cuda_exchangeDevice"):
        monkeypatch.setattr(torch._C, name, driver, raising=False)
    with compiling() as recorder:
        x = torch.empty(1024, 1024)
        with recorder, torch.no_grad():
            torch.compile(lambda x: x.sin() + 1)(x)
    assert sizes(recorder) == [4 * MIB]
    assert torch._C._cuda_getCurrentRawStream is driver


def test_torch_is_afterwards_as_it_was() -> None:
    """Nobody who comes later finds a GPU, silent kernels or other settings."""
    from torch._dynamo import device_interface
    from torch._inductor import async_compile, config
    from torch._inductor.fx_passes import pad_mm

    device_interface.get_interface_for_device("cpu")
    before = (
        torch.cuda.is_available(),
        torch.cuda.get_device_properties,
        async_compile.AsyncCompile.triton,
        pad_mm._should_pad,
        config.compile_threads,
        device_interface.device_interfaces["cuda"],
    )
    with contextlib.suppress(ZeroDivisionError), compiling():
        assert torch.cuda.is_available()
        raise ZeroDivisionError
    assert before == (
        torch.cuda.is_available(),
        torch.cuda.get_device_properties,
        async_compile.AsyncCompile.triton,
        pad_mm._should_pad,
        config.compile_threads,
        device_interface.device_interfaces["cuda"],
    )


def test_a_card_that_triton_has_no_kernels_for_is_refused() -> None:
    p100 = Device("Tesla P100-PCIE-16GB", "cuda", memory_gib=16, usable_gib=15, capability=(6, 0))
    with pytest.raises(DeviceError) as refused, compiling_for(p100):
        pass
    assert str(refused.value) == (
        "DeviceError: torch.compile makes no kernels for Tesla P100-PCIE-16GB\n"
        "  where  compute capability 6.0\n"
        "  why    Triton's kernels need 7.0 or later\n"
        "  try    train.compile: false"
    )


def test_inductor_hears_of_the_cards_own_multiprocessors() -> None:
    """NVIDIA A100 Tensor Core GPU Architecture: 108 SMs, 40 MiB of L2; GA10x whitepaper: RTX 3090 has 82, each with
    1,536 threads."""
    assert properties(A100).multi_processor_count == 108
    ampere = Device("NVIDIA GeForce RTX 3090", "cuda", memory_gib=24, usable_gib=23, capability=(8, 6))
    assert properties(ampere).multi_processor_count == 82
    assert properties(ampere).max_threads_per_multi_processor == 1536
