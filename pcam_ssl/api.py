"""One function a verb: what the commands do, for Python. Pages of runs are written here, after the work they show."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcam_ssl.cross_validation.sweep import Sweep
    from pcam_ssl.recipe.schema import Recipe
    from pcam_ssl.runs.run import Run


def baseline(recipe: "Recipe", data: Path | str, out: Path | str, only: list[int] | None = None) -> "Run":
    """Train and score the folds of a supervised or consistency recipe; the run at `out` is continued where it exists."""
    from pcam_ssl.cross_validation import cross_validate

    return _with_page(cross_validate.baseline(recipe, data, out, only))


def metric_train(recipe: "Recipe", data: Path | str, out: Path | str, only: list[int] | None = None) -> "Run":
    """Train and score the folds of a metric recipe; the run at `out` is continued where it exists."""
    from pcam_ssl.cross_validation import cross_validate

    return _with_page(cross_validate.metric_train(recipe, data, out, only))


def sweep(
    recipe: str | None, settings: list[str], axes: list[str], data: Path | str, out: Path | str, only: list[int] | None = None
) -> "Sweep":
    """Train one run for each value of each of the `axes`, `KEY=A,B`."""
    from pcam_ssl.cross_validation.sweep import sweep
    from pcam_ssl.runs.run import Run

    swept = sweep(recipe, settings, axes, data, out, only)
    for path in swept.finished:
        _with_page(Run(Path(path)))
    return swept


def pseudo_label(path: Path | str, wanted: int = 3, **options) -> dict[str, Any]:
    """Rounds of pseudo-labels on the run at `path`, made first where there is none; the verdict as in rounds.json."""
    from pcam_ssl.distributed import own_rank
    from pcam_ssl.pseudo_labels.rounds import pseudo_label
    from pcam_ssl.report.report import first_report
    from pcam_ssl.runs.run import POOLED, ROUNDS_FILE, Run

    verdict = pseudo_label(path, wanted, **options)
    start = _with_page(Run(Path(path)))
    shown = [] if verdict["pooled"] else [Run(Path(row["folder"])) for row in verdict["rounds"][1:]]
    if any((folder / ROUNDS_FILE).exists() for folder in (start.path, start.path / POOLED)):
        shown.append(start)
    if not own_rank():
        for run in shown:
            first_report(run)
    return verdict


def blend(members: list[str], out: Path | str, method: str = "mean", max_correlation: float | None = None) -> "Run":
    """One run from several."""
    from pcam_ssl.blending.blend import blend_runs

    return _with_page(blend_runs(members, out, method, max_correlation))


def _with_page(run: "Run") -> "Run":
    """The run, with its page written where it is finished and has none yet, or one from before its scores."""
    from pcam_ssl.distributed import own_rank
    from pcam_ssl.report.report import REPORT

    page = run.path / REPORT
    if own_rank() or not run.scores.exists() or run.info().get("status") != "done":
        return run
    if page.exists() and page.stat().st_mtime_ns >= run.scores.stat().st_mtime_ns:
        return run
    from pcam_ssl.records import read_scores
    from pcam_ssl.report.report import first_report

    if read_scores(run.path)["out_of_fold"] is not None:
        first_report(run)
    return run
