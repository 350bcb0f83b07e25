"""The command line: typer verbs that parse, import lazily, call one function, and print one result."""

import errno
import sys

import typer

from pcam_ssl.cli import (
    audit,
    blend,
    compare,
    data,
    doctor,
    embed,
    explain,
    explore,
    export,
    predict,
    pseudo_label,
    recipes,
    report,
    search,
    synth,
    train,
)
from pcam_ssl.errors import UserError

app = typer.Typer(
    help="Leak-free training and evaluation for histopathology patches (PatchCamelyon, Kaggle Histopathologic Cancer Detection).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to import than all the rest of --help
    add_completion=False,
)
data.app.command("synth")(synth.synth)
data.app.command("audit")(audit.audit)
app.add_typer(data.app, name="data")
app.command("baseline")(train.baseline)
app.command("metric-train")(train.metric_train)
app.command("pseudo-label")(pseudo_label.pseudo_label)
app.command("predict")(predict.predict)
app.command("embed")(embed.embed)
app.command("search")(search.search)
app.command("explain")(explain.explain)
app.command("export")(export.export)
app.command("explore")(explore.explore)
app.command("compare")(compare.compare)
app.command("blend")(blend.blend)
app.command("report")(report.report)
app.add_typer(recipes.app, name="recipes")
app.command("doctor")(doctor.doctor)
app.command("demo")(train.demo)


MENDABLE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room or choose another place"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable or choose another place"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), "name another file or folder"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (ulimit -n)"),
}
"""What the system may refuse that is no bug of ours, and what mends it."""


@app.callback(invoke_without_command=True)
def _options(version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True)) -> None:
    if version:
        from pcam_ssl import __version__

        print(f"pcam-ssl {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line. Exit codes: 0 done, 2 the user can mend it, 3 a leak was found, 130 stopped and saved, 1 a bug of ours."""
    for stream in (sys.stdout, sys.stderr):
        # A path that is no UTF-8, or a terminal that knows only ASCII, must not end a command that has done its work.
        stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="pcam-ssl")
    except UserError as error:
        for problem in () if error.told else error.problems:
            _tell(problem)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        _tell(f"{error.filename or 'output'}: {error.strerror}; {MENDABLE[error.errno]}, then run the same command")
        sys.exit(2)


def _tell(problem: str) -> None:
    """A problem in one line, also where an id or a path in it has a line break."""
    print(f"pcam-ssl: {' '.join(problem.splitlines())}", file=sys.stderr)
