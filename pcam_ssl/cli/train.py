"""`pcam-ssl baseline`, `pcam-ssl metric-train` and `pcam-ssl demo`."""

import json
from pathlib import Path
from typing import Annotated

from typer import Option

DataOption = Annotated[Path, Option("--data", envvar="PCAM_SSL_DATA", help="DATASET that `pcam-ssl data import` made")]
RecipeOption = Annotated[str | None, Option("--recipe", help="shipped name (`pcam-ssl recipes list`) or a .yaml file")]
SetOption = Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="change one key of the recipe; repeatable")]
OutOption = Annotated[Path | None, Option("--out", metavar="RUN", help="run folder; continued where it exists")]
FoldOption = Annotated[list[int] | None, Option("--fold", metavar="K", help="train this fold only; repeatable, for job arrays")]
JsonOption = Annotated[bool, Option("--json", help="print scores.json instead of a table")]
SweepOption = Annotated[
    list[str] | None,
    Option("--sweep", metavar="KEY=A,B", help="one run for each value, then compare them; repeatable for every combination"),
]
PageOption = Annotated[Path | None, Option("--html", metavar="FILE", help="with --sweep: also write the comparison as a page")]


def baseline(
    data: DataOption = Path("data/pcam"),
    recipe: RecipeOption = None,
    set: SetOption = None,
    out: OutOption = None,
    fold: FoldOption = None,
    sweep: SweepOption = None,
    html: PageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Slide-grouped cross-validation of a timm backbone: train, score, and predict the test split.

    Example: pcam-ssl baseline --data data/kaggle --recipe smoke --out runs/smoke

    Example: pcam-ssl baseline --sweep model.name=resnet34,densenet121 --out runs/zoo
    """
    from pcam_ssl.api import baseline
    from pcam_ssl.api import sweep as train_sweep
    from pcam_ssl.errors import UserError
    from pcam_ssl.files import PAGE, check_target
    from pcam_ssl.recipe.loading import load_recipe

    if sweep:
        if html is not None:
            check_target("--html", html, *PAGE)
        show_sweep(train_sweep(recipe, set or [], sweep, data, out or Path("runs/sweep"), fold or None), html, as_json)
        return
    if html is not None:
        raise UserError("--html: only with --sweep; a run's own page is written as RUN/report.html")
    chosen = load_recipe("baseline" if recipe is None else recipe, set or [])
    run = baseline(chosen, data, out or Path("runs/baseline"), fold or None)
    show_run(run, as_json)


def metric_train(
    data: DataOption = Path("data/pcam"),
    recipe: RecipeOption = None,
    set: SetOption = None,
    out: OutOption = None,
    fold: FoldOption = None,
    as_json: JsonOption = False,
) -> None:
    """The baseline's cross-validation with a metric loss, kNN classification, and a final network to search with.

    Example: pcam-ssl metric-train --data data/kaggle --recipe metric-smoke --out runs/metric
    """
    from pcam_ssl.api import metric_train
    from pcam_ssl.recipe.loading import load_recipe

    chosen = load_recipe("metric" if recipe is None else recipe, set or [])
    run = metric_train(chosen, data, out or Path("runs/metric-train"), fold or None)
    show_run(run, as_json)


def show_run(run, as_json: bool = False) -> None:
    """Print a finished run's scores and what to open, once for all processes; nothing where folds are still missing."""
    from pcam_ssl.cross_validation.aggregate import read_scores
    from pcam_ssl.distributed import own_rank
    from pcam_ssl.report.summary import run_summary

    if own_rank() or not run.scores.exists():
        return
    scores = read_scores(run)
    print(json.dumps(scores, indent=2) if as_json else run_summary(run, scores))


def show_sweep(swept, html: Path | None, as_json: bool) -> None:
    """Compare the finished runs of a sweep, once for all processes. Raises UserError, a line a run, where some failed."""
    from pcam_ssl.cli.compare import show_comparison
    from pcam_ssl.compare.compare import compare_runs
    from pcam_ssl.distributed import own_rank

    if not own_rank() and len(swept.finished) > 1:
        show_comparison(compare_runs(swept.finished), html, as_json)
    swept.raise_failures()


def demo(folder: Annotated[Path, Option("--folder", help="where the demo works")] = Path("demo")) -> None:
    """Synthetic slides, a baseline under honest and under leaky folds, metric learning, neighbours, and a pseudo-label round."""
    from pcam_ssl.demo import demo

    print(demo(folder))
