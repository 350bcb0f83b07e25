"""A verdict as the pseudo-label command writes it to rounds.json, small and made by hand."""

from typing import Any

from pcam_ssl.pseudo_labels.verdict import SCORES, WITHHELD


def score(value=0.9, half_width=0.01, reason=None) -> dict[str, Any]:
    if value is None:
        return {"value": None, "low": None, "high": None, "reason": reason}
    return {"value": value, "low": value - half_width, "high": value + half_width}


def shares(precision=0.99, coverage=0.6, n=1500) -> dict[str, Any]:
    """What `added_scores` says."""
    return {
        "known": 5000,
        "added": 2 * n,
        "precision": {name: {**score(precision, 0.005), "n": n} for name in ("tumor", "normal", "all")},
        "coverage": {name: {**score(coverage, 0.05), "n": 2500} for name in ("tumor", "normal", "all")},
        "predicted": dict.fromkeys(("tumor", "normal", "all"), 0.975),
    }


def fold_facts(unproven: str | None = None, nothing: str | None = None) -> dict[str, Any]:
    thresholds = {name: {"prob": None if name == unproven else 0.97} for name in ("tumor", "normal")}
    return {"thresholds": thresholds, "nothing": nothing}


def row(number: int, auroc: float, gain: float, **changed) -> dict[str, Any]:
    counts = {"tumor": 1412, "normal": 1530, "new": 2900, "kept": 0, "flipped": 7, "taken_back": 42}
    return {
        "number": number,
        "labels_used": {"mean": 800.0, "by_fold": [790, 810]},
        "added": counts if number else None,
        "inner": {"auroc": auroc + 0.001, "nll": 0.31, "by_fold": {}},
        "out_of_fold": dict.fromkeys(SCORES, score(auroc)),
        "against_round_0": dict.fromkeys(SCORES, score(gain, 0.004)) if number else None,
        "against_control": dict.fromkeys(SCORES, score(gain - 0.002, 0.004)) if number else None,
        "cost": {"patch_passes": 20_000 * (1 + number), "cached": False},
        "truth": shares() if number else None,
        "facts": [fold_facts(), fold_facts()] if number else None,
        "transductive": {"n": 5000, "scores": {"auroc": score(0.93)}},
        "folder": f"runs/k/round-{number}" if number else "runs/k",
        **changed,
    }


def control(**changed) -> dict[str, Any]:
    """A control that trained twice as long as round 0, of two folds."""
    return {
        "folder": "runs/k/control",
        "is_round_0": False,
        "of_round": 2,
        "steps": [400, 420],
        "round_0_steps": [200, 210],
        "epochs": 16,
        "cost": {"patch_passes": 52_480, "cached": False},
        "out_of_fold": dict.fromkeys(SCORES, score(0.947)),
        "against_round_0": dict.fromkeys(SCORES, score(0.002, 0.004)),
        **changed,
    }


def verdict(**changed) -> dict[str, Any]:
    """Round 1 a little better than round 0, not measurably; round 2 measurably, and better than the control."""
    rows = [row(0, 0.945, 0), row(1, 0.948, 0.003), row(2, 0.957, 0.012)]
    own = row(2, 0.956, 0.011)
    return {
        "round0": "runs/k",
        "best": 2,
        "best_folder": "runs/k/round-2",
        "best_inner": 2,
        "why": "the best on inner slides, with a measurable gain over round 0 and the control",
        "decided_by_scores": True,
        "pooled": False,
        "planted": {
            "target": 0.98,
            "folds": [fold_facts()],
            "classes": {
                name: {"precision": score(0.985, 0.01), "coverage": score(0.55), "added": 412, "of": 760}
                for name in ("tumor", "normal")
            },
            "met": True,
            "reason": None,
        },
        "pool": {
            "patches": 5000.0,
            "test": 4000.0,
            "unlabelled": 0.0,
            "hidden": 1000.0,
            "on_training_slides": 1000.0,
            "without_slide": 0.0,
            "left_out_slides": 300.0,
            "left_out_copies": 0.0,
        },
        "rounds": rows,
        "chosen_by_fold": {
            "rounds": {"0": 2, "1": 1},
            "out_of_fold": own["out_of_fold"],
            "against_round_0": own["against_round_0"],
            "against_control": own["against_control"],
        },
        "control": control(),
        "stopped": None,
        "unit": "slide",
        "verdict": "A gain.",
        **changed,
    }


def pooled() -> dict[str, Any]:
    """Rounds whose out-of-fold scores are withheld."""
    withheld = dict.fromkeys(SCORES, score(None, reason=WITHHELD))
    hidden = {"out_of_fold": withheld, "against_round_0": withheld, "against_control": None, "transductive": None}
    rows = [row(0, 0.945, 0, transductive=None), row(1, 0.948, 0.003, **hidden)]
    more = {"best_inner": 1, "why": "the last", "decided_by_scores": False, "control": None}
    return verdict(pooled=True, best=1, rounds=rows, chosen_by_fold=None, **more)
