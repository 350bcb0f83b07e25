"""Values of the JSON files that commands write, with the required keys only."""

from typing import Any


def run_info(**changed) -> dict[str, Any]:
    """The values of run.json."""
    info = {"command": "baseline", "argv": [], "begun": "2026-01-02T03:04:05+0000", "versions": {}, "recipe_digest": "r"}
    return {**info, "dataset": "slides", "dataset_digest": "d", **changed}


def blend_info(*runs: str) -> dict[str, Any]:
    """The values of run.json of a blend of `runs`."""
    fields = {"table": None, "weight": 1 / len(runs), "recipe_digest": "r", "predictions_digest": "p"}
    members = [{"run": run, "name": run, **fields} for run in runs]
    return run_info(command="blend", blend={"method": "mean", "max_correlation": None, "members": members})


def rounds_info(**changed) -> dict[str, Any]:
    """The values of rounds.json with two rounds, the second one best."""
    rows = [{"number": n, "inner": {"auroc": None, "nll": None}, "out_of_fold": None, "facts": None} for n in (0, 1)]
    values = {"round0": "run", "best": 1, "pooled": False, "pool": {}, "planted": None, "rounds": rows}
    return {**values, "verdict": "a gain", "stopped": None, **changed}
