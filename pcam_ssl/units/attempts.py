"""Units on workers until each has ended: those that are killed or crash are started again, those that others train are waited for."""

import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from pcam_ssl.terminal import say, warn
from pcam_ssl.units.run_unit import Taken
from pcam_ssl.units.unit import Unit
from pcam_ssl.units.worker import Job, Outcome, short

POLL_S = 0.2
TAKEN_S, MOST_TAKEN_S = 10.0, 300.0
"""A unit that a worker of somebody else has is asked for again after this time: it may have been killed. The time doubles up to the
second number, because each time costs the start of a process, or a job of SLURM."""


class Workers(Protocol):
    """What runs units: on this machine, on SLURM, on Ray."""

    size: int

    def start(self, jobs: list[Job]) -> None: ...

    def ended(self) -> list[tuple[int, Outcome]]: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


@dataclass
class _Queue:
    """Units that wait, and from when on each may be started."""

    waiting: list[int]
    not_before: dict[int, float] = field(default_factory=dict)

    def take(self, n: int) -> list[int]:
        """Up to `n` units that may start now."""
        now = time.monotonic()
        ready = [number for number in self.waiting if self.not_before.get(number, 0.0) <= now][: max(0, n)]
        self.waiting = [number for number in self.waiting if number not in ready]
        return ready

    def put_back(self, number: int, after_s: float = 0.0) -> None:
        self.waiting.append(number)
        self.not_before[number] = time.monotonic() + after_s


def run_all(pool: Workers, units: dict[int, Unit], jobs: dict[int, Job], retries: int) -> dict[int, str]:
    """Run units until each has ended. Returns a line for each that failed."""
    queue, running, tries, failed = _Queue(list(jobs)), set(), Counter(), {}
    n_done, taken_s = 0, {}
    while queue.waiting or running:
        begun = queue.take(pool.size - len(running))
        if begun:
            pool.start([jobs[number] for number in begun])
            running.update(begun)
        for number, code in pool.ended():
            running.discard(number)
            unit, job = units[number], jobs[number]
            if code == 0:
                n_done += 1
                say(f"{unit}: finished ({n_done} of {len(units)})")
            elif code == Taken.exit_code:
                if number not in taken_s:
                    say(f"{unit}: another worker has it; waiting for that one")
                taken_s[number] = min(2 * taken_s[number], MOST_TAKEN_S) if number in taken_s else TAKEN_S
                queue.put_back(number, taken_s[number])
            elif isinstance(code, str):
                failed[number] = f"{unit}: {code}"
                warn(failed[number])
            elif tries[number] < retries and not _is_hopeless(code):
                tries[number] += 1
                warn(f"{unit}: {_ending(code)}; starting it again ({tries[number]} of {retries}), it continues from its checkpoint")
                queue.put_back(number)
            else:
                # The log of a process that was killed does not say so.
                why = f" ({job.reason})" if code is not None and code > 0 else ""
                failed[number] = f"{unit}: {_ending(code)}{why}; its log is {short(job.log)}"
                warn(failed[number])
        time.sleep(POLL_S)
    return failed


def _is_hopeless(code: int | None) -> bool:
    """Whether another try must end the same way: the unit was refused, and the user can mend it."""
    return code in (2, 3)


def _ending(code: int | None) -> str:
    """How a unit ended, in words."""
    if code is None:
        return "its worker is lost"
    if code < 0:
        # Real-time signals have numbers only.
        known = {each.value: each.name for each in signal.Signals}
        return f"killed by {known.get(-code, f'signal {-code}')}"
    return {2: "refused", 130: "stopped by a signal"}.get(code, f"failed with exit code {code}")
