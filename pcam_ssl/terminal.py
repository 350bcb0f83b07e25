"""Messages and progress bars while a command works. They go to stderr; results go to stdout."""

import os
from contextlib import contextmanager
from functools import cache


@cache
def console():
    """The stderr console, made on first use because rich takes time to import. Under `torchrun` only rank 0 uses it."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True, quiet=is_follower())


def is_one_of_several() -> bool:
    """Whether this is a process of `torchrun` beside others."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def is_follower() -> bool:
    """Whether this is a process of `torchrun` other than rank 0, which speaks for all."""
    return is_one_of_several() and os.environ.get("RANK", "0") != "0"


def draws_bars() -> bool:
    """Whether progress bars can be drawn: in a terminal, and in a notebook that has the package ipywidgets, which rich draws them with."""
    if is_follower():
        return False
    if console().is_jupyter:
        from importlib.util import find_spec

        return find_spec("ipywidgets") is not None
    return console().is_terminal


def say(text: str) -> None:
    """Print a line to stderr; the text is taken literally, without rich's markup."""
    console().print(text, markup=False)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    console().print(f"WARNING: {text}", style="bold yellow", markup=False)


@contextmanager
def progress(label: str, total: int | None, unit: str = "patches"):
    """A progress bar with rate and time left; yields `advance(n=1, label=None)`.

    Nothing is drawn where stderr is not a terminal, to keep logs readable. In a notebook the bar is a widget of the notebook.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task):
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f} {unit}/s" if speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console(), disable=not draws_bars()) as bars:
        task = bars.add_task(label, total=total)

        def advance(n: int = 1, label: str | None = None) -> None:
            bars.update(task, advance=n, **({"description": label} if label else {}))

        yield advance
