"""How texts are written: settings that contradict each other, and random numbers that hang on seed and row alone."""

import numpy as np
import pytest

from ganeum.errors import ConfigError, Several
from ganeum.inference.decoding import Decoding


def test_a_rows_numbers_are_its_own():
    """Row 7 has the same numbers alone and among others, other rows and seeds others, all from 0 up to 1, evenly."""
    decoding = Decoding(max_new_tokens=2000, seed=5)
    among = decoding.noise([3, 7, 2**40])
    np.testing.assert_array_equal(decoding.noise([7])[0], among[1])
    assert len({*among[:, 0].tolist(), Decoding(max_new_tokens=1, seed=6).noise([3])[0, 0]}) == 4
    assert (among >= 0).all()
    assert (among < 1).all()
    assert abs(among.mean() - 0.5) < 0.02  # 6,000 numbers: the deviation of their mean is 0.0037


def test_beams_draw_nothing():
    """Beams and a temperature are refused together."""
    with pytest.raises(ConfigError) as error:
        Decoding(num_beams=4, temperature=0.7).check()
    assert """\
ConfigError: 4 beams and a temperature of 0.7 are two ways to write
  why    beams look for the likeliest text, a temperature draws one
  try    --num-beams 1, or --temperature 0""" == str(error.value)


def test_beams_have_an_end():
    """So many that a single row would take all memory are refused before the system kills the process."""
    Decoding(num_beams=256).check()
    with pytest.raises(ConfigError) as error:
        Decoding(num_beams=100_000).check()
    assert """\
ConfigError: 100,000 beams are more than 256
  why    each is a text that is kept and written on, of every row
  try    --num-beams 4""" == str(error.value)


def test_an_endless_temperature_is_refused():
    """Infinity, which the command line takes for a number, is none to divide by."""
    with pytest.raises(ConfigError) as error:
        Decoding(temperature=float("inf")).check()
    assert "ConfigError: a temperature of inf is no number to divide by" == str(error.value)


def test_what_narrows_a_draw_needs_one():
    """top_k and top_p without a temperature are refused, both at once."""
    with pytest.raises(Several) as error:
        Decoding(top_k=5, top_p=0.9).check()
    assert """\
ConfigError: --top-k 5 says nothing where the likeliest token is always taken
  why    nothing is drawn at temperature 0
  try    --temperature 1 beside it

ConfigError: --top-p 0.9 says nothing where the likeliest token is always taken
  why    nothing is drawn at temperature 0
  try    --temperature 1 beside it""" == str(error.value)
