"""`pcam-ssl plan`, `pcam-ssl run-unit` and `pcam-ssl launch`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pcam_ssl.cli.options import DataOption, SetOption
from pcam_ssl.errors import UserError

UnitsArgument = Annotated[Path, Argument(metavar="UNITS", help="file that `pcam-ssl plan` made")]
PlaceOption = Annotated[
    Path | None, Option("--data", metavar="DATASET", help="the dataset's place, where it is not that of the plan")
]


def plan(
    recipes: Annotated[list[str], Argument(metavar="RECIPE...", help="shipped names (`pcam-ssl recipes list`) or .yaml files")],
    data: DataOption = Path("data/pcam"),
    set: SetOption = None,
    sweep: Annotated[
        list[str] | None, Option("--sweep", metavar="KEY=A,B", help="a run for each value; repeatable for every combination")
    ] = None,
    folds: Annotated[str | None, Option("--folds", metavar="K,K,...", help="these folds only (default: all)")] = None,
    seeds: Annotated[str | None, Option("--seeds", metavar="N,N,...", help="a run for each seed, all on the same folds")] = None,
    out: Annotated[Path, Option("--out", metavar="DIR", help="folder of the runs")] = Path("runs/units"),
) -> None:
    """Print units of work for many machines, a line of JSON each: every fold of every recipe, value and seed. Nothing is trained.

    Example: pcam-ssl plan smoke article-resnet34 --seeds 0,1,2 > units.jsonl
    """
    from pcam_ssl.api import plan

    units = plan(
        recipes, data, set or [], axes=sweep or [], folds=numbers("--folds", folds), seeds=numbers("--seeds", seeds), out=out
    )
    for unit in units:
        print(unit.line)


def run_unit(
    units: UnitsArgument,
    number: Annotated[int, Argument(metavar="N", help="which unit, counted from 0 (line N + 1 of the file)")],
    data: PlaceOption = None,
) -> None:
    """Train unit N of a plan, or continue it; N counts from 0. Exit code 0 where it is finished, 75 where another worker has it.

    Whoever finishes the last fold of a run combines the run.

    Example: pcam-ssl run-unit units.jsonl 0
    """
    from pcam_ssl.api import run_unit

    run = run_unit(units, number, data=data)
    if run.paths.report.exists():
        print(f"{run.path}: finished, {run.paths.report}")


def launch(
    units: UnitsArgument,
    on: Annotated[
        str, Option("--on", metavar="WHERE", help="local, slurm (extra: pcam-ssl[slurm]) or ray (extra: pcam-ssl[ray])")
    ] = "local",
    workers: Annotated[
        int | None, Option("--workers", metavar="N", help="units at a time (default: 2 with local, else all that the cluster runs)")
    ] = None,
    retries: Annotated[int, Option("--retries", min=0, help="how often a unit is started again whose worker was killed")] = 2,
    request: Annotated[
        list[str] | None,
        Option(
            "--request", metavar="KEY=VALUE", help="what a worker asks for: partition=gpu (slurm), num_gpus=1 (ray); repeatable"
        ),
    ] = None,
    address: Annotated[
        str | None, Option("--address", help="ray: the cluster (default: $RAY_ADDRESS, else Ray is started here)")
    ] = None,
    logs: Annotated[
        Path | None, Option("--logs", metavar="DIR", help="a log for each unit (default: beside UNITS, as .logs)")
    ] = None,
    data: PlaceOption = None,
) -> None:
    """Run the missing units of a plan on workers of this machine, SLURM or Ray. Units that are killed continue from their checkpoints.

    Exit code 1 where units failed, with a line and a log for each. Ctrl-C ends the workers, which save their state.

    Example: pcam-ssl launch units.jsonl --on local --workers 2

    Example: pcam-ssl launch units.jsonl --on slurm --request partition=gpu --request gpus_per_node=1
    """
    from pcam_ssl.api import launch

    done = launch(units, on=on, workers=workers, retries=retries, requests=request or [], address=address, logs=logs, data=data)
    for run in done.finished:
        print(f"{run}: finished")
    for run in done.unfinished:
        print(f"{run}: folds are missing")
    if done.next is not None:
        print(f"next: {done.next}")
    done.raise_failures()


def numbers(option: str, text: str | None) -> list[int] | None:
    """Whole numbers separated by commas. Raises UserError for anything else."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise UserError(f"{option} {text}: write whole numbers separated by commas, as {option} 0,1,2")
    return [int(word) for word in words]
