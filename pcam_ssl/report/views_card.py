"""What the mean of the test-time views is worth, against one plain view of each patch. No torch."""

from typing import Any

from pcam_ssl.render.markup import Markup, absent, card, table, tag, with_interval
from pcam_ssl.runs.contents import Facts

TITLE = "What the test-time views are worth"
SHOWN = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy", "nll": "NLL (less is better)", "ece": "ECE (less is better)"}


def views_card(facts: Facts) -> Markup:
    """Scores of one plain view, of the mean of all views, and the paired difference."""
    views = facts.scores.get("views")
    if views is None:
        return absent(TITLE, _reason(facts))
    every = facts.scores["out_of_fold"]["scores"]
    rows = [
        [label, *(with_interval(scores[name], scores is views["gain"]) for scores in (views["one_view"], every, views["gain"]))]
        for name, label in SHOWN.items()
    ]
    note = "One view: the patch as it is, with temperatures of its own. Difference: paired, on the same resampled slides."
    head = ["score", "one view", f"mean of {views['count']}", "difference"]
    return card(TITLE, tag("p", gain_sentence(views)), table(head, rows), tag("p", note, class_="note"))


def gain_sentence(views: dict[str, Any]) -> str:
    """Whether the views change the AUROC, as far as the interval says."""
    gain, count = views["gain"]["auroc"], views["count"]
    if gain["low"] is None:
        return f"Whether the mean of {count} views helps cannot be told: {gain['reason']}."
    if gain["low"] > 0:
        return f"The mean of {count} views gains {gain['value']:+.3f} AUROC on one view."
    if gain["high"] < 0:
        return f"The mean of {count} views is worse than one view, by {gain['value']:+.3f} AUROC."
    return f"The mean of {count} views gains nothing measurable in AUROC ({gain['value']:+.3f}), at {count} times the work of one."


def _reason(facts: Facts) -> str:
    if facts.info["command"] == "blend":
        return "a blend is made of predictions, and keeps none of single views"
    if not facts.recipe.get("predict.d4", True) and not facts.recipe.get("predict.random_views", 0):
        return "one view was scored (predict.d4 is false), so there is nothing to compare it with"
    return "the run was made by an older pcam-ssl, which kept no score of one view; train it again"
