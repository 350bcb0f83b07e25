"""Numbers as text."""

import pytest

from pcam_ssl.render.document import Cell, plain
from pcam_ssl.render.format import gain_numbers, gain_word, gain_words, interval, three, with_interval

NONE = {"value": None, "low": None, "high": None, "reason": "one class only"}
KNOWN = {"value": 0.1, "low": -0.05, "high": 0.25}


def test_an_undefined_score_is_a_dash():
    assert three(None) == with_interval(NONE) == interval(NONE) == gain_numbers(NONE) == "-"


def test_an_interval_is_small_print_under_its_value():
    assert with_interval(KNOWN, signed=True) == Cell("+0.100", below="-0.050 to +0.250")


def test_a_value_without_interval_stands_alone():
    assert plain(with_interval(NONE | {"value": 0.5})) == interval(NONE | {"value": 0.5}) == "0.500"


def test_a_value_and_its_interval_in_one_line():
    assert (interval(KNOWN), gain_numbers(KNOWN)) == ("0.100 (-0.050 to 0.250)", "+0.100 (-0.050 to +0.250)")


@pytest.mark.parametrize(
    ("low", "high", "less", "word"),
    [
        (0.01, 0.02, False, "a gain"),
        (-0.02, -0.01, False, "a loss"),
        (-0.02, -0.01, True, "a gain"),
        (0.01, 0.02, True, "a loss"),
        (-0.01, 0.01, False, "no measurable gain"),
        (None, None, False, "gain not known"),
    ],
)
def test_a_gain_is_one_only_where_its_interval_leaves_out_zero(low, high, less, word):
    assert gain_word({"value": 0, "low": low, "high": high}, less) == word


def test_a_gain_that_is_not_known_says_why():
    assert gain_words(NONE) == "gain not known (one class only)"
