"""What a finished run prints: can the score be believed, the score beside its floor, and what to open."""

from pcam_ssl.evaluation.scores import score_warnings
from pcam_ssl.render.format import by_knn, score_table, split_words
from pcam_ssl.runs.run import Run


def run_summary(run: Run, scores: dict) -> str:
    """The whole text, 80 columns where words allow."""
    title = (
        f"Out of fold, folds grouped by {scores['grouping']}"
        if scores["scheme"] == "grouped"
        else f"Out of fold, cv.scheme {scores['scheme']}"
    )
    blocks = [score_table(scores["out_of_fold"], f"{title}{', by kNN' if by_knn(scores) else ''}", scores["floor"])]
    if (gain := colour_baseline_sentence(scores)) is not None:
        blocks.append(gain)
    if scores.get("neighbours"):
        blocks.append(neighbours_table(scores))
    for split, report in (scores["held_out"] or {}).items():
        words = split_words(split, report)
        blocks.append(score_table(report, f"{words[0].upper()}{words[1:]}, mean of folds"))
    warnings = score_warnings(scores)
    if warnings:
        blocks.append("\n".join(f"WARNING: {line}" for line in warnings))
    blocks.append("\n".join(f"{label:<15} {run.path / name}" for label, name in files_of(run)))
    return "\n\n".join(blocks)


def neighbours_table(scores: dict) -> str:
    """kNN and blend beside the head, paired, and how well neighbours agree in class."""
    neighbours = scores["neighbours"]
    kinds = [kind for kind in ("knn", "blend") if kind in neighbours]
    lines = []
    if kinds:
        lines = [
            f"{'AUROC out of fold':<24} {'score':<26} against the head, paired",
            f"{'head':<24} {_interval(scores['out_of_fold']['scores']['auroc'])}",
        ]
    for kind in kinds:
        entry = neighbours[kind]
        score, gain = entry["out_of_fold"]["scores"]["auroc"], entry["above_head"]["auroc"]
        lines.append(f"{ {'knn': 'kNN', 'blend': 'blend of both'}[kind]:<24} {_interval(score):<26} {_interval(gain, '+.3f')}")
    names = {"precision_at_1": "precision@1", "r_precision": "R-precision", "map_at_r": "MAP@R", "cmc_at_5": "CMC@5"}
    across = neighbours["retrieval"]["across_slides"]
    lines += [""] * bool(kinds)
    lines.append(f"{'retrieval':<24} {'all slides':<26} across slides only")
    for key, name in names.items():
        cells = [_interval(neighbours["retrieval"]["all_slides"][key]), _interval(across[key]) if across else "- (no slides known)"]
        lines.append(f"{name:<24} {cells[0]:<26} {cells[1]}")
    return "\n".join(lines)


def _interval(score: dict, form: str = ".3f") -> str:
    if score["value"] is None:
        return "-"
    text = format(score["value"], form)
    return text if score["low"] is None else f"{text} ({format(score['low'], form)} to {format(score['high'], form)})"


def colour_baseline_sentence(scores: dict) -> str | None:
    """The AUROC above the colour floor with its paired interval, in words."""
    if scores["above_floor"] is None or scores["above_floor"]["auroc"]["low"] is None:
        return None
    gain = scores["above_floor"]["auroc"]
    text = f"AUROC above the colour floor: {gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f}, paired)"
    if gain["low"] <= 0 <= gain["high"]:
        text += "\nNo measurable gain over colour alone."
    elif gain["high"] < 0:
        text += "\nWorse than colour alone."
    return text


def files_of(run: Run) -> list[tuple[str, str]]:
    """Label and name of the files a person opens next, those that exist."""
    named = [
        ("open", "report.html"),
        ("model card", "model-card.md"),
        ("scores", "scores.json"),
        ("out of fold", "oof.parquet"),
        ("test", "test.parquet"),
        ("submission", "submission.csv"),
    ]
    return [(label, name) for label, name in named if (run.path / name).exists()]
