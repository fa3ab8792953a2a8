"""Precision, compiling and the allocator: what is chosen, and the reason that goes with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ganeum.hardware import machine
from ganeum.hardware.device import Device
from ganeum.step import compile as compilation
from ganeum.step import precision
from ganeum.step.allocator import keep_freed_memory

CARD = Device("some GPU", "cuda", 24.0, 23.0, here=True, capability=(8, 0))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A pretended GPU that says it supports bf16, as torch does even of a V100."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "some GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    return monkeypatch


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((6, 0), "fp32"), ((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((8, 9), "bf16"), ((9, 0), "bf16")],
)
def test_a_gpu_gets_what_its_tensor_cores_compute(
    gpu: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    """P100 none, V100 and T4 fp16, A100 on bf16 (NVIDIA's tensor core tables), with the capability in the reason."""
    gpu.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    value, reason = precision.choose("auto", "cuda")
    assert value == expected
    assert reason.startswith("some GPU")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("avx512f avx512_bf16", "bf16"), ("amx_tile amx_bf16 amx_int8", "bf16"), ("avx2 avx512f", "fp32")],
)
def test_a_cpu_gets_bf16_only_with_a_unit_for_it(monkeypatch: pytest.MonkeyPatch, flags: str, expected: str) -> None:
    """The kernel's flags tell, whatever torch says, and a plan's device goes by the same."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: expected == "fp32", raising=False)
    say(monkeypatch, f"flags\t\t: fpu {flags}\n")
    assert precision.choose("auto", "cpu")[0] == machine.cpu().fast_precision == expected


def say(monkeypatch: pytest.MonkeyPatch, content: str | None) -> None:
    """Lets /proc/cpuinfo hold `content`, or not be there."""
    read = Path.read_text

    def pretended(path: Path, *args: Any, **keys: Any) -> str:
        if path != Path("/proc/cpuinfo"):
            return read(path, *args, **keys)
        if content is None:
            raise FileNotFoundError(path)
        return content

    monkeypatch.setattr(Path, "read_text", pretended)


@pytest.mark.parametrize("native", [True, False])
def test_without_the_kernels_flags_torch_is_asked(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    """As on Windows, where /proc/cpuinfo is not: by the run and by the plan alike."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    say(monkeypatch, None)
    expected = "bf16" if native else "fp32"
    assert precision.choose("auto", "cpu")[0] == machine.cpu().fast_precision == expected


def test_a_configured_precision_is_obeyed() -> None:
    """No device is asked."""
    assert precision.choose("fp16", "cpu") == ("fp16", "as configured")


def test_only_tf32_rounds_fp32_products() -> None:
    """torch's own switch says so after apply()."""
    before = torch.get_float32_matmul_precision()
    try:
        for value, expected in (("tf32", "high"), ("fp32", "highest"), ("bf16", "highest")):
            precision.apply(value)  # type: ignore[arg-type]
            assert torch.get_float32_matmul_precision() == expected
    finally:
        torch.set_float32_matmul_precision(before)


def test_compiling_is_chosen_when_it_saves_more_than_it_costs(gpu: pytest.MonkeyPatch) -> None:
    """60 s against a quarter of the steps' time: 2,000 steps of 100 ms save 50 s, 3,000 save 75 s; the reason tells."""
    gpu.setattr(compilation, "missing_for_cuda", lambda _: None)
    assert not compilation.choose("auto", steps=2_000, step_s_estimate=0.1, device=CARD)[0]
    value, reason = compilation.choose("auto", steps=3_000, step_s_estimate=0.1, device=CARD)
    assert value
    assert reason == (
        "3,000 steps of about 100 ms: compiling takes about 1 min 0 s "
        "and saves about 25% of each step, 1 min 15 s in all"
    )


def test_what_compiling_lacks_is_named(gpu: pytest.MonkeyPatch) -> None:
    """Without a C compiler the reason says so."""
    gpu.setattr(compilation.shutil, "which", lambda _: None)
    gpu.setattr(compilation.importlib.util, "find_spec", lambda _: True)
    gpu.setattr(sys, "platform", "linux")
    value, reason = compilation.choose("auto", steps=10**6, step_s_estimate=1.0, device=CARD)
    assert (value, reason) == (False, "torch.compile needs a C compiler (cc, gcc or clang) here")


def test_a_cpu_does_not_compile_unless_told() -> None:
    """However long the run is; a configured value is obeyed."""
    assert not compilation.choose("auto", steps=10**9, step_s_estimate=9.0, device=machine.cpu())[0]
    assert compilation.choose(True, steps=1, step_s_estimate=None, device=machine.cpu()) == (True, "as configured")


KEEP = """
import resource
from ganeum.step.allocator import keep_freed_memory
said = keep_freed_memory()
import torch
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.zeros(4_000_000)  # 16 MB, freed at once: 4,000 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(said is not None, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_kept() -> None:
    """20 times 16 MB are faulted in once, not 20 times (80,000 pages), in a process of its own."""
    if keep_freed_memory() is None:
        pytest.skip("not glibc")
    done = subprocess.run([sys.executable, "-c", KEEP], capture_output=True, text=True, check=True)
    said, faults = done.stdout.split()
    assert said == "True"
    assert int(faults) < 5_000


def test_on_another_system_the_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is loaded, None is said."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is None
