"""What pseudo-label rounds on the points of a curve gain over the labels alone, and over their control."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.errors import UserError, nearest
from pcam_ssl.evaluation.power_law import interval_over
from pcam_ssl.label_curve.band import Scored, band_of
from pcam_ssl.label_curve.budgets import Point
from pcam_ssl.records import read_rounds
from pcam_ssl.render.format import gain_word
from pcam_ssl.runs.run import CONTROL, Run

SUPERVISED, ROUNDS = "supervised", "rounds"
METHODS = (SUPERVISED, ROUNDS)
WANTED = 1
"""Rounds on each run where the user names no number: the first costs least, and more continue it."""


@dataclass(frozen=True)
class PointRounds:
    """The finished rounds of one run of a curve.

    `own`: out-of-fold Predictions of each fold's choice of round on its inner slides. `control`: those of the control, None where none was
    trained. Without a round that was made both are the run's own, since that is what a user is left with.
    """

    own: pd.DataFrame
    control: pd.DataFrame | None
    made: int
    stopped: str | None
    chosen: list[int]
    """The round that each fold chose."""


def wanted_rounds(method: str, rounds: int | None) -> int | None:
    """The number of rounds on each run, None for the labels alone. Raises UserError for what is no method or number of rounds."""
    if method not in METHODS:
        raise UserError(f"--method {method}: choose {' or '.join(METHODS)}.{nearest(method, METHODS)}")
    if method == SUPERVISED and rounds is not None:
        raise UserError(f"--rounds {rounds}: only with --method {ROUNDS}; add it, or leave --rounds out")
    if rounds is not None and rounds < 1:
        raise UserError(f"--rounds {rounds}: ask for at least one round")
    return None if method == SUPERVISED else rounds or WANTED


def read_point_rounds(run: Run) -> PointRounds:
    """What RUN/rounds.json and the tables beside it hold."""
    verdict, first = read_rounds(run.path), run.oof
    tables = {number: Run(run.path / f"round-{number}").oof if number else first for number in range(len(verdict["rounds"]))}
    chosen = verdict["chosen_by_fold"]["rounds"]
    own = pd.concat([tables[number][lambda oof, fold=int(fold): oof.fold == fold] for fold, number in chosen.items()])
    made, told = len(tables) - 1, verdict["control"]
    repeats_first = not made or (told is not None and told["is_round_0"])
    control = first if repeats_first else None if told is None else Run(run.path / CONTROL).oof
    return PointRounds(own, control, made, verdict["stopped"], list(chosen.values()))


def rounds_tables(points: list[Point]) -> tuple[dict[str, PointRounds], dict[str, pd.DataFrame]]:
    """The rounds of each run by its folder, and their tables by the names that `score_points` gives them."""
    read = {str(point.path): read_point_rounds(Run(point.path)) for point in points}
    tables = {f"{path}/own": each.own for path, each in read.items()}
    tables |= {f"{path}/control": each.control for path, each in read.items() if each.control is not None}
    return read, tables


def add_rounds(
    curve: dict[str, Any], wanted: int, left_out: dict[str, str], read: dict[str, PointRounds], scored: Scored
) -> dict[str, Any]:
    """The values of `curve_values`, each point with its `rounds` (None where left out), and `rounds` of the curve.

    `left_out`: by budget, why its runs have no rounds. The curve's `gaining` names the budgets of measurable gains over both.
    """
    points = [
        point | {"rounds": None if point["name"] in left_out else _at(point["runs"], read, scored)} for point in curve["points"]
    ]
    gaining = [point["name"] for point in points if point["rounds"] is not None and point["rounds"]["gains"]]
    return curve | {"points": points, "rounds": {"wanted": wanted, "gaining": gaining, "left_out": left_out}}


def _at(paths: list[str], read: dict[str, PointRounds], scored: Scored) -> dict[str, Any]:
    """AUROC with rounds at a budget, and its paired differences to the labels alone and to the control, over the same slides and draws."""
    names = [f"{path}/own" for path in paths]
    own = np.array([scored.aurocs[name] for name in names])
    difference, above, control = _paired(names, paths, scored), None, None
    if all(read[path].control is not None for path in paths):
        controls = [f"{path}/control" for path in paths]
        above = _paired(names, controls, scored)
        control = _band(controls, scored)
    return {
        "auroc": _band(names, scored),
        "draws": {"values": own.tolist(), "sd": float(own.std(ddof=1)) if len(own) > 1 else None},
        "control": control,
        "difference": difference,
        "against_control": above,
        "gains": above is not None and gain_word(difference) == gain_word(above) == "a gain",
        "made": [read[path].made for path in paths],
        "stopped": [read[path].stopped for path in paths],
        "folds": sum(len(read[path].chosen) for path in paths),
        "folds_in_rounds": sum(number > 0 for path in paths for number in read[path].chosen),
    }


def _band(names: list[str], scored: Scored) -> dict[str, Any]:
    own = np.array([scored.aurocs[name] for name in names])
    return band_of(own, np.mean([scored.drawn[name] for name in names], axis=0), scored.groups)


def _paired(names: list[str], others: list[str], scored: Scored) -> dict[str, Any]:
    """AUROC of `names` minus that of `others`, run by run: over resampled slides and over draws."""
    draws = np.array([scored.aurocs[name] - scored.aurocs[other] for name, other in zip(names, others, strict=True)])
    drawn = np.mean([scored.drawn[name] - scored.drawn[other] for name, other in zip(names, others, strict=True)], axis=0)
    return interval_over(draws.mean(keepdims=True), drawn, draws, scored.groups)
