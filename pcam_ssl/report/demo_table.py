"""The closing table of the demo: what each way to make folds promised, and what new slides say."""

from pathlib import Path

NAMES = {
    "random": "random folds (slides torn: a leak)",
    "grouped": "grouped folds (slides kept whole)",
    "metric": "grouped folds, metric learning",
}


def demo_table(runs: dict[str, tuple], page: Path) -> str:
    """`runs` maps `NAMES` to (Run, scores.json values), held-out scores among them; `page` is the neighbour page."""
    lines = [f"{'AUROC on synthetic slides':<36} {'out of fold':<24} {'12 new slides':<24} promised too much"]
    for key, name in NAMES.items():
        scores = runs[key][1]
        promised, kept = scores["out_of_fold"], scores["held_out"]["test"]
        excess = _value(promised) - _value(kept)
        lines.append(f"{name:<36} {_cell(promised):<24} {_cell(kept):<24} {excess:+.3f}")
    lines.append(f"{'floor: colour alone, grouped folds':<36} {_cell(runs['grouped'][1]['floor'])}")
    lines.append(f"\nopen {runs['grouped'][0].path / 'report.html'}\nand  {page}")
    return "\n".join(lines)


def _value(report: dict) -> float:
    return report["scores"]["auroc"]["value"]


def _cell(report: dict) -> str:
    score = report["scores"]["auroc"]
    return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
