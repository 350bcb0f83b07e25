"""What a finished run prints: can the score be believed, the score beside its floor, and what to open."""

from pcam_ssl.report.table import score_table
from pcam_ssl.run import Run


def run_summary(run: Run, scores: dict) -> str:
    """The whole text, 80 columns where words allow."""
    title = (
        f"Out of fold, folds grouped by {scores['grouping']}"
        if scores["scheme"] == "grouped"
        else f"Out of fold, cv.scheme {scores['scheme']}"
    )
    blocks = [score_table(scores["out_of_fold"], title, scores["floor"])]
    if (gain := floor_sentence(scores)) is not None:
        blocks.append(gain)
    for split, report in (scores["held_out"] or {}).items():
        blocks.append(score_table(report, f"Held out: {split}, mean of folds"))
    warnings = score_warnings(scores)
    if warnings:
        blocks.append("\n".join(f"WARNING: {line}" for line in warnings))
    blocks.append("\n".join(f"{label:<15} {run.path / name}" for label, name in files_of(run)))
    return "\n\n".join(blocks)


def score_warnings(scores: dict) -> list[str]:
    """Why the scores may flatter; shown wherever they are."""
    lines = list(scores["notes"])
    if scores["selected_on_fold"]:
        lines.append(
            "selected_on_fold: each fold's epoch was chosen on the patches it is scored on, so scores are too good; report train.choose=inner"
        )
    return lines


def floor_sentence(scores: dict) -> str | None:
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
    named = [("scores", "scores.json"), ("out of fold", "oof.parquet"), ("test", "test.parquet"), ("submission", "submission.csv")]
    return [(label, name) for label, name in named if (run.path / name).exists()]
