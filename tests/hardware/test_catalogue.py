"""The catalogue of GPUs: right peaks for the names that drivers give, and nothing for names it does not know."""

from __future__ import annotations

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib
from importlib.resources import files

import pytest

from ganeum.hardware import catalogue

MIB = 2**20 / 2**30

# As captured from nvidia-smi on real machines (name, memory.total in MiB), with NVIDIA's dense peak with fp32 sums.
CAPTURED = [
    ("NVIDIA GeForce RTX 2080 SUPER", 8192, "fp16", 44.6),
    ("NVIDIA GeForce RTX 4080 SUPER", 16376, "bf16", 104.4),
    ("NVIDIA L40S", 46068, "bf16", 362),
    ("NVIDIA GeForce RTX 5090", 32607, "bf16", 209.5),
    ("NVIDIA A100-SXM4-40GB", 40960, "bf16", 312),
    ("NVIDIA A10G", 23028, "bf16", 70),
    ("NVIDIA GeForce RTX 3080", 10240, "bf16", 59.5),
    ("NVIDIA H100 80GB HBM3", 81559, "bf16", 989),
    ("NVIDIA H200", 143771, "bf16", 989),
]
# Names as drivers write them, for the cards of documents 001, 002 and 004 and those easily mistaken for another.
NAMES = [
    ("Tesla V100-SXM2-16GB", 16160, "fp16", 125),
    ("Tesla V100-SXM2-32GB", 32510, "fp16", 125),
    ("Tesla V100-PCIE-16GB", 16384, "fp16", 112),
    ("Tesla T4", 15360, "fp16", 65),
    ("NVIDIA A100 80GB PCIe", 81920, "bf16", 312),
    ("NVIDIA A100-PCIE-40GB", 40960, "tf32", 156),
    ("NVIDIA A10", 23028, "bf16", 125),
    ("NVIDIA GeForce RTX 3080", 12288, "bf16", 61.3),
    ("NVIDIA GeForce RTX 3060", 12288, "bf16", 25.5),
    ("NVIDIA GeForce RTX 4090", 24564, "bf16", 165.2),
    ("NVIDIA GeForce RTX 4090 Laptop GPU", 16376, "bf16", 79.4),
    ("NVIDIA H100 PCIe", 81559, "bf16", 756),
]


@pytest.mark.parametrize(("name", "mib", "precision", "tflops"), CAPTURED + NAMES)
def test_names_that_drivers_give(name: str, mib: int, precision: str, tflops: float) -> None:
    """Each name finds its own card, with the dense peak of that card."""
    found = catalogue.find(name, mib * MIB)
    assert found is not None
    assert tflops * 1e12 == found.peak_flops_per_second[precision]


@pytest.mark.parametrize(
    ("name", "mib"),
    [
        ("NVIDIA RTX 4000 SFF Ada Generation", 20475),  # captured; nobody vouches for its peak
        ("NVIDIA GeForce RTX 3060", 8192),  # the 8 GB card is another one
        ("NVIDIA GeForce RTX 3060 Ti", 8192),
        ("NVIDIA GeForce RTX 3080 Ti", 12288),
        ("NVIDIA GeForce RTX 3080 Laptop GPU", 16384),
        ("NVIDIA GeForce RTX 4090 D", 24564),
        ("NVIDIA GeForce RTX 2080 Super with Max-Q Design", 8192),
        ("Tesla V100S-PCIE-32GB", 32510),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864),  # a seventh of the card
        ("NVIDIA A1000", 4096),
        ("NVIDIA H100 80GB HBM2e", 81559),
        ("NVIDIA RTX 6000 Ada Generation", 49140),
        ("Some GPU of next year", 1_000_000),
        ("", 0),
    ],
)
def test_a_name_it_does_not_know_has_no_peak(name: str, mib: int) -> None:
    """A card that is only like one of the catalogue's is not taken for it."""
    assert catalogue.find(name, mib * MIB) is None


def test_one_name_for_two_cards_needs_their_memory() -> None:
    """RTX 3080 alone could be the 10 or the 12 GB card: then it is neither; a size in the name settles it."""
    assert catalogue.find("NVIDIA GeForce RTX 3080") is None
    found = catalogue.find("rtx 3080 12 GB")
    assert found is not None
    assert found.name == "GeForce RTX 3080 12GB"


# FLOP per clock and SM, sums in fp32, from NVIDIA's architecture whitepapers: fp32, tf32, fp16 = bf16.
RATES = {
    "6.0": {"fp32": 128, "fp16": 256},
    "6.1": {"fp32": 256},
    "7.0": {"fp32": 128, "fp16": 1024},
    "7.5": {"fp32": 128, "fp16": 512},  # GeForce; a T4 has twice the tensor rate
    "8.0": {"fp32": 128, "tf32": 1024, "fp16": 2048, "bf16": 2048},
    "8.6": {"fp32": 256, "tf32": 256, "fp16": 512, "bf16": 512},
    "8.9": {"fp32": 256, "tf32": 256, "fp16": 512, "bf16": 512},
    "9.0": {"fp32": 256, "tf32": 2048, "fp16": 4096, "bf16": 4096},
    "10.0": {"fp32": 256, "tf32": 4096, "fp16": 8192, "bf16": 8192},
    "12.0": {"fp32": 256, "tf32": 256, "fp16": 512, "bf16": 512},
}
WORKSTATION = {"Tesla T4", "A10", "RTX A6000", "L4", "L40S"}  # tensor cores not halved as GeForce's (and A10G's) are


def test_peaks_agree_with_their_chips() -> None:
    """Where SMs and clock are given, each peak is SMs × clock × FLOP per clock within 3 % (fp32 of Hopper and later,
    whose clock is another one: 15 %)."""
    rows = tomllib.loads((files("ganeum.hardware") / "gpus.toml").read_text(encoding="utf-8"))["gpu"]
    recomputed = 0
    for row in rows:
        if "boost_mhz" not in row:
            continue
        for precision, tflops in row["tflops"].items():
            twice = 2 if row["name"] in WORKSTATION and precision != "fp32" else 1
            rate = RATES[row["capability"]][precision] * twice
            expected = row["sm_count"] * row["boost_mhz"] * 1e6 * rate / 1e12
            slack = 0.15 if precision == "fp32" and row["capability"] in ("9.0", "10.0") else 0.03
            assert expected == pytest.approx(tflops, rel=slack), (row["name"], precision)
            recomputed += 1
    assert recomputed > 90


def test_every_card_is_found_by_its_own_names() -> None:
    """No entry hides another: each of its names, with its memory, finds exactly that entry."""
    rows = tomllib.loads((files("ganeum.hardware") / "gpus.toml").read_text(encoding="utf-8"))["gpu"]
    for row in rows:
        assert row["source"]
        for name in row["matches"]:
            for size in row["memory_gib"]:
                found = catalogue.find(f"NVIDIA {name}", size)
                assert found is not None, (name, size)
                assert (name, found.name) == (name, row["name"]) or name == "A100-SXM4"
