"""The closing table of the demo: what each way to make folds promised, and what new slides say."""

from pathlib import Path

import numpy as np

from pcam_ssl.evaluation.metrics import auroc
from pcam_ssl.tables import read_predictions

NAMES = {
    "random": "random folds (slides torn: a leak)",
    "grouped": "grouped folds (slides kept whole)",
    "metric": "grouped folds, metric learning",
}


def demo_table(runs: dict[str, tuple], page: Path) -> str:
    """`runs` maps `NAMES` to (Run, scores.json values); their test split is labelled. `page` is the neighbour page.

    New slides are scored by each fold's network alone: the mean of all folds is an ensemble, which no fold's score promises.
    """
    lines = [f"{'AUROC on synthetic slides':<36} {'promised out of fold':<24} kept on new slides, by fold"]
    for key, name in NAMES.items():
        run, scores = runs[key]
        kept = _by_fold(run)
        shown = ", ".join(f"{score:.3f}" for score in kept)
        lines.append(f"{name:<36} {_cell(scores['out_of_fold']):<24} {np.mean(kept):.3f} ({shown})")
    lines.append(f"{'floor: colour alone, grouped folds':<36} {_cell(runs['grouped'][1]['floor'])}")
    lines.append(f"\nopen {runs['grouped'][0].path / 'report.html'}\nand  {page}")
    return "\n".join(lines)


def _by_fold(run) -> list[float]:
    test = read_predictions(run.path / "test.parquet")
    return [auroc(rows.label.astype(int), rows.prob) for fold, rows in test.groupby("fold") if fold >= 0]


def _cell(report: dict) -> str:
    score = report["scores"]["auroc"]
    return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
