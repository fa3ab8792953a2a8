"""The catalogue of GPUs: right figures for the names that drivers give, and nothing for names it does not know."""

from __future__ import annotations

import statistics

import pytest

from ganeum.hardware import catalogue
from ganeum.hardware.catalogue import Gpu

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
    ("NVIDIA RTX 4000 SFF Ada Generation", 20475, "bf16", 76.7),
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
    ("NVIDIA GeForce RTX 3060", 8192, "bf16", 25.5),
    ("NVIDIA GeForce RTX 3060 Ti", 8192, "bf16", 32.4),
    ("NVIDIA GeForce RTX 3080 Ti", 12288, "bf16", 68.2),
    ("NVIDIA RTX 6000 Ada Generation", 49140, "bf16", 364.2),
    ("NVIDIA GeForce RTX 4060 Ti", 16380, "bf16", 44.1),
    ("NVIDIA GeForce GTX 1080 Ti", 11264, "fp32", 11.3),
    ("NVIDIA TITAN RTX", 24576, "fp16", 130.5),
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
        ("NVIDIA RTX 5000 Ada Generation Laptop GPU", 16376),
        ("NVIDIA GeForce RTX 3060", 6144),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 24564),  # the laptop's has 16
        ("NVIDIA GeForce RTX 4090", 16376),  # and the desktop's never
        ("NVIDIA GeForce RTX 5090 D", 32607),
        ("NVIDIA GeForce RTX 2080 Super with Max-Q Design", 8192),
        ("Tesla V100S-PCIE-32GB", 32510),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864),  # a seventh of the card
        ("NVIDIA A1000", 4096),
        ("NVIDIA H100 80GB HBM2e", 81559),
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


def test_a_laptops_gpu_is_a_range() -> None:
    """A laptop's RTX 4090 has 57 to 79 TFLOPS in bf16 by its power (76 SMs × 1,455 or 2,040 MHz × 512), and is said
    as that: never the desktop card's 165."""
    found = catalogue.find("NVIDIA GeForce RTX 4090 Laptop GPU", 16376 * MIB)
    assert found is not None
    assert found.laptop
    assert (56.6, 79.4) == (found.tflops["bf16"].low, found.tflops["bf16"].high)
    assert str(found.tflops["bf16"]) == "68 ±17%"
    assert (79.4 - 56.6) / (79.4 + 56.6) == pytest.approx(found.peak_uncertainty, rel=0.01)
    assert (80, 150) == (found.figures["power_w"].low, found.figures["power_w"].high)


# FLOP per clock and SM, sums in fp32, from NVIDIA's architecture whitepapers: fp32, tf32, fp16 = bf16.
RATES = {
    (6, 0): {"fp32": 128, "fp16": 256},
    (6, 1): {"fp32": 256},
    (7, 0): {"fp32": 128, "fp16": 1024},
    (7, 5): {"fp32": 128, "fp16": 512},
    (8, 0): {"fp32": 128, "tf32": 1024, "fp16": 2048, "bf16": 2048},
    (8, 6): {"fp32": 256, "tf32": 256, "fp16": 512, "bf16": 512},
    (8, 9): {"fp32": 256, "tf32": 256, "fp16": 512, "bf16": 512},
    (9, 0): {"fp32": 256, "tf32": 2048, "fp16": 4096, "bf16": 4096},
    (10, 0): {"fp32": 256, "tf32": 4096, "fp16": 8192, "bf16": 8192},
    (12, 0): {"fp32": 256, "tf32": 256, "fp16": 512, "bf16": 512},
}
CHIPS = [gpu for gpu in catalogue.gpus() if {"sm_count", "boost_mhz"} <= set(gpu.figures)]


@pytest.mark.parametrize("gpu", CHIPS, ids=lambda gpu: gpu.name)
def test_peaks_agree_with_their_chips(gpu: Gpu) -> None:
    """Each peak is SMs × clock × FLOP per clock within 3 %, at both ends of a range (fp32 of Hopper and later, whose
    clock is another one: 15 %; the TITAN V, whose two published figures differ: within them)."""
    assert gpu.capability is not None
    sms, clock = gpu.figures["sm_count"].value, gpu.figures["boost_mhz"]
    for precision, peak in gpu.tflops.items():
        rate = RATES[gpu.capability][precision] * (2 if gpu.full_rate and precision != "fp32" else 1)
        slack = 0.15 if precision == "fp32" and gpu.capability in ((9, 0), (10, 0)) else 0.03
        for mhz, tflops in ((clock.low, peak.low), (clock.high, peak.high)):
            expected = sms * mhz * 1e6 * rate / 1e12
            if clock.low == clock.high and peak.low < peak.high:
                assert peak.low <= expected <= 1.01 * peak.high
            else:
                assert expected == pytest.approx(tflops, rel=slack), precision


def test_most_peaks_are_recomputed() -> None:
    """The test above sees more than 330 peaks of 98 cards."""
    assert len(CHIPS) > 98
    assert sum(len(gpu.tflops) for gpu in CHIPS) > 330


@pytest.mark.parametrize(
    ("name", "precision", "tflops"),
    [  # NVIDIA's data sheets and whitepapers, dense, sums in fp32
        ("NVIDIA RTX A4000", "fp16", 153.4 / 2),
        ("NVIDIA RTX A5000", "fp16", 222.2 / 2),
        ("NVIDIA RTX A6000", "bf16", 309.7 / 2),
        ("NVIDIA A40", "fp16", 149.7),
        ("NVIDIA A30", "bf16", 165),
        ("NVIDIA L40", "fp16", 181.05),
        ("NVIDIA RTX 6000 Ada Generation", "fp16", 1457 / 4),  # its headline: fp8 with sparsity
        ("NVIDIA GeForce RTX 2080", "fp16", 40.3),
        ("NVIDIA GeForce RTX 3070", "fp16", 40.6),
        ("NVIDIA GeForce RTX 3090 Ti", "bf16", 80),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("NVIDIA GeForce RTX 5080", "bf16", 112.6),
        ("Quadro RTX 5000", "fp16", 89.2),
    ],
)
def test_peaks_are_the_published_ones(name: str, precision: str, tflops: float) -> None:
    """Peaks worked out from chips are those that NVIDIA publishes, as far as it does."""
    found = catalogue.find(name)
    assert found is not None
    assert tflops == pytest.approx(found.tflops[precision].value, rel=0.01)


@pytest.mark.parametrize(
    ("name", "precision", "measured"),
    [  # torch's matrix products, TFLOPS, as users of a public benchmark table reported them (2025)
        ("Tesla P40", "fp32", [10.07]),
        ("RTX 2080", "fp16", [39.03]),
        ("RTX 3060 Laptop", "bf16", [25.85]),
        ("RTX 3080 Ti", "bf16", [76.47]),
        ("RTX 3090", "bf16", [76.34, 76.68]),
        ("RTX 4060 Laptop", "bf16", [30.87]),
        ("RTX 4070 SUPER", "bf16", [76.76]),
        ("RTX 4090", "bf16", [170.06, 173.31, 162.39, 163.09]),
        ("RTX 4090 D", "bf16", [145.77, 148.91]),
        ("RTX 5090", "bf16", [236.03]),
        ("RTX 5090 Laptop", "bf16", [97.13]),
        ("A100 PCIe 40GB", "bf16", [246.33]),
        ("A100 SXM4 80GB", "bf16", [264.53]),
        ("H100 SXM5", "bf16", [789.24]),
        ("B200", "bf16", [1696.03]),
    ],
)
def test_peaks_are_what_cards_reach(name: str, precision: str, measured: list[float]) -> None:
    """Cards of servers reach three quarters of their peak and more, GeForce up to 13 % above it, since they clock
    higher than their data sheets say: no peak is another's, with sparsity or with sums in fp16."""
    found = catalogue.find(name)
    assert found is not None
    peak = found.tflops[precision]
    assert all(0.75 * peak.low <= rate <= 1.13 * peak.high for rate in measured)


@pytest.mark.parametrize(
    ("name", "gib"),
    [  # "GPU 0 has a total capacity of … GiB", from out-of-memory errors that people posted
        ("H100 SXM", 79.18),
        ("RTX A4000", 15.61),
        ("RTX 3070", 7.78),
        ("RTX 3090", 23.68),
        ("RTX 4060", 7.75),
        ("RTX A6000", 47.53),
        ("RTX 6000 Ada", 44.43),  # with ECC
    ],
)
def test_memory_is_what_torch_sees(name: str, gib: float) -> None:
    """What a card leaves to programs is torch's total capacity, or up to 4 % less, and never more."""
    found = catalogue.find(name)
    assert found is not None
    assert 0.96 * gib < found.free_gib(found.memory_gib[0]) <= gib + 0.005


def test_what_the_driver_keeps_where_nobody_wrote_it_down() -> None:
    """The share assumed for it is the median of the cards where somebody did, within 1 %."""
    written = [gpu.figures["reserved_mib"].value for gpu in catalogue.gpus() if "reserved_mib" in gpu.figures]
    assert (11, 408, 609) == (len(written), min(written), max(written))
    assert statistics.median(written) == pytest.approx(catalogue.RESERVED_MIB, rel=0.01)


def test_every_number_has_a_source_and_no_source_is_idle() -> None:
    """Each figure of each card names where it is from, and every name in sources.toml stands behind some figure."""
    used = set()
    for gpu in catalogue.gpus():
        for figure in [*gpu.figures.values(), *gpu.tflops.values()]:
            assert figure.source
            assert figure.low <= figure.high
            used.add(figure.source)
    beginnings = {text.split("{}")[0] for text in catalogue._sources().values()}
    assert beginnings == {beginning for beginning in beginnings if any(beginning in source for source in used)}


@pytest.mark.parametrize("gpu", catalogue.gpus(), ids=lambda gpu: gpu.name)
def test_every_card_is_found_by_its_own_names(gpu: Gpu) -> None:
    """No entry hides another: each of its names, with its memory, and its name here find exactly that entry."""
    for size in gpu.memory_gib:
        for match in gpu.matches:
            assert gpu == catalogue.find(f"NVIDIA {' '.join(match)}", gpu.total_gib(size))
        if "GB200" not in gpu.name:
            assert gpu == catalogue.find(f"{gpu.name} {size:.0f}GB" if "GB" not in gpu.name else gpu.name)


def test_the_catalogue_is_broad() -> None:
    """Every GeForce RTX for desktops from 2060 to 5090 is there, and the cards that clouds lend."""
    there = " ".join(gpu.name for gpu in catalogue.gpus())
    for generation in (2060, 2070, 2080, 3050, 3060, 3070, 3080, 3090, 4060, 4070, 4080, 4090, 5060, 5070, 5080, 5090):
        assert f"RTX {generation}" in there
    for name in ("T4", "L4", "L40S", "A10G", "V100", "A100", "H100", "H200", "B200", "Apple M2"):
        assert name in there
