"""Reading the JSON files that commands write: the keys that each must have, and the command that makes a damaged one again.

A shape lists the keys that the code reads without checking for them. Files of other versions may have more keys.
"""

import json
from pathlib import Path
from shlex import quote
from typing import Any

from pcam_ssl.errors import UserError
from pcam_ssl.files import misfit, read_json

NUMBER = (int, float)
MAYBE = (int, float, None)
INTERVAL = {"value": MAYBE, "low": MAYBE, "high": MAYBE}
COUNTS = {"n": int, "n_positive": int}
REPORT = {
    **COUNTS,
    "n_slides": (int, None),
    "n_slides_tumor": (int, None),
    "n_slides_normal": (int, None),
    "n_unlabelled": int,
    "interval": str,
    "scores": {str: INTERVAL, "auroc": INTERVAL, "nll": INTERVAL},
    "within_folds": {"auroc": {**INTERVAL, "folds": int}},
    "per_fold": [{"fold": int, **COUNTS, "scores": {str: MAYBE, "auroc": MAYBE}}],
    "per_slide": [{"wsi": str, **COUNTS, "scores": {str: MAYBE, "auroc": MAYBE}}],
}
SCORES = {
    "scheme": str,
    "grouping": str,
    "slides_shared_across_folds": bool,
    "selected_on_fold": bool,
    "notes": [str],
    "out_of_fold": (REPORT, None),
    "floor": (REPORT, None),
    "above_floor": ({str: INTERVAL, "auroc": INTERVAL}, None),
    "held_out": ({str: REPORT}, None),
}
INFO = {
    "command": str,
    "argv": [str],
    "begun": str,
    "dataset": str,
    "dataset_digest": str,
    "recipe_digest": str,
    "versions": {str: str},
}
MEMBER = {"run": str, "table": (str, None), "name": str, "weight": NUMBER, "recipe_digest": str, "predictions_digest": str}
BLEND_INFO = {**INFO, "blend": {"method": str, "max_correlation": MAYBE, "members": [MEMBER]}}
CALIBRATION = {"temperature": NUMBER}
NEIGHBOURS = {"vote": {"k": int, "temperature": NUMBER}, "calibration": CALIBRATION}
BLENDED_NEIGHBOURS = {**NEIGHBOURS, "blend": {"weight": NUMBER}}
GRAPH = {"choice": {"k": int, "alpha": NUMBER, "power": NUMBER, "scale": NUMBER}, "calibration": CALIBRATION}
SPATIAL = {"weight": NUMBER, "calibration": CALIBRATION}
MEAN_CALIBRATION = {"folds": [int], "tables": {str: CALIBRATION}}
FOLD = {"fold": int, "epoch": int}
MODEL = {
    "fold": int,
    "network": {"architecture": str, "arguments": dict, "image_size": (int, None), "mean": [NUMBER], "std": [NUMBER], "name": str},
    "calibration": CALIBRATION,
    "precision": {"name": str, "channels_last": bool, "why": str},
}
ROUNDS = {
    "round0": str,
    "best": int,
    "pooled": bool,
    "pool": {str: NUMBER},
    "planted": ({"target": MAYBE, "folds": list, "classes": dict, "met": bool}, None),
    "rounds": [{"number": int, "inner": {"auroc": MAYBE, "nll": MAYBE}, "out_of_fold": (dict, None), "facts": (list, None)}],
    "verdict": str,
    "stopped": (str, None),
}
CONTROL = {
    "folder": (str, None),
    "is_round_0": bool,
    "of_round": int,
    "steps": ([int], None),
    "round_0_steps": ([int], None),
    "epochs": (int, None),
    "cost": (dict, None),
    "out_of_fold": dict,
    "against_round_0": (dict, None),
}
CURVE_POINT = {"budget": (int, None), "name": str, "labels": NUMBER, "slides": MAYBE, "auroc": INTERVAL, "runs": [str]}
LABEL_CURVE = {
    "dataset_digest": str,
    "curves": {
        str: {"by": str, "unit": str, "seeds": [int], "points": [CURVE_POINT], "doubled": (dict, None), "fit": (dict, None)}
    },
    "patches_or_slides": ({"mean": INTERVAL}, None),
    "commands": {str: (str, None)},
    "next_command": (str, None),
}
HEAT_MAP = {
    **{"slide": str, "page": str, "fold": (int, None), "scored": str, "label": (int, None)},
    **{"tiles": int, "share": NUMBER, "lesion_cells": int, "lesion_mm2": MAYBE, "maximum": NUMBER, "percentile_99": NUMBER},
}
HEAT_MAPS = {"run": str, "dataset": str, "networks": {str: str}, "slides": [HEAT_MAP]}
EMBEDDING = {
    "network": {"digest": str},
    "dataset": {"path": str, "digest": str, "packed": bool},
    "n": int,
    "dimension": int,
}


def read_info(folder: Path) -> dict[str, Any]:
    """run.json of a run. Raises UserError where there is no run, or it is damaged."""
    path = folder / "run.json"
    if not path.exists():
        raise UserError(f"{folder}: no run there; `pcam-ssl baseline --out {quote(str(folder))}` makes one")
    again = f"delete {folder}, and the command that made it makes it again"
    info = read_json(path, INFO, again)
    return read_json(path, BLEND_INFO, again) if info["command"] == "blend" else info


def read_mean_calibration(folder: Path) -> dict[str, Any] | None:
    """What run.json says of the mean over folds, None where its folds are not all there yet. Raises UserError where it is damaged."""
    info = read_info(folder)
    if "mean_calibration" in info and (wrong := misfit(info["mean_calibration"], MEAN_CALIBRATION, "mean_calibration")):
        raise UserError(f"{folder / 'run.json'}: damaged ({wrong}); delete {folder}, and the command that made it makes it again")
    return info.get("mean_calibration")


def read_scores(folder: Path) -> dict[str, Any]:
    """scores.json of a finished run. Raises UserError where it is not finished, or the file is damaged."""
    path = folder / "scores.json"
    if not path.exists():
        raise UserError(f"{folder}: not finished yet; run its command again, it goes on where it stopped")
    return read_json(path, SCORES, "delete it, and the run's command makes it again (delete the whole folder of a blend)")


def read_label_curve(folder: Path) -> dict[str, Any]:
    """label-curve.json of a folder. Raises UserError where it is absent or damaged."""
    return read_json(folder / "label-curve.json", LABEL_CURVE, "delete it, and `pcam-ssl label-curve` makes it again")


def read_fold(folder: Path) -> dict[str, Any]:
    """fold.json of a finished unit, `fold-K` or `refit`. Raises UserError where it is damaged."""
    return read_json(folder / "fold.json", FOLD, _train_again(folder))


def read_neighbours(folder: Path, blended: bool = False) -> dict[str, Any]:
    """The kNN section of a unit's fold.json, with its blend where `blended`. Raises UserError where it is absent or damaged."""
    shape = {**FOLD, "neighbours": BLENDED_NEIGHBOURS if blended else NEIGHBOURS}
    return read_json(folder / "fold.json", shape, _train_again(folder))["neighbours"]


def read_graph(folder: Path) -> dict[str, Any]:
    """The section of label propagation in a unit's fold.json. Raises UserError where it is absent or damaged."""
    return read_json(folder / "fold.json", {**FOLD, "graph": GRAPH}, _train_again(folder))["graph"]


def read_spatial(folder: Path) -> dict[str, Any]:
    """The section of smoothing in space in a unit's fold.json. Raises UserError where it is absent or damaged."""
    return read_json(folder / "fold.json", {**FOLD, "spatial": SPATIAL}, _train_again(folder))["spatial"]


def read_model(folder: Path, number: int) -> dict[str, Any]:
    """model.json of a unit. Raises UserError where it has no network yet, or the file is damaged or not of format `number`."""
    path = folder / "model.json"
    if not path.exists():
        raise UserError(f"{folder}: holds no trained network; train the run to its end first")
    found = read_json(path, {"format": int}, _train_again(folder))["format"]
    if found != number:
        raise UserError(f"{path}: format {found}, this pcam-ssl reads {number}; use the pcam-ssl that trained it")
    return read_json(path, MODEL, _train_again(folder))


def read_rounds(folder: Path) -> dict[str, Any]:
    """rounds.json, which compares the pseudo-label rounds. Raises UserError where it is damaged."""
    again = f"`pcam-ssl pseudo-label {quote(str(folder))}` writes it again from the rounds that are there"
    verdict = read_json(folder / "rounds.json", ROUNDS, again)
    # Verdicts of earlier versions know no control.
    if "control" in verdict and (wrong := misfit(verdict["control"], (CONTROL, None), "control")):
        raise UserError(f"{folder / 'rounds.json'}: damaged ({wrong}); {again}")
    if not 0 <= verdict["best"] < len(verdict["rounds"]):
        raise UserError(f"{folder / 'rounds.json'}: damaged (best is {verdict['best']} of {len(verdict['rounds'])}); {again}")
    return verdict


def read_embedding(folder: Path) -> dict[str, Any]:
    """embedding.json of a folder that `pcam-ssl embed` made. Raises UserError where it is damaged."""
    return read_json(folder / "embedding.json", EMBEDDING, f"delete {folder}, and embed again with `pcam-ssl embed`")


def read_heat_maps(path: Path) -> dict[str, Any]:
    """summary.json of heat maps. Raises UserError where it is absent or damaged."""
    return read_json(path, HEAT_MAPS, "delete it, and map all slides again")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The events of a metrics.jsonl, each with `step`. A last line cut short by a kill is dropped. Raises UserError for other damage."""
    if not path.exists():
        return []
    try:
        *lines, _cut_short = path.read_text(encoding="utf-8").split("\n")
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise _damaged_metrics(path, error) from None
    events = []
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
        except json.JSONDecodeError as error:
            raise _damaged_metrics(path, f"line {number}: {error}") from None
        if (problem := misfit(event, {"step": int})) is not None:
            raise _damaged_metrics(path, f"line {number}: {problem}")
        events.append(event)
    return events


def _damaged_metrics(path: Path, reason) -> UserError:
    fix = f"delete it to do without its curves, or {_train_again(path.parent)}"
    return UserError(f"{path}: damaged ({reason}); {fix}")


def _train_again(folder: Path) -> str:
    return f"delete {folder}, and the run's command trains it again"
