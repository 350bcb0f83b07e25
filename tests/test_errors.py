"""The line shown for an exception of another library."""

import pytest

from pcam_ssl.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bad header\nat byte 3"), "bad header"),
        (RuntimeError("\n  late\n"), "late"),
        (EOFError(), "EOFError"),
        (AssertionError(""), "AssertionError"),
    ],
)
def test_an_error_is_one_line_also_without_a_message(error, line):
    assert first_line(error) == line
