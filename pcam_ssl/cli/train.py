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


def baseline(
    data: DataOption = Path("data/pcam"),
    recipe: RecipeOption = None,
    set: SetOption = None,
    out: OutOption = None,
    fold: FoldOption = None,
    as_json: JsonOption = False,
) -> None:
    """Slide-grouped cross-validation of a timm backbone: train, score, and predict the test split.

    Example: pcam-ssl baseline --data data/kaggle --recipe smoke --out runs/smoke
    """
    from pcam_ssl.recipe_files import load_recipe
    from pcam_ssl.workflows.baseline import baseline

    chosen = load_recipe(recipe or "baseline", set or [])
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
    from pcam_ssl.recipe_files import load_recipe
    from pcam_ssl.workflows.metric_train import metric_train

    chosen = load_recipe(recipe or "metric", set or [])
    run = metric_train(chosen, data, out or Path("runs/metric-train"), fold or None)
    show_run(run, as_json)


def show_run(run, as_json: bool = False) -> None:
    """Print a finished run's scores and what to open, once for all processes; nothing where folds are still missing."""
    from pcam_ssl.report.summary import run_summary
    from pcam_ssl.workflows.gather import read_scores
    from pcam_ssl.world import own_rank

    if own_rank() or not run.scores.exists():
        return
    scores = read_scores(run)
    print(json.dumps(scores, indent=2) if as_json else run_summary(run, scores))


def demo(folder: Annotated[Path, Option("--folder", help="where the demo works")] = Path("demo")) -> None:
    """Synthetic slides, a baseline under honest and under leaky folds, metric learning, neighbours, and a pseudo-label round."""
    from pcam_ssl.workflows.demo import demo

    print(demo(folder))
