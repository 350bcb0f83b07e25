"""The command line: typer verbs that parse, import lazily, call one function, and print one result."""

import os
import sys

import typer

from pcam_ssl.cli import data, evaluate, explore, export, recipes, search, train, units
from pcam_ssl.errors import UserError, refused
from pcam_ssl.terminal import is_follower, is_one_of_several

SHARED = {"baseline", "metric-train", "pseudo-label", "label-curve", "run-unit", "predict", "embed", "search"}
"""Commands whose work several processes of `torchrun` share."""

PROGRAM = "pcam-ssl"
BadParameter = typer.BadParameter
UsageError = BadParameter.__base__
"""Errors of typer's parser. They are click's, or in newer versions of typer its own copies of them, which have no public name."""

app = typer.Typer(
    help="Leak-free training and evaluation for histopathology patches (PatchCamelyon, Kaggle Histopathologic Cancer Detection).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to import than all the rest of --help
    add_completion=False,
)
app.add_typer(data.app, name="data")
app.command("baseline")(train.baseline)
app.command("metric-train")(train.metric_train)
app.command("pseudo-label")(train.pseudo_label)
app.command("label-curve")(train.label_curve)
app.command("plan")(units.plan)
app.command("run-unit")(units.run_unit)
app.command("launch")(units.launch)
app.command("predict")(evaluate.predict)
app.command("embed")(explore.embed)
app.command("search")(search.search)
app.command("index")(search.index)
app.command("explain")(explore.explain)
app.command("heatmap")(explore.heatmap)
app.command("export")(export.export)
app.command("explore")(explore.explore)
app.command("compare")(evaluate.compare)
app.command("blend")(evaluate.blend)
app.command("report")(evaluate.report)
app.add_typer(recipes.app, name="recipes")
app.command("doctor")(recipes.doctor)
app.command("demo")(train.demo)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    if version:
        from pcam_ssl import __version__

        print(f"pcam-ssl {__version__}")
        raise typer.Exit
    command = context.invoked_subcommand
    if is_one_of_several() and command is not None and command not in SHARED:
        instead = "; `data import` takes --workers N" if command == "data" else ""
        error = UserError(f"{command}: runs in one process; start it without torchrun{instead}")
        error.told = is_follower()
        raise error


def main() -> None:
    """Run the command line. Exit codes: 0 done, 2 the user can mend it, 3 a leak was found, 75 another worker has the unit, 130 stopped and
    saved, 1 units failed in `launch`, or a bug of ours.
    """
    if is_follower():
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
    for stream in (sys.stdout, sys.stderr):
        # A path that is no UTF-8, or a terminal that knows only ASCII, must not end a command that has done its work.
        stream.reconfigure(errors="backslashreplace")
    try:
        # Not standalone: typer would print mistakes of the command line as a box of several lines, in every process of torchrun.
        sys.exit(app(prog_name=PROGRAM, standalone_mode=False) or 0)
    except UsageError as error:
        if not is_follower():
            # Without a command the message is the whole help.
            error.show() if "\n" in error.message else _tell(usage_problem(error))
        sys.exit(2)
    except UserError as error:
        for problem in () if error.told else error.problems:
            _tell(problem)
        sys.exit(error.exit_code)
    except OSError as error:
        if (problem := refused(error)) is None:
            raise
        _tell(problem.problems[0])
        sys.exit(problem.exit_code)


def usage_problem(error: UsageError) -> str:
    """A mistake of the command line in one line: the command or option, what is wrong, and the help that says what is right."""
    command = _command_named() if error.ctx is None else error.ctx.command_path
    where, what = command.removeprefix(PROGRAM).strip(), error.format_message()
    if isinstance(error, BadParameter) and error.param is not None and error.message:
        where, what = max(error.param.opts, key=len), error.message
    elif (option := getattr(error, "option_name", None)) and (near := getattr(error, "possibilities", None)):
        what = f"no such option: {option}. Did you mean {', '.join(near)}?"
    what = what[:1].lower() + what[1:].rstrip(".")
    link = "" if what.endswith("?") else ";"
    return f"{f'{where}: ' if where else ''}{what}{link} `{command} --help` says what it takes"


def _command_named() -> str:
    """The command that the command line names, as "pcam-ssl data import"."""
    command, words = typer.main.get_command(app), [PROGRAM]
    for word in sys.argv[1:]:
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[word]
        words.append(word)
    return " ".join(words)


def _tell(problem: str) -> None:
    """A problem in one line, also where an id or a path in it has a line break."""
    print(f"pcam-ssl: {' '.join(problem.splitlines())}", file=sys.stderr)
