"""Errors that a user can fix. The command line prints them, one line per problem, and exits with `exit_code`; Python code catches `UserError`."""

import errno
from collections.abc import Iterable
from typing import NamedTuple

OPENING, CLOSING = "([{", ")]}"
MENDABLE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room or choose another place"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable or choose another place"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), "name another file or folder"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (ulimit -n)"),
}
"""Errors of the operating system that a user can fix, by number, and the next step."""


class Problem(NamedTuple):
    """A problem in three parts. A part that is missing is ""."""

    where: str
    what: str
    next: str


def parts(line: str) -> Problem:
    """The three parts of a problem written as `WHERE: WHAT; NEXT` or `WHERE: WHAT. Did you mean A? NEXT`.

    WHERE ends at the first ": ". NEXT begins after the first "; " that follows, or with "Did you mean". Marks inside brackets or
    backticks do not count.
    """
    end = _outside(line, ": ")
    where, rest = ("", line) if end < 0 else (line[:end], line[end + 2 :])
    what, hint, further = rest.partition("Did you mean")
    end = _outside(what, "; ")
    if end >= 0:
        return Problem(where, rest[:end], rest[end + 2 :])
    return Problem(where, what.rstrip(" ."), hint + further)


def _outside(line: str, mark: str) -> int:
    """The first position of `mark` outside of brackets and backticks; -1 where there is none."""
    depth, quoted = 0, False
    for place, letter in enumerate(line):
        if letter == "`":
            quoted = not quoted
        elif not quoted:
            depth = max(0, depth + (letter in OPENING) - (letter in CLOSING))
            if not depth and line.startswith(mark, place):
                return place
    return -1


class UserError(Exception):
    """What is wrong, where, and the next step: one line per problem (`problems`), in the form that `parts` reads.

    `where`, `what` and `next` are those of the first problem. Any other exception that leaves a command is a bug in pcam-ssl and keeps
    its traceback.
    """

    exit_code = 2
    told = False
    """True in every process but rank 0, which prints the lines for all."""

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems

    @property
    def where(self) -> str:
        """The file, option, key or run it is about."""
        return parts(self.problems[0]).where if self.problems else ""

    @property
    def what(self) -> str:
        """What is wrong."""
        return parts(self.problems[0]).what if self.problems else ""

    @property
    def next(self) -> str:
        """What mends it; "" where that is plain from what is wrong."""
        return parts(self.problems[0]).next if self.problems else ""

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), self.problems


class LeakError(UserError):
    """An audit found validation data in training data."""

    exit_code = 3


class Held(UserError):
    """Another process or thread is writing what this one wanted to write."""


class UnknownName(UserError, KeyError):
    """An unknown name; also a KeyError."""

    __str__ = UserError.__str__


def refused(error: OSError) -> UserError | None:
    """An OSError that the user can fix, as a UserError; None for other errors."""
    if error.errno not in MENDABLE:
        return None
    return UserError(f"{error.filename or 'output'}: {error.strerror}; {MENDABLE[error.errno]}, then run the same command")


def first_line(error: BaseException) -> str:
    """First line of an error's message; the name of its type where it has no message, as zipfile's EOFError and bare assertions."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(word: str, choices: Iterable[object], n: int = 3) -> str:
    """' Did you mean a, b?' for the choices closest to `word`, or '' when none is close."""
    from difflib import get_close_matches

    close = get_close_matches(word, [str(choice) for choice in choices], n=n, cutoff=0.6)
    return f" Did you mean {', '.join(close)}?" if close else ""
