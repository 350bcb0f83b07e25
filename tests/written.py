"""JSON files as commands write them, with what readers insist on and nothing more."""

from typing import Any


def run_info(**changed) -> dict[str, Any]:
    """What run.json holds."""
    info = {"command": "baseline", "argv": [], "begun": "2026-01-02T03:04:05+0000", "versions": {}, "recipe_digest": "r"}
    return {**info, "dataset": "slides", "dataset_digest": "d", **changed}


def blend_info(*runs: str) -> dict[str, Any]:
    """What run.json of a blend of `runs` holds."""
    known = {"table": None, "weight": 1 / len(runs), "recipe_digest": "r", "predictions_digest": "p"}
    members = [{"run": run, "name": run, **known} for run in runs]
    return run_info(command="blend", blend={"method": "mean", "max_correlation": None, "members": members})


def rounds_told(**changed) -> dict[str, Any]:
    """What rounds.json of two rounds holds, the second the best."""
    rows = [{"number": n, "inner": {"auroc": None, "nll": None}, "out_of_fold": None, "facts": None} for n in (0, 1)]
    told = {"round0": "run", "best": 1, "pooled": False, "pool": {}, "planted": None, "rounds": rows}
    return {**told, "verdict": "a gain", "stopped": None, **changed}
