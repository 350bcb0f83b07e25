"""Stop rules of pseudo-label rounds. Each returns a sentence that names the rule where it fires, else None.

`facts` are the facts of `decide`, one entry per fold; a limit of None switches the rule off.
"""

from pcam_ssl.evaluation.metrics import ROUNDING
from pcam_ssl.tables import CLASSES


def added_too_few(facts: list[dict], limit: float | None) -> str | None:
    """Fires where all folds together would add less than the share `limit` of their pools."""
    pool, added = sum(fold["pool"] for fold in facts), _added(facts)
    if limit is None or (pool and added >= limit * pool - ROUNDING):
        return None
    counts = f"{added} of {pool} pool patches would be added"
    if not pool:
        return f"{counts}; pseudo-labels need unlabelled patches (pseudo.stop_share)"
    return f"{counts} ({added / pool:.2%}), less than {limit:.2%} (pseudo.stop_share={limit:g})"


def ratio_off(facts: list[dict], limit: float | None) -> str | None:
    """Fires where the tumor share of the added patches differs from the prior of the pools by more than `limit`."""
    added = _added(facts)
    if limit is None or not added:
        return None
    share = sum(fold["added"]["tumor"] for fold in facts) / added
    nonempty = [fold for fold in facts if fold["pool"]]
    prior = sum(fold["prior"] * fold["pool"] for fold in nonempty) / sum(fold["pool"] for fold in nonempty)
    if abs(share - prior) <= limit + ROUNDING:
        return None
    return (
        f"{share:.3f} of what would be added is tumor, and {prior:.3f} of the pool is expected to be; "
        f"they differ by more than {limit:g} (pseudo.stop_ratio={limit:g})"
    )


def too_many_flips(facts: list[dict], limit: float | None) -> str | None:
    """Fires where more than the share `limit` of the added patches had the other pseudo-label in the round before."""
    added, flipped = _added(facts), sum(fold["change"]["flipped"] for fold in facts)
    if limit is None or flipped <= limit * added + ROUNDING:
        return None
    return f"{flipped} of {added} pseudo-labels changed their class ({flipped / added:.2%}), more than {limit:.2%} (pseudo.stop_flips={limit:g})"


def no_better(scores: list[float | None], stop: bool) -> str | None:
    """Fires where the last round's inner score is no better than the best before it.

    `scores`: of rounds 0..R the mean over folds of the AUROC on inner slides, None where it is not defined. The rule does not fire where
    the last round has no score, or no round before it has one.
    """
    earlier = {number: score for number, score in enumerate(scores[:-1]) if score is not None}
    if not stop or not earlier or scores[-1] is None:
        return None
    best = max(earlier, key=earlier.get)
    if scores[-1] > earlier[best]:
        return None
    return (
        f"round {len(scores) - 1} is no better on the inner slides: AUROC {scores[-1]:.4f}, "
        f"and {earlier[best]:.4f} in round {best} (pseudo.stop_worse=true)"
    )


def _added(facts: list[dict]) -> int:
    return sum(fold["added"][name] for fold in facts for name in CLASSES)
