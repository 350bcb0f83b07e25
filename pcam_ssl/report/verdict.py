"""The verdict on a run's score, in words."""

from dataclasses import dataclass
from pathlib import Path

from pcam_ssl.blending.report import blend_words
from pcam_ssl.evaluation.scores import FEW_GROUPS
from pcam_ssl.render.format import by_knn, counts_text, sentence, transductive_sentence
from pcam_ssl.runs.contents import Facts

BADGES = {"good": "Can be believed", "care": "Read with care", "bad": "Do not believe"}


@dataclass(frozen=True)
class Verdict:
    """`level` is good, care or bad; `headline` is the reason in one sentence; `remarks` are further warnings."""

    level: str
    headline: str
    remarks: tuple[str, ...]

    @property
    def badge(self) -> str:
        return BADGES[self.level]


def judge(facts: Facts) -> Verdict:
    """The verdict on the out-of-fold AUROC: leakage first, then uncertainty, then the gain over colour alone."""
    leaks, doubts, gain = _leaks(facts), _doubts(facts), _gain(facts.scores)
    told = transductive_sentence(facts.scores)
    transductive = [f"{sentence(told)}."] if told else []
    if facts.scores.get("transductive"):
        doubts, transductive = transductive + doubts, []
    remarks = [*leaks, *doubts, *gain, *facts.scores["notes"], *transductive]
    if facts.scores["scheme"] == "random":
        # The note of cv.scheme random repeats the headline.
        remarks = [remark for remark in remarks if not remark.startswith("cv.scheme random")]
    if facts.scores["floor"] is None:
        remarks.append(
            "No colour baseline was computed (score.floor), so it is not known how much of the score colour alone explains."
        )
    if leaks or doubts or gain:
        headline, *rest = remarks
        return Verdict("bad" if leaks else "care", headline, tuple(rest))
    return Verdict("good", _best_case(facts), tuple(remarks))


def _best_case(facts: Facts) -> str:
    clean = "Every slide was scored by a network that was not trained on it"
    return f"{clean}, and the network is better than colour alone." if facts.scores["above_floor"] else f"{clean}."


def _leaks(facts: Facts) -> list[str]:
    scores, torn, lines = facts.scores, facts.slides_split_across_folds, []
    if scores["slides_shared_across_folds"] or torn:
        known = (
            f"{torn} of {facts.folds.wsi.nunique()} slides are in two folds or more" if torn else "folds were drawn patch by patch"
        )
        lines.append(f"The score is too good: patches of the same slides were both trained on and scored ({known}).")
    if scores["selected_on_fold"]:
        lines.append(
            "The score is too good (selected_on_fold): each fold kept the epoch with the best AUROC on its own scored patches."
        )
    return lines


def _doubts(facts: Facts) -> list[str]:
    lines, auroc = [], facts.scores["out_of_fold"]["scores"]["auroc"]
    if facts.scores["grouping"] == "stain clusters" and facts.scores["scheme"] == "official":
        lines.append("The published split was not checked: without slide ids it is not known whether train and valid share slides.")
    elif facts.scores["grouping"] == "stain clusters":
        lines.append("The score may be too good: folds are grouped by stain clusters (proxy groups) instead of slides.")
    if auroc["value"] is None:
        lines.append("There is no AUROC: the scored patches hold one class only.")
    elif auroc["low"] is None:
        lines.append(f"The uncertainty of the score is not known: {auroc.get('reason', 'there is no interval')}.")
    elif auroc["low"] <= 0.5:
        lines.append("The score is not distinguishable from chance: its interval reaches 0.5.")
    lines += few_slides(facts.scores["out_of_fold"])
    for split, report in (facts.scores["held_out"] or {}).items():
        held = report["scores"]["auroc"]["value"]
        if held is not None and auroc["low"] is not None and held < auroc["low"]:
            lines.append(
                f"AUROC on {'the pool' if report.get('transductive') else 'held-out slides'} ({split}) is {held:.3f}, below the out-of-fold interval."
            )
    return lines


def few_slides(report: dict) -> list[str]:
    """A sentence for each class that is in too few slides for a reliable score."""
    few = {name: report.get(f"n_slides_{name}") for name in ("tumor", "normal")}
    return [
        f"Only {n} of {report['n_slides']} slides hold {name} patches, so every score depends on these few; score more such slides."
        for name, n in few.items()
        if n is not None and n < FEW_GROUPS
    ]


def _gain(scores: dict) -> list[str]:
    gain = scores["above_floor"] and scores["above_floor"]["auroc"]
    if not gain or gain["low"] is None or gain["low"] > 0:
        return []
    if gain["high"] < 0:
        return ["The network is worse than colour alone (boosted trees on colour histograms, same folds)."]
    return ["The network is not measurably better than colour alone (boosted trees on colour histograms, same folds)."]


def what_was_done(facts: Facts) -> list[tuple[str, str]]:
    """(name, sentence) pairs: what was trained, on what, in which folds, and what was chosen by score."""
    recipe, scores = facts.recipe, facts.scores
    start = "published weights" if recipe.get("model.pretrained") else "random weights"
    given = recipe.get("model.init") or recipe.get("model.weights")
    start = f"the weights of {given}" if given else start
    trained = f"{recipe.get('model.name', 'unknown network')} from {start}, {recipe.get('train.epochs', '?')} epochs"
    if by_knn(scores):
        trained += "; no classifier (method.classify=false): kNN among each fold's training patches makes the predictions"
    data = f"{counts_text(scores['out_of_fold'])}, dataset {Path(facts.info['dataset']).name}"
    if (budget := recipe.get("data.label_budget")) is not None:
        data += f"; only {budget:,} labels were trained on"
    if (budget := recipe.get("data.slide_budget")) is not None:
        data += f"; only labels of {budget:,} slides were trained on"
    epoch = _epoch_text(facts)
    if "blend" in facts.info:
        trained, epoch = blend_words(facts.info), "each member's own"
    return [("Trained", trained), ("Scored on", data), ("Folds", _folds_text(facts)), ("Epoch kept", epoch)]


def _folds_text(facts: Facts) -> str:
    scores, torn = facts.scores, facts.slides_split_across_folds
    n = len(scores["out_of_fold"]["per_fold"])
    kind = {
        "grouped": f"{n} folds grouped by {scores['grouping']}",
        "official": "the published split: trained on train, scored on valid",
        "random": f"{n} folds of random patches, slides split across folds on purpose",
    }.get(scores["scheme"], scores["scheme"])
    if facts.folds is None:
        return f"{kind}; folds.parquet is not in the run folder, so slides in two folds cannot be counted"
    if torn is None:
        return f"{kind}; slides are not known, so slides in two folds cannot be counted"
    return f"{kind}; {torn} of {facts.folds.wsi.nunique()} slides are in two folds or more (counted for this page)"


def _epoch_text(facts: Facts) -> str:
    return {
        "last": "the last: nothing was chosen by score",
        "inner": "the best on inner slides, which are neither trained on nor scored",
        "fold": "the best on the scored patches themselves",
    }.get(facts.recipe.get("train.choose"), "not recorded")
