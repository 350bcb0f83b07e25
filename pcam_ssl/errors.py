"""Errors that a user can fix. The command line prints them, one line per problem, and exits with `exit_code`."""


class UserError(Exception):
    """What is wrong, where, and the next step: one line per problem.

    Any other exception that leaves a command is a bug in pcam-ssl and keeps its traceback.
    """

    exit_code = 2
    told = False
    """True in every process but rank 0, which prints the lines for all."""

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems

    def __reduce__(self):
        return type(self), self.problems


class LeakError(UserError):
    """An audit found validation data in training data."""

    exit_code = 3


def first_line(error: BaseException) -> str:
    """First line of an error's message; the name of its type where it has no message, as zipfile's EOFError and bare assertions."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(word: str, choices, n: int = 3) -> str:
    """' Did you mean a, b?' for the choices closest to `word`, or '' when none is close."""
    from difflib import get_close_matches

    close = get_close_matches(word, [str(choice) for choice in choices], n=n, cutoff=0.6)
    return f" Did you mean {', '.join(close)}?" if close else ""
