"""A card by its name: the one that is meant, with its real memory, or an error that says which there are."""

from __future__ import annotations

import pytest

from ganeum.errors import DeviceError
from ganeum.hardware.card import card

OWN = 'with its own figures "NAME: 24GB, bf16 165 TFLOPS, bandwidth 1008 GB/s"'
WHY = (
    "  why    a card with a name like it may be half as fast, so none is taken for it; ganeum gpus lists those known\n"
)


@pytest.mark.parametrize(
    ("expected", "name"),
    [
        ("GeForce RTX 4090", "4090"),
        ("GeForce RTX 4090", "rtx4090"),
        ("GeForce RTX 4090 Laptop", "4090 mobile"),
        ("GeForce RTX 4090 Laptop", "RTX4090M"),
        ("GeForce RTX 4070 Ti SUPER", "4070ti super"),
        ("GeForce GTX 1080 Ti", "1080 Ti"),
        ("RTX A6000", "a6000"),
        ("GeForce RTX 3080 12GB", "RTX 3080 12 GB"),
        ("A100 SXM4 80GB", "NVIDIA A100-SXM4-80GB"),
        ("Apple M2 Max", "Apple M2 Max 64GB"),
    ],
)
def test_names_that_people_type(expected: str, name: str) -> None:
    """RTX, GeForce and spaces can be left out; a size settles what the name leaves open."""
    assert expected == card(name).name


def test_memory_is_what_is_left_of_it() -> None:
    """Of an RTX 4080 SUPER's 16 GB the driver shows 16,376 MiB and keeps 434 (captured); CUDA takes 0.6 GiB more."""
    found = card("RTX 4080 SUPER")
    assert 16_376 / 1024 == found.memory_gib
    assert (16_376 - 434) / 1024 - 0.6 == pytest.approx(found.usable_gib)
    assert (320, 0, 0) == (found.power_w, found.peak_uncertainty, found.bandwidth_uncertainty)


def test_a_mac_shares_its_memory() -> None:
    """An M2 Max with 96 GB has 64 for its GPU, and nobody vouches for its rate."""
    found = card("Apple M2 Max 96GB")
    assert ("mps", 96, 64, 400) == (found.kind, found.memory_gib, found.usable_gib, found.memory_bandwidth_gb_s)
    assert found.peak_uncertainty > 0.1


def test_a_card_of_ones_own() -> None:
    """A card that the catalogue lacks is told by its figures; what is not told stays unknown."""
    found = card("My Card: 24GB, bf16 165 TFLOPS, fp16 165 TFLOPS, bandwidth 1.008 TB/s, power 450 W")
    assert ("My Card", "cuda", 24, "bf16") == (found.name, found.kind, found.memory_gib, found.fast_precision)
    assert (165e12, None) == (found.peak("bf16"), found.peak("fp32"))
    assert (1008, 450) == (found.memory_bandwidth_gb_s, found.power_w)
    assert card("An old one: memory 8 GB, fp32 5 TFLOPS").fast_precision == "fp32"
    assert ("bf16", None) == (card("A new one: 8GB").fast_precision, card("A new one: 8GB").peak("bf16"))
    assert card("A tiny one: 0.5GB").usable_gib == 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "RTX 3080",
            "RTX 3080 could be more than one card\n"
            "  where  gpu\n"
            "  try    GeForce RTX 3080 10GB or GeForce RTX 3080 12GB",
        ),
        (
            "A100 40GB",
            "A100 40GB could be more than one card\n  where  gpu\n  try    A100 PCIe 40GB or A100 SXM4 40GB",
        ),
        (
            "4050",  # there is one in laptops only, and a name without that word does not mean it
            f"no GPU called 4050 is known\n  where  gpu\n{WHY}  try    GeForce RTX 4050 Laptop or {OWN}",
        ),
        (
            "RTX 4099",
            f"no GPU called RTX 4099 is known\n  where  gpu\n{WHY}"
            f"  try    GeForce RTX 4090 or GeForce RTX 4090 D or GeForce RTX 5090 or {OWN}",
        ),
        ("Radeon RX 7900 XTX", f"no GPU called Radeon RX 7900 XTX is known\n  where  gpu\n{WHY}  try    {OWN}"),
        ("🦆", f"no GPU called 🦆 is known\n  where  gpu\n{WHY}  try    {OWN}"),
        (" ", f"no GPU is named\n  where  gpu\n{WHY}  try    {OWN}"),
        (
            "4090 48GB",  # of a size that no 4090 is known to have
            f"no GPU called 4090 48GB is known\n  where  gpu\n{WHY}  try    GeForce RTX 4090 or {OWN}",
        ),
        ("M3", "M3 could be more than one card\n  where  gpu\n  try    Apple M3 or Apple M3 Max"),
        (
            "Mine: blue",
            "'blue' says nothing about a GPU that ganeum understands\n"
            "  where  gpu, Mine: blue\n"
            "  why    a card of your own is its name, a colon, its memory and as many of its rates as are known\n"
            "  try    Mine: 24GB, bf16 165 TFLOPS, bandwidth 1008 GB/s",
        ),
        (
            "Mine: 1.2.3GB",
            "'1.2.3GB' says nothing about a GPU that ganeum understands\n"
            "  where  gpu, Mine: 1.2.3GB\n"
            "  why    a card of your own is its name, a colon, its memory and as many of its rates as are known\n"
            "  try    Mine: 24GB, bf16 165 TFLOPS, bandwidth 1008 GB/s",
        ),
        (
            "Mine: bf16 100 TFLOPS",
            "Mine has no memory\n"
            "  where  gpu, Mine: bf16 100 TFLOPS\n"
            "  try    Mine: 24GB, bf16 165 TFLOPS, bandwidth 1008 GB/s",
        ),
    ],
)
def test_names_that_mean_no_card(name: str, text: str) -> None:
    """An unknown name is answered with the nearest ones, one for several cards with those, a fact that is none with one
    that is; no other card is ever taken for it."""
    with pytest.raises(DeviceError) as caught:
        card(name)
    assert f"DeviceError: {text}" == str(caught.value)
