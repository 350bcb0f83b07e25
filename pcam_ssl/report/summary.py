"""The terminal summary of a finished run: scores beside those of the colour baseline, warnings, and the files to open."""

from pcam_ssl.evaluation.scores import score_warnings
from pcam_ssl.render.document import Table
from pcam_ssl.render.format import by_knn, gain_numbers, interval, out_of_fold_words, score_table, sentence, split_words
from pcam_ssl.render.text import terminal
from pcam_ssl.report.scores import MEASURES, difference_to, further_kinds
from pcam_ssl.runs.run import Run


def run_summary(run: Run, scores: dict) -> str:
    """The whole text, 80 columns where words allow."""
    title = (
        f"{sentence(out_of_fold_words(scores))}, folds grouped by {scores['grouping']}"
        if scores["scheme"] == "grouped"
        else f"{sentence(out_of_fold_words(scores))}, cv.scheme {scores['scheme']}"
    )
    blocks = [score_table(scores["out_of_fold"], f"{title}{', by kNN' if by_knn(scores) else ''}", scores["floor"])]
    if (gain := colour_baseline_sentence(scores)) is not None:
        blocks.append(gain)
    if scores.get("neighbours") or further_kinds(scores):
        blocks.append(neighbours_table(scores))
    for split, report in (scores["held_out"] or {}).items():
        words = split_words(split, report)
        blocks.append(score_table(report, f"{sentence(words)}, mean of folds"))
    warnings = score_warnings(scores)
    if warnings:
        blocks.append("\n".join(f"WARNING: {line}" for line in warnings))
    blocks.append("\n".join(f"{label:<15} {run.path / name}" for label, name in files_of(run)))
    return "\n\n".join(blocks)


def neighbours_table(scores: dict) -> str:
    """Scores of kNN, blend and label propagation with their paired differences to the run's own predictions, and retrieval scores."""
    tables = []
    if further := further_kinds(scores):
        rows = [["kNN" if by_knn(scores) else "head", interval(scores["out_of_fold"]["scores"]["auroc"]), ""]]
        for name, entry in further.items():
            rows.append([name, interval(entry["out_of_fold"]["scores"]["auroc"]), gain_numbers(entry["above_head"]["auroc"])])
        tables.append(Table(["AUROC out of fold", "score", f"difference to {difference_to(scores)}, paired"], rows, align="lll"))
    if not (neighbours := scores.get("neighbours")):
        return terminal(tables)
    everywhere, across = (neighbours["retrieval"][scope] for scope in ("all_slides", "across_slides"))
    rows = [
        [name, interval(everywhere[key]), interval(across[key]) if across else "- (no slides known)"]
        for key, name in MEASURES.items()
    ]
    tables.append(Table(["retrieval", "all slides", "across slides only"], rows, align="lll"))
    return terminal(tables)


def colour_baseline_sentence(scores: dict) -> str | None:
    """The gain in AUROC over the colour baseline with its paired interval, in words."""
    if scores["above_floor"] is None or scores["above_floor"]["auroc"]["low"] is None:
        return None
    gain = scores["above_floor"]["auroc"]
    text = f"AUROC above the colour baseline: {gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f}, paired)"
    if gain["low"] <= 0 <= gain["high"]:
        text += "\nNo measurable gain over colour alone."
    elif gain["high"] < 0:
        text += "\nWorse than colour alone."
    return text


def files_of(run: Run) -> list[tuple[str, str]]:
    """Label and name of the files to open next, of those that exist."""
    named = [
        ("open", "report.html"),
        ("model card", "model-card.md"),
        ("scores", "scores.json"),
        ("out of fold", "oof.parquet"),
        ("test", "test.parquet"),
        ("submission", "submission.csv"),
    ]
    return [(label, name) for label, name in named if (run.path / name).exists()]
