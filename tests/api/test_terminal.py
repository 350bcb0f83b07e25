"""Progress bars: in a terminal, and in a notebook that can draw them."""

import importlib.util
from types import SimpleNamespace

import pytest

from pcam_ssl import terminal


@pytest.mark.parametrize(
    ("jupyter", "is_terminal", "widgets", "draws"),
    [(False, True, False, True), (False, False, True, False), (True, False, True, True), (True, False, False, False)],
)
def test_bars_are_drawn_where_they_can_be(monkeypatch, jupyter, is_terminal, widgets, draws):
    monkeypatch.setattr(terminal, "console", lambda: SimpleNamespace(is_jupyter=jupyter, is_terminal=is_terminal))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if widgets else None)
    assert terminal.draws_bars() is draws
