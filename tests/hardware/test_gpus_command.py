"""`ganeum gpus`: the catalogue, one card with its sources, and what is in this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ganeum.cli import main
from ganeum.cli.examples import refreshed
from ganeum.hardware import Device, catalogue, detect, nvml, peaks, rates
from ganeum.hardware.nvml import Nvidia, NvidiaGpu
from ganeum.hardware.rates import Rates
from ganeum.train import calibrate, operation_rates


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a known card and one that nobody has heard of."""
    cards = (
        NvidiaGpu(0, "GPU-a", "NVIDIA GeForce RTX 4090", 24564 / 1024, 23.0, (8, 9)),
        NvidiaGpu(1, "GPU-b", "NVIDIA RTX 9999", 47.0, 46.6, (13, 0)),
    )
    monkeypatch.setattr(nvml, "read", lambda: Nvidia("580.65.06", cards))
    monkeypatch.setattr(peaks, "torch_version", lambda: "2.13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("GANEUM_CACHE", str(tmp_path))


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["gpus", *arguments])
    assert not end.value.code
    return "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())


def test_one_card_with_its_sources(capsys: pytest.CaptureFixture[str]) -> None:
    """Every figure of a card stands with the number of its source."""
    assert said(capsys, "h100", "sxm") == (
        "H100 SXM5 80GB\n"
        "for tensors                    78.6 GiB  of 79.6; the rest: driver, CUDA\n"
        "dense peak in fp32            67 TFLOPS  [1]\n"
        "dense peak in tf32         494.5 TFLOPS  [1]\n"
        "dense peak in fp16           989 TFLOPS  [1]\n"
        "dense peak in bf16           989 TFLOPS  [1]\n"
        "streaming multiprocessors           132  [2]\n"
        "clock of these peaks          1,830 MHz  [3]\n"
        "memory, says the driver      81,559 MiB  [4]\n"
        "of it kept by the driver        480 MiB  [4]\n"
        "memory bandwidth             3,350 GB/s  [1]\n"
        "power                             700 W  [1]\n"
        "compute capability                  9.0\n"
        "fp32 counted at 1,980 MHz, tensor cores at 1,830\n"
        "[1] NVIDIA's data sheets, as listed by github.com/stas00/ml-engineering compute/accelerator (2026-08)\n"
        "[2] https://www.techpowerup.com/gpu-specs/h100-sxm5-80-gb.c3900, as carried by RightNow-GPU-Database "
        "(77fae38, 2026-02)\n"
        "[3] the clock that gives the published tensor peak (published TFLOPS ÷ SMs ÷ FLOP per clock and SM)\n"
        "[4] nvidia-smi on such a card, driver 580.105.08, whole output captured\n"
    )


def test_an_uncertain_card_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """A laptop's card is shown as a range, with what to type where it is."""
    text = said(capsys, "4090 laptop")
    assert "56.6–79.4 TFLOPS" in text
    assert "80–150 W" in text
    assert "ganeum gpus --measure" in text


def test_the_page_shows_what_is_printed() -> None:
    """Every command of docs/gpus.md prints what stands there: python -m ganeum.cli.examples docs/gpus.md."""
    root = Path(__file__).parents[2]
    page = (root / "docs" / "gpus.md").read_text(encoding="utf-8")
    assert page.count("```console") == 2
    assert refreshed(page, root) == page


def test_several_names(capsys: pytest.CaptureFixture[str]) -> None:
    """A name for several cards shows all of them, several names each of theirs."""
    found = json.loads(said(capsys, "RTX 3080", "T4", "--json"))
    assert ["GeForce RTX 3080 10GB", "GeForce RTX 3080 12GB", "Tesla T4"] == [gpu["name"] for gpu in found["gpus"]]


def test_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    """A card that is not there is an error with the nearest names, exit status 2."""
    with pytest.raises(SystemExit) as end:
        main(["gpus", "4099"])
    assert end.value.code == 2
    assert "try    GeForce RTX 4090 or GeForce RTX 4090 D or GeForce RTX 5090 or with" in capsys.readouterr().err


def test_the_whole_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every card stands in the table, 80 columns wide, and in the JSON every number with its source."""
    monkeypatch.setenv("COLUMNS", "80")
    text = said(capsys)
    assert max(map(len, text.splitlines())) <= 80
    for gpu in catalogue.gpus():
        assert gpu.name.split()[-1] in text
    assert "68 ±17%" in text
    found = json.loads(said(capsys, "--json"))
    assert len(catalogue.gpus()) == len(found["gpus"])
    for gpu in found["gpus"]:
        for figure in [*gpu["figures"].values(), *gpu["tflops"].values()]:
            assert figure["source"]
    assert found["here"]["devices"][-1]["kind"] == "cpu"


@pytest.mark.usefixtures("two_gpus")
def test_what_is_in_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """A known card has the catalogue's rates, an unknown one its memory alone, until either is measured."""
    text = said(capsys)
    assert "In this machine, NVIDIA driver 580.65.06:\n" in text
    assert (
        "  cuda:0  NVIDIA GeForce RTX 4090: 22.4 of 24.0 GiB usable\n          not measured; the catalogue says" in text
    )
    assert (
        "  cuda:1  NVIDIA RTX 9999: 46.0 of 47.0 GiB usable\n"
        "          not in the catalogue, not measured: ganeum gpus --measure\n"
    ) in text
    rates.remember("NVIDIA RTX 9999", None, Rates("2026-11-21", {"products": {"bf16": 1e-15}}, 0.05))
    assert "46.0 of 47.0 GiB usable\n          measured on 2026-11-21\n" in said(capsys)


def test_measuring(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """--measure measures the device that a run would take, and says how well that went; a CPU's operations too, here in
    steps of the smallest models, and keeps what they take."""
    measured: list[str] = []

    def measure(device: Device) -> Rates:
        measured.append(device.kind)
        return Rates("2026-11-21", {}, 0.07)

    monkeypatch.setattr(calibrate, "calibrate", measure)
    monkeypatch.setattr(operation_rates, "CASES", [(1, 2, 16, 8, 64, 2, more) for *_, more in operation_rates.CASES])
    with pytest.raises(SystemExit) as end:
        main(["gpus", "--measure"])
    assert not end.value.code
    device = detect()
    assert [device.kind] == measured
    kept = rates.remembered(device.name, device.kind, of=rates.OPERATIONS)
    assert (kept is not None) == (device.kind == "cpu")
    assert "what was measured is reproduced within 7%\n" in capsys.readouterr().err


def test_measuring_beside_other_work(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates that hardly give what was measured are no good, and that is said."""
    monkeypatch.setattr(calibrate, "calibrate", lambda device: Rates("2026-11-21", {}, 0.43))
    monkeypatch.setattr(operation_rates, "measure", lambda device: None)
    with pytest.raises(SystemExit):
        main(["gpus", "--measure"])
    assert capsys.readouterr().err.endswith(
        "what was measured is reproduced within 43%, which other work on it explains: measure again when there is none"
        "\n\n"
    )
