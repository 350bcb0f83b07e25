"""The closing table of the demo: two ways to make folds, and what new slides say."""


def demo_table(runs: dict[str, tuple]) -> str:
    """`runs` maps a fold scheme to its (Run, scores.json values); held-out scores must be there."""
    lines = ["AUROC of one recipe on synthetic slides    out of fold              on 12 new slides"]
    for scheme, (_, scores) in runs.items():
        name = {"grouped": "grouped folds (slides kept whole)", "random": "random folds (slides torn: a leak)"}[scheme]
        lines.append(f"{name:<42} {_cell(scores['out_of_fold'])}    {_cell(scores['held_out']['test'])}")
    grouped, scores = runs["grouped"]
    lines.append(f"{'floor: colour histograms, grouped folds':<42} {_cell(scores['floor'])}")
    lines.append("Random folds promise what new slides do not keep; grouped folds do not.")
    lines.append(f"\nopen        {grouped.path / 'scores.json'}\npredictions {grouped.path / 'oof.parquet'}")
    return "\n".join(lines)


def _cell(report: dict) -> str:
    score = report["scores"]["auroc"]
    return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
