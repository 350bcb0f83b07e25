"""When rounds end: each rule gives the sentence that names it, or None.

`facts` is what `decide` says of each fold; a limit of None switches the rule off.
"""

from pcam_ssl.evaluation.metrics import ROUNDING
from pcam_ssl.tables import CLASSES


def added_too_few(facts: list[dict], limit: float | None) -> str | None:
    """Fires where the folds together would add less than the share `limit` of their pools."""
    pool, added = sum(fold["pool"] for fold in facts), _added(facts)
    if limit is None or (pool and added >= limit * pool - ROUNDING):
        return None
    told = f"{added} of {pool} pool patches would be added"
    if not pool:
        return f"{told}; pseudo-labels need unlabelled patches (pseudo.stop_share)"
    return f"{told} ({added / pool:.2%}), less than {limit:.2%} (pseudo.stop_share={limit:g})"


def ratio_off(facts: list[dict], limit: float | None) -> str | None:
    """Fires where the tumor share of what the folds add differs from the prior of their pools by more than `limit`."""
    added = _added(facts)
    if limit is None or not added:
        return None
    share = sum(fold["added"]["tumor"] for fold in facts) / added
    held = [fold for fold in facts if fold["pool"]]
    prior = sum(fold["prior"] * fold["pool"] for fold in held) / sum(fold["pool"] for fold in held)
    if abs(share - prior) <= limit + ROUNDING:
        return None
    return (
        f"{share:.3f} of what would be added is tumor, and {prior:.3f} of the pool is expected to be; "
        f"they differ by more than {limit:g} (pseudo.stop_ratio={limit:g})"
    )


def too_many_flips(facts: list[dict], limit: float | None) -> str | None:
    """Fires where more than the share `limit` of what the folds add had the other label in the round before."""
    added, flipped = _added(facts), sum(fold["change"]["flipped"] for fold in facts)
    if limit is None or flipped <= limit * added + ROUNDING:
        return None
    return f"{flipped} of {added} pseudo-labels changed their class ({flipped / added:.2%}), more than {limit:.2%} (pseudo.stop_flips={limit:g})"


def no_better(scores: list[float | None], stop: bool) -> str | None:
    """Fires where the last round's inner score is no better than the best before it.

    `scores` are those of rounds 0..R, each the mean over folds of the AUROC on inner slides, None where it is not defined; a round
    without a score, or with none before it, cannot be judged and does not fire.
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
