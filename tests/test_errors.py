"""What a foreign error is told as."""

import pytest

from pcam_ssl.errors import first_line


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("bad header\nat byte 3"), "bad header"),
        (RuntimeError("\n  late\n"), "late"),
        (EOFError(), "EOFError"),
        (AssertionError(""), "AssertionError"),
    ],
)
def test_one_line_also_of_an_error_that_says_nothing(error, told):
    assert first_line(error) == told
