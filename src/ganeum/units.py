"""Numbers as people read them: 162.2M, 2.4 GiB, 3.05 TFLOP, 9 h 33 min."""

from __future__ import annotations

GIB = 2**30
_COUNTS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_FLOPS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def count(n: float) -> str:
    """A number of parameters or tokens.

    >>> count(162_247_680), count(65_536), count(999), count(1_000_000)
    ('162.2M', '65.5k', '999', '1.0M')
    """
    for unit, letter in _COUNTS:
        if round(abs(n) / unit, 4) >= 1.0:  # 999,950 is 1.0M, not 1000.0k
            return f"{n / unit:.1f}{letter}"
    return f"{n:.0f}"


def things(n: int, thing: str) -> str:
    """So many of them, as a noun follows a number.

    >>> things(1, "file"), things(0, "row"), things(2_002, "document")
    ('1 file', '0 rows', '2,002 documents')
    """
    return f"{n:,} {thing}" + "s" * (n != 1)


def three(n: float) -> str:
    """Three significant digits, but no less than whole ones.

    >>> three(0.0457), three(1.5), three(34.56), three(12_345.6)
    ('0.0457', '1.5', '34.6', '12,346')
    """
    return f"{n:,.0f}" if abs(n) >= 99.95 else f"{n:.3g}"


def flops(n: float) -> str:
    """Floating-point operations, a count; a rate is `flops(rate) + "/s"`.

    >>> flops(3.05e12), flops(450)
    ('3.05 TFLOP', '450 FLOP')
    """
    for unit, letter in _FLOPS:
        if abs(n) >= unit:
            return f"{n / unit:.3g} {letter}FLOP" if abs(n) < 999.5 * unit else f"{n / unit:.0f} {letter}FLOP"
    return f"{n:.0f} FLOP"


def size(n_bytes: float) -> str:
    """An amount of memory in the unit that suits it; one KiB is 2¹⁰ bytes.

    >>> size(1_900_000_000), size(4_096), size(12)
    ('1.77 GiB', '4 KiB', '12 bytes')
    """
    for unit, letters in _BYTES:
        if abs(n_bytes) >= unit:
            return (
                f"{n_bytes / unit:.3g} {letters}" if abs(n_bytes) < 999.5 * unit else f"{n_bytes / unit:.0f} {letters}"
            )
    return f"{n_bytes:.0f} bytes"


def gib(n_bytes: float) -> str:
    """An amount of memory in GiB, 2³⁰ bytes, whatever it is: amounts below each other can be compared.

    >>> gib(2 * 2**30), gib(123_456_789)
    ('2.00 GiB', '0.11 GiB')
    """
    return f"{n_bytes / GIB:,.2f} GiB"


def duration(seconds: float) -> str:
    """A length of time in its two largest units.

    >>> duration(34_414.43), duration(75), duration(4.2), duration(0.163), duration(200_000)
    ('9 h 34 min', '1 min 15 s', '4.2 s', '163 ms', '2 d 8 h')
    """
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if (whole := round(seconds)) < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if (minutes := round(seconds / 60)) < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def amount(text: str) -> float:
    """A count as people type it: the other way round than :func:`count`.

    >>> amount("1.5B"), amount("300M"), amount("130,520"), amount("2e9")
    (1500000000.0, 300000000.0, 130520.0, 2000000000.0)

    Raises:
        ValueError: it is no number, or not above zero.
    """
    plain = text.strip().replace(",", "").replace("_", "")
    unit = next((unit for unit, letter in _COUNTS if plain.lower().endswith(letter.lower())), 1.0)
    number = float(plain[:-1] if unit > 1 else plain) * unit
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number
