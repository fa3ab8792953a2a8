"""The device of a run: found with torch and without it, alike."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ganeum.errors import DeviceError
from ganeum.hardware import Device, detect, look, machine, measure_peak, nvml, peaks, with_measured_peak
from ganeum.hardware.nvml import Nvidia, NvidiaGpu

CARDS = (
    NvidiaGpu(0, "GPU-aaaa-1", "NVIDIA GeForce RTX 3080", 10.0, 9.5, (8, 6)),
    NvidiaGpu(1, "GPU-bbbb-2", "Tesla T4", 15.0, 14.6, (7, 5)),
)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two NVIDIA cards and a torch that can use them, as NVML would describe it."""
    monkeypatch.setattr(nvml, "read", lambda: Nvidia("580.65.06", CARDS))
    monkeypatch.setattr(peaks, "torch_version", lambda: "2.13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_the_cpu_is_the_same_with_and_without_torch() -> None:
    """`detect` and `look` agree on a CPU, and what is usable of its memory is not more than there is."""
    seen, looked = detect("cpu"), look("cpu")
    assert ("cpu", seen.name, seen.memory_gib) == (looked.kind, looked.name, looked.memory_gib)
    assert 0 < seen.usable_gib < seen.memory_gib
    assert seen.torch_name == "cpu"


def test_what_nvml_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML's answers become cards in GiB; one that has fallen off the bus is left out and said to be, an old binding's
    bytes are read, and the session is closed."""
    import pynvml  # type: ignore[import-untyped]

    closed: list[bool] = []

    def handle(index: int) -> int:
        if index == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: closed.append(True),
        "nvmlSystemGetDriverVersion": lambda: b"576.88",
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": handle,
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=12_227 * 2**20, free=11_203 * 2**20),
        "nvmlDeviceGetCudaComputeCapability": lambda handle: (12, 0),
        "nvmlDeviceGetUUID": lambda handle: "GPU-cccc-3",
        "nvmlDeviceGetName": lambda handle: b"NVIDIA GeForce RTX 5070",
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.setattr(nvml, "has_library", lambda: True)
    card = NvidiaGpu(0, "GPU-cccc-3", "NVIDIA GeForce RTX 5070", 12_227 / 1024, 11_203 / 1024, (12, 0))
    assert Nvidia("576.88", (card,), ("GPU 1 cannot be asked: GPU is lost",)) == nvml.read()
    assert closed == [True]


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_comes_with_its_peak() -> None:
    """The first GPU is taken, with the catalogue's peaks, and `cuda:1` is the second."""
    first, second = look("auto"), look("cuda:1")
    assert ("NVIDIA GeForce RTX 3080", 59.5e12, "bf16") == (first.name, first.peak("bf16"), first.fast_precision)
    assert ("cuda:1", 65e12, "fp16") == (second.torch_name, second.peak("fp16"), second.fast_precision)
    assert second.peak("bf16") is None
    assert 9.5 - first.usable_gib == pytest.approx(machine.CUDA_CONTEXT_GIB)


@pytest.mark.usefixtures("two_gpus")
def test_an_absent_gpu_is_named_with_those_there_are() -> None:
    """`cuda:2` of two GPUs is refused, with the list."""
    with pytest.raises(DeviceError) as caught:
        look("cuda:2")
    assert str(caught.value) == (
        "DeviceError: device 'cuda:2' is not in this machine\n"
        "  where  device\n"
        "  why    there is cuda:0 (NVIDIA GeForce RTX 3080), cuda:1 (Tesla T4), and the CPU\n"
        "  try    device: auto takes the first GPU, or the CPU where there is none"
    )


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:one", "cpu:1", ""])
def test_a_name_that_is_no_device(device: str) -> None:
    """A word that names no device is refused with the words that do, by both."""
    for ask in (look, detect):
        with pytest.raises(DeviceError) as caught:
            ask(device)
        assert str(caught.value) == (
            f"DeviceError: device {device!r} is not one that ganeum knows\n"
            "  where  device\n"
            "  try    auto, cpu, cuda, cuda:1 (the second GPU) or mps"
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu() -> None:
    """`cuda:1` where torch sees no GPU is refused."""
    with pytest.raises(DeviceError, match="device 'cuda:1' is not in this machine"):
        detect("cuda:1")


@pytest.mark.parametrize(
    ("expected", "variable"),
    [
        ([0, 1], None),
        ([1], "1"),
        ([1, 0], "1,0"),
        ([], ""),
        ([], "-1"),
        ([1], "GPU-bbbb"),
        ([0], "0,7,1"),  # what follows the first that does not exist is hidden, as in CUDA
    ],
)
def test_cuda_visible_devices(expected: list[int], variable: str | None) -> None:
    """The cards are those that CUDA would show to the process, in its order."""
    environment = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    assert expected == [gpu.index for gpu in nvml.visible(CARDS, environment)]


def test_a_measured_peak_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A CPU's peak is measured, found again without torch, and a slower measurement later does not lower it."""
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(peaks, "SECONDS", 0.02)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cpu = look("cpu")
    assert cpu.peak("fp32") is None
    before = torch.get_rng_state()
    measured = with_measured_peak(cpu, "fp32")
    assert torch.equal(before, torch.get_rng_state())
    rate = measured.peak("fp32")
    assert rate is not None
    assert 1e8 < rate < 1e15
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    assert {"fp32": rate} == peaks.remembered(cpu.name)
    peaks.remember(peaks._file(), {peaks._key(cpu.name, torch.get_num_threads()): {"fp32": 1e30}})
    assert measure_peak("fp32", cpu.name) == 1e30


def test_a_slow_format_is_measured_quickly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """fp16 at 0.7 GFLOP/s, as a CPU emulates it, takes less than half a second to measure, and is measured right."""
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path))
    clock = [0.0]

    def emulated(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
        clock[0] += 2 * left.numel() * right.shape[1] / 0.7e9

    monkeypatch.setattr(torch, "mm", emulated)
    monkeypatch.setattr(peaks.time, "perf_counter", lambda: clock[0])
    assert measure_peak("fp16", "a CPU") == pytest.approx(0.7e9)
    assert clock[0] < 0.5


def test_a_gpus_peak_is_not_measured() -> None:
    """A GPU keeps the catalogue's peak, or none."""
    gpu = Device("a GPU", "cuda", memory_gib=1, usable_gib=1)
    assert with_measured_peak(gpu, "bf16") is gpu


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the cache's place is taken by a file, measuring works all the same."""
    (tmp_path / "cache").write_text("not a directory")
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(peaks, "SECONDS", 0.01)
    assert measure_peak("fp32", "a CPU") > 0
