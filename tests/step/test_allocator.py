"""CUDA's segments grow where that is safe; what the user says in the environment holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ganeum.step import allocator
from ganeum.step.allocator import choose_expandable_segments, expand_segments


@pytest.fixture(autouse=True)
def plain_linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in allocator.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("platform.release", lambda: "6.8.0-generic")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(allocator, "TEGRA", tmp_path / "none")


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What torch is told."""
    told: list[str] = []
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", told.append)
    return told


def test_auto_is_yes_on_linux_with_a_gpu() -> None:
    """And a value in the config is obeyed."""
    assert (True, "fewer holes between tensors of changing sizes, at no cost") == choose_expandable_segments(
        "auto", "cuda"
    )
    assert (False, "as configured") == choose_expandable_segments(False, "cuda")


def test_elsewhere_it_is_no_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A CPU; a Jetson; WSL; ROCm; Windows: the reason names each."""
    assert (False, "only CUDA's allocator has them") == choose_expandable_segments(True, "cpu")
    monkeypatch.setattr(allocator, "TEGRA", tmp_path)
    assert choose_expandable_segments("auto", "cuda") == (False, "a Jetson's driver reports a full memory with them")
    monkeypatch.setattr("platform.release", lambda: "5.15.90.1-microsoft-standard-WSL2")
    expected = (False, "under WSL the driver can fail at the first allocation")
    assert expected == choose_expandable_segments("auto", "cuda")
    monkeypatch.setattr(torch.version, "hip", "6.3")
    assert choose_expandable_segments("auto", "cuda") == (False, "not measured on ROCm")
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("platform.system", lambda: "Windows")
    assert choose_expandable_segments("auto", "cuda") == (False, "torch has them on Linux, not on Windows")


@pytest.mark.parametrize("name", allocator.VARIABLES)
@pytest.mark.parametrize("value", ["max_split_size_mb:512", "expandable_segments:True,max_split_size_mb:512"])
def test_the_environment_holds(name: str, value: str, monkeypatch: pytest.MonkeyPatch, settings: list[str]) -> None:
    """Whatever the config says, and torch is told nothing: it would forget the user's other settings."""
    monkeypatch.setenv(name, value)
    for requested in (True, False, "auto"):
        assert (value.startswith("exp"), f"{name}={value} is set") == choose_expandable_segments(requested, "cuda")
    expand_segments(True)
    assert settings == []


def test_torch_is_told(settings: list[str]) -> None:
    """In its own spelling, before the first block or after."""
    expand_segments(True)
    expand_segments(False)
    assert settings == ["expandable_segments:True", "expandable_segments:False"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_a_gpus_next_block_grows() -> None:
    """torch's own snapshot calls a segment that is taken afterwards expandable."""
    torch.cuda.empty_cache()
    expand_segments(True)
    try:
        tensor = torch.empty(64 << 20, device="cuda")
        assert any(segment["is_expandable"] for segment in torch.cuda.memory_snapshot())
        del tensor
    finally:
        expand_segments(False)
        torch.cuda.empty_cache()
