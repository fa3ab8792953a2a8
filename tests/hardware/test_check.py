"""Torch, driver and GPU: what does not go together is named before a kernel fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganeum.errors import DeviceError
from ganeum.hardware import check
from ganeum.hardware.check import Installed, check_torch, has_code, mismatch, pip_line

ROOT = Path(__file__).parent.parent.parent
# torch.cuda.get_arch_list() of the builds on PyPI and pytorch.org (pytorch/pytorch RELEASE.md, CUDA support matrix)
CU126 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
CU130 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")

V100 = ("Tesla V100-SXM2-16GB", (7, 0))
RTX_3080 = ("NVIDIA GeForce RTX 3080", (8, 6))
RTX_5090 = ("NVIDIA GeForce RTX 5090", (12, 0))


def with_cuda_13(driver: str, gpu: tuple[str, tuple[int, int]]) -> Installed:
    return Installed("2.13.0+cu130", "13.0", CU130, driver, (gpu,))


def test_a_v100_with_pypis_torch() -> None:
    """Document 004's V100 has no code in a CUDA 13 build; the error says so and names the build that has."""
    found = mismatch(with_cuda_13("580.65.06", V100), "cuda")
    assert str(found) == (
        "DeviceError: torch 2.13.0+cu130 has no code for Tesla V100-SXM2-16GB (compute capability 7.0)\n"
        "  where  device: cuda\n"
        "  why    it was built for sm_75 sm_80 sm_86 sm_90 sm_100 sm_120 compute_120; "
        "docs/install.md has the table of GPUs, drivers and builds\n"
        "  try    pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cu126"
    )


def test_document_000s_driver() -> None:
    """Document 000's driver 576.88 is too old for a CUDA 13 build, whatever the GPU can do."""
    found = mismatch(with_cuda_13("576.88", RTX_5090), "auto")
    assert str(found) == (
        "DeviceError: torch 2.13.0+cu130 needs an NVIDIA driver of 580 or later, and this one is 576.88\n"
        "  where  NVIDIA GeForce RTX 5090 (compute capability 12.0)\n"
        "  why    it was built with CUDA 13.0; docs/install.md has the table of GPUs, drivers and builds\n"
        "  try    pip install torch==2.11.0 --index-url https://download.pytorch.org/whl/cu128 "
        "(or a driver of 580 or later)"
    )


def test_a_torch_without_cuda_beside_a_gpu() -> None:
    """With `auto` the run goes on on the CPU, and says what it leaves unused; with `cuda` it is refused."""
    installed = Installed("2.13.0+cpu", None, (), "580.65.06", (RTX_3080,))
    what = "torch 2.13.0+cpu was built without CUDA and cannot use the NVIDIA GeForce RTX 3080 in this machine"
    line = "pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cu130"
    assert f"{what}; training on the CPU. To use it: {line}" == mismatch(installed, "auto")
    refused = mismatch(installed, "cuda")
    assert isinstance(refused, DeviceError)
    assert (what, line) == (refused.what, refused.suggestion)


@pytest.mark.parametrize(
    ("installed", "device"),
    [
        (with_cuda_13("580.65.06", RTX_3080), "auto"),
        (with_cuda_13("610.57", RTX_5090), "cuda:0"),
        (Installed("2.13.0+cu126", "12.6", CU126, "525.60.13", (V100,)), "cuda"),
        (Installed("2.13.0+cpu", None, (), None, ()), "auto"),
        (Installed("2.13.0+cpu", None, (), "580.65.06", (RTX_3080,)), "cpu"),
        (with_cuda_13("576.88", RTX_5090), "cpu"),
    ],
)
def test_what_goes_together_is_left_alone(installed: Installed, device: str) -> None:
    """A working set is not complained about, and with `device: cpu` no GPU is."""
    assert mismatch(installed, device) is None


@pytest.mark.parametrize(
    ("expected", "architectures", "capability"),
    [
        (True, CU126, (7, 0)),
        (False, CU130, (7, 0)),
        (True, CU126, (8, 9)),  # code for 8.6 runs on 8.9
        (True, CU126, (6, 1)),
        (False, CU126, (12, 0)),  # no PTX in that build
        (True, CU130, (12, 1)),
        (True, CU130, (13, 0)),  # by compiling compute_120 when loaded
        (False, ("sm_90a",), (9, 1)),
        (True, ("sm_90a",), (9, 0)),
        (False, ("sm_86",), (8, 0)),
        (False, (), (8, 0)),
    ],
)
def test_which_code_runs_where(expected: bool, architectures: tuple[str, ...], capability: tuple[int, int]) -> None:
    """CUDA's rule: the same major number and no smaller a minor one, or PTX of an older capability."""
    assert expected == has_code(architectures, capability)


CU = "pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/"


@pytest.mark.parametrize(
    ("expected", "capability", "driver"),
    [
        (CU + "cu126", (7, 0), "580.65.06"),
        (CU + "cu130", (7, 5), "580.65.06"),
        (CU + "cu126", (8, 6), "550.54.14"),
        (CU + "cu130", (12, 0), "595.71.05"),
        ("a driver of 580 or later first", (12, 0), "551.61"),
        ("a newer driver first (580 or later, 525 at least)", (8, 0), "470.82.01"),
        ("none: no torch that ganeum runs on has code for this GPU; device: cpu works", (3, 7), "470.82.01"),
    ],
)
def test_the_build_for_a_gpu_and_its_driver(expected: str, capability: tuple[int, int], driver: str) -> None:
    """docs/install.md's table as a function."""
    assert expected == pip_line(capability, driver)


def test_the_version_is_the_pinned_one() -> None:
    """The torch that an error tells to install is the one that constraints.txt pins."""
    assert f"torch=={check.TORCH}\n" in (ROOT / "constraints.txt").read_text()


def test_this_machine() -> None:
    """Whatever machine runs the tests, its CPU can be used."""
    assert check_torch("cpu") is None
