"""`pcam-ssl launch`: run all units of a file on workers, and say what came of it."""

import os
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.files import check_folder
from pcam_ssl.recipe.yaml_text import parse_yaml
from pcam_ssl.runs.run import Run
from pcam_ssl.terminal import say
from pcam_ssl.units.attempts import Workers, run_all
from pcam_ssl.units.local import LocalWorkers
from pcam_ssl.units.ray_tasks import RayWorkers
from pcam_ssl.units.run_unit import check_unit_dataset
from pcam_ssl.units.slurm import SlurmWorkers, slurm_executor
from pcam_ssl.units.unit import Unit, is_combined, is_finished, read_units
from pcam_ssl.units.worker import Job, short

PLACES = ("local", "slurm", "ray")
LOCAL_WORKERS = 2


class UnitsFailed(UserError):
    """Units failed; a line for each, with the place of its log."""

    exit_code = 1


@dataclass(frozen=True)
class Launched:
    """What became of the units: folders of the runs that have all folds, those that lack some, and a line for each unit that failed."""

    finished: tuple[str, ...]
    unfinished: tuple[str, ...]
    failed: tuple[str, ...]

    @property
    def runs(self) -> list[Run]:
        """The finished runs, in order."""
        return [Run(Path(path)) for path in self.finished]

    @property
    def next(self) -> str | None:
        """The command that shows what came out; None where no run is finished."""
        if not self.finished:
            return None
        return shlex.join(["pcam-ssl", "compare" if len(self.finished) > 1 else "report", *self.finished])

    def raise_failures(self) -> None:
        """Raises UnitsFailed, one line a unit, where some failed."""
        if self.failed:
            raise UnitsFailed(*self.failed)


def launch_units(
    path: Path | str,
    on: str = "local",
    *,
    workers: int | None = None,
    retries: int = 2,
    requests: list[str] | None = None,
    address: str | None = None,
    logs: Path | str | None = None,
    data: Path | str | None = None,
) -> Launched:
    """Run all units of a file that are not finished. A unit whose worker is killed or crashes is started again up to `retries` times.

    `on`: local (`workers` processes, 2 by default), slurm or ray (`workers` at a time, all by default). `requests` ('KEY=VALUE') is what a
    worker asks the cluster for. Logs lie in `logs`, by default beside the file. Raises UserError for what no worker could run, and Stopped
    where it is interrupted; workers save their state first.
    """
    asked = _check_options(on, workers, requests or [], address)
    units = read_units(path)
    missing = [unit for unit in units if not is_finished(unit)]
    for unit in {(unit.dataset, unit.dataset_digest): unit for unit in missing}.values():
        # On a cluster the dataset need not be where it is launched; each worker checks its own.
        if on == "local" or Path(unit.dataset if data is None else data).exists():
            check_unit_dataset(unit, path, data)
    folder = (Path(path).with_suffix(".logs") if logs is None else Path(logs)).absolute()
    check_folder("--logs", folder)
    failed: dict[int, str] = {}
    if missing:
        place = None if data is None else str(Path(data).absolute())
        jobs = {
            n: Job(str(Path(path).absolute()), n, str(folder / f"unit-{n:04}.log"), os.getcwd(), place)
            for n in (unit.unit for unit in missing)
        }
        pool = _open(on, len(missing), workers, asked, address, folder)
        say(f"{path}: {len(missing)} of {len(units)} units to run, {pool.size} at a time, on {on}; logs in {short(str(folder))}")
        failed = _run_or_stop(pool, missing, jobs, retries, str(path))
    runs = {unit.run: is_combined(Run(Path(unit.run))) for unit in units}
    return Launched(
        tuple(short(run) for run, combined in runs.items() if combined),
        tuple(short(run) for run, combined in runs.items() if not combined),
        tuple(failed[number] for number in sorted(failed)),
    )


def _run_or_stop(pool: Workers, units: list[Unit], jobs: dict[int, Job], retries: int, what: str) -> dict[int, str]:
    """A line for each unit that failed. Whatever ends this early ends the workers, too; raises Stopped at an interrupt."""
    with _sigterm_as_interrupt():
        try:
            return run_all(pool, {unit.unit: unit for unit in units}, jobs, retries)
        except BaseException as error:
            say(f"{what}: stopping; each unit finishes its step and saves its state")
            pool.stop()
            if not isinstance(error, KeyboardInterrupt):
                raise
            from pcam_ssl.training.checkpoint import Stopped

            raise Stopped(f"{what}: stopped; what is finished is kept, and the same command goes on from there") from None
        finally:
            pool.close()


def _check_options(on: str, workers: int | None, requests: list[str], address: str | None) -> dict[str, Any]:
    """The requests by key. Raises UserError for options that do not fit each other."""
    if on not in PLACES:
        raise UserError(f"--on {on}: choose {', '.join(PLACES)}")
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: at least one is needed")
    if on == "local" and requests:
        raise UserError(f"--request {requests[0]}: is for slurm and ray; leave it out")
    if on != "ray" and address is not None:
        raise UserError(f"--address {address}: is for ray; leave it out")
    return _requests(requests)


def _open(on: str, n_units: int, workers: int | None, requests: dict[str, Any], address: str | None, folder: Path) -> Workers:
    """Workers for `n_units`. No more than that many: those of one machine share its cores."""
    workers = None if workers is None else min(workers, n_units)
    if on == "slurm":
        return SlurmWorkers(n_units, slurm_executor(folder / "slurm", workers, requests))
    if on == "ray":
        return RayWorkers(n_units, workers, requests, address, folder)
    return LocalWorkers(min(LOCAL_WORKERS, n_units) if workers is None else workers)


def _requests(requests: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` with values as YAML reads them."""
    for request in requests:
        if "=" not in request or not request.partition("=")[0].strip():
            raise UserError(f"--request {request}: write KEY=VALUE, as partition=gpu (slurm) or num_gpus=1 (ray)")
    try:
        return {key.strip(): parse_yaml(value) for key, _, value in (request.partition("=") for request in requests)}
    except yaml.YAMLError as error:
        raise UserError(f"--request: a value is not readable as YAML ({first_line(error)}); quote it") from None


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the workers as Ctrl-C does. Threads cannot set handlers, and need none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
