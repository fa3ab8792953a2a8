"""docs/doctor.md shows what is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganeum.cli.examples import refreshed


def test_the_page_of_the_doctor_shows_what_is_printed() -> None:
    """Every command of docs/doctor.md prints what stands there: python -m ganeum.cli.examples docs/doctor.md."""
    root = Path(__file__).parents[2]
    if (root / "data" / "one_book" / "train.bin").exists():
        pytest.skip("data is prepared here, and the plan knows it")
    page = (root / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert refreshed(page, root) == page
