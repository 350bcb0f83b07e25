"""Workers of SLURM: units as an array of jobs, by submitit. Extra: `pcam-ssl[slurm]`."""

import math
import signal
import subprocess
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.units.worker import GRACE_S, Job, Outcome

POLL_S = 0.2
TIME_MIN = 240
"""The time limit of a job where none is asked for. A unit that needs longer is queued again and continues."""
REQUEUES = 20
"""How often a job is queued again whose time was up."""


class SlurmUnit:
    """What submitit runs in a job. Where the time is up or the job is preempted, the unit saves its state and is queued again."""

    def __init__(self, job: Job):
        self.job = job
        self._process: subprocess.Popen | None = None
        self._code: int | None = None

    def __call__(self) -> Outcome:
        from submitit import JobEnvironment

        # SLURM may send its warning to all processes of a job; the unit must not die of it before it is asked to save its state.
        try:
            self._process = self.job.start(ignored=signal.Signals[f"SIG{JobEnvironment.USR_SIG}"])
        except UserError as error:
            return str(error)
        threading.Thread(target=self._wait, daemon=True).start()
        self._sleep_until_ended()
        return self._code

    def checkpoint(self) -> Any:
        """Stop the unit and return what submitit queues again. submitit calls it in a signal handler, in the middle of `__call__`."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.terminate()
            if not self._sleep_until_ended(GRACE_S):
                self._process.kill()
        return DelayedSubmission(SlurmUnit(self.job))

    def _wait(self) -> None:
        self._code = self._process.wait()

    def _sleep_until_ended(self, timeout_s: float = math.inf) -> bool:
        """Whether the process has ended within the time. Takes no lock: a signal handler that waits for one held by what it interrupted never ends."""
        until = time.monotonic() + timeout_s
        while self._code is None and time.monotonic() < until:
            time.sleep(POLL_S)
        return self._code is not None

    def __getstate__(self) -> dict[str, Any]:
        return {"job": self.job, "_process": None, "_code": None}


class SlurmWorkers:
    """All units at once as an array of jobs, of which SLURM runs `workers` at a time."""

    def __init__(self, n_units: int, executor: Any):
        self.size = n_units
        self._executor = executor
        self._jobs: dict[int, Any] = {}

    def start(self, jobs: list[Job]) -> None:
        """Submit units as one array. Raises UserError where SLURM refuses it."""
        from submitit.core.utils import FailedJobError

        try:
            with self._executor.batch():
                submitted = [(job.number, self._executor.submit(SlurmUnit(job))) for job in jobs]
        except FailedJobError as error:
            raise UserError(
                f"--on slurm: sbatch refuses the jobs ({first_line(error)}); mend what is asked for with --request"
            ) from None
        self._jobs.update(submitted)

    def ended(self) -> list[tuple[int, Outcome]]:
        """The units that ended since the last call, with their exit codes; None for a job that left none, and in words what kept a job
        from starting one."""
        done = [number for number, job in self._jobs.items() if job.done()]
        return [(number, _outcome(self._jobs.pop(number))) for number in done]

    def stop(self) -> None:
        """Cancel all jobs; each unit gets SIGTERM and saves its state."""
        for job in self._jobs.values():
            job.cancel(check=False)
        self._jobs.clear()

    def close(self) -> None:
        """Nothing is left to be closed."""


def _outcome(job: Any) -> Outcome:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        return job.result()
    except (FailedJobError, UncompletedJobError):
        return None


def slurm_executor(folder: Path, workers: int | None, requests: dict[str, Any]) -> Any:
    """submitit's executor with what the jobs ask for. Raises UserError where submitit or SLURM is absent, or a request is unknown."""
    if find_spec("submitit") is None:
        raise UserError("--on slurm: submitit is not installed; pip install 'pcam-ssl[slurm]'")
    import submitit

    absent = next((command for command in ("sbatch", "srun") if which(command) is None), None)
    if absent is not None:
        raise UserError(f"--on slurm: there is no {absent} on this machine; launch where sbatch and srun are")
    executor = submitit.SlurmExecutor(folder, max_num_timeout=REQUEUES)
    wanted = {"job_name": "pcam-ssl", "time": TIME_MIN, "stderr_to_stdout": True, **requests}
    if workers is not None:
        wanted["array_parallelism"] = workers
    try:
        executor.update_parameters(**wanted)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"--request: {first_line(error)}; write a parameter of submitit's SlurmExecutor, as partition=gpu or gpus_per_node=1"
        ) from None
    return executor
