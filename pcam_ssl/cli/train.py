"""`pcam-ssl baseline`, `pcam-ssl metric-train`, `pcam-ssl pseudo-label` and `pcam-ssl demo`."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pcam_ssl.cli.options import DataOption, FoldOption, JsonOption, OutOption, PageOption, RecipeOption, SetOption, SweepOption


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
    from pcam_ssl.errors import UserError

    if sweep:
        show_sweep(sweep, data, recipe, set, out, fold, html, as_json)
        return
    if html is not None:
        raise UserError("--html: only with --sweep; a run's own page is written as RUN/report.html")
    run = baseline(data, "baseline" if recipe is None else recipe, set or [], out=out or Path("runs/baseline"), fold=fold)
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

    run = metric_train(data, "metric" if recipe is None else recipe, set or [], out=out or Path("runs/metric-train"), fold=fold)
    show_run(run, as_json)


def pseudo_label(
    run: Annotated[Path, Argument(metavar="[RUN]", help="a finished run: round 0; made first where there is none")] = Path(
        "runs/baseline"
    ),
    rounds: Annotated[int, Option("--rounds", metavar="N", help="rounds in all; those that are there are not done again")] = 3,
    out: Annotated[Path | None, Option("--out", metavar="RUN", help="where the rounds lie (default: inside RUN)")] = None,
    data: Annotated[
        Path | None, Option("--data", metavar="DATASET", help="for a new round 0, or where RUN's dataset has moved")
    ] = None,
    recipe: RecipeOption = None,
    set: SetOption = None,
    pooled: Annotated[
        bool, Option("--pooled", help="every fold learns from the pseudo-labels of all folds; out-of-fold scores are withheld")
    ] = False,
    no_control: Annotated[
        bool,
        Option(
            "--no-control",
            help="train no control; the verdict cannot tell rounds from longer training then, and round 0 stays in use",
        ),
    ] = False,
    anyway: Annotated[
        bool, Option("--anyway", help="make rounds even where the forecast says that they cannot be seen to help here")
    ] = False,
    explain: Annotated[
        str | None, Option("--explain", metavar="ID", help="only tell one patch's story over rounds and folds")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="print rounds.json instead of tables")] = False,
) -> None:
    """Let confident predictions on unlabelled patches join the training set, round by round, without leaking.

    First a forecast says what the true labels of the pool could bring at most, on frozen features and in seconds where those are cached.

    Example: pcam-ssl pseudo-label runs/baseline --rounds 3 --set pseudo.precision=0.95
    """
    from pcam_ssl.api import patch_history, pseudo_label
    from pcam_ssl.distributed import own_rank
    from pcam_ssl.pseudo_labels.report import rounds_text

    if explain is not None:
        history = patch_history(run, explain, out=out, pooled=pooled)
        print(json.dumps(history.to_dict(), indent=2) if as_json else history)
        return
    settings = [*(set or []), *(["pseudo.control=false"] if no_control else [])]
    verdict = pseudo_label(run, rounds=rounds, out=out, data=data, recipe=recipe, settings=settings, pooled=pooled, anyway=anyway)
    if not own_rank():
        print(json.dumps(verdict, indent=2) if as_json else rounds_text(verdict))


def label_curve(
    recipe: Annotated[str, Argument(metavar="RECIPE", help="shipped name (`pcam-ssl recipes list`) or a .yaml file")],
    budgets: Annotated[str, Option("--budgets", metavar="N,N,...", help="numbers of labels or slides to keep, and all")],
    by: Annotated[str, Option("--by", metavar="UNIT", help="what a budget counts: patches (their labels) or slides")] = "patches",
    seeds: Annotated[int, Option("--seeds", metavar="N", help="draws of each budget; other folds and labels with each")] = 3,
    method: Annotated[
        str, Option("--method", metavar="METHOD", help="supervised: the labels alone; rounds: also pseudo-label rounds on each run")
    ] = "supervised",
    rounds: Annotated[
        int | None, Option("--rounds", metavar="N", help="with --method rounds: rounds on each run, 1 if not given")
    ] = None,
    data: DataOption = Path("data/pcam"),
    set: SetOption = None,
    out: Annotated[Path, Option("--out", metavar="DIR", help="folder of the runs; continued where it exists")] = Path(
        "runs/label-curve"
    ),
    as_json: Annotated[bool, Option("--json", help="print label-curve.json instead of a table")] = False,
) -> None:
    """How many labels are needed: AUROC against labels or slides, and what twice as many would bring.

    Only missing runs are trained. A curve by patches and one by slides in the same DIR are compared. With `--method rounds` each run is also
    followed by pseudo-label rounds, and the table says at which budgets these gain over the labels alone and over their control.

    Example: pcam-ssl label-curve frozen --budgets 100,300,1000,all --seeds 3

    Example: pcam-ssl label-curve frozen --budgets 5,10,20,all --by slides

    Example: pcam-ssl label-curve frozen --budgets 100,300,1000 --method rounds
    """
    from pcam_ssl.api import label_curve
    from pcam_ssl.distributed import own_rank
    from pcam_ssl.label_curve.report import curve_text

    curve = label_curve(data, recipe, set or [], budgets=budgets, by=by, seeds=seeds, method=method, rounds=rounds, out=out)
    if not own_rank():
        print(json.dumps(curve, indent=2) if as_json else curve_text(curve, by))


def demo(
    folder: Annotated[Path, Option("--folder", help="where the demo works")] = Path("demo"),
    data: Annotated[
        Path | None,
        Option("--data", metavar="SOURCE", help="your own patches, as `data import` reads them, in place of synthetic slides"),
    ] = None,
    wsi: Annotated[Path | None, Option("--wsi", metavar="CSV", help="with --data: the slide of each patch, csv id,wsi")] = None,
    seed: Annotated[int, Option("--seed", min=0, max=2**31 - 1, help="another seed draws other slides, folds and weights")] = 0,
) -> None:
    """The main job in minutes: leaky and grouped folds, search, and a round of pseudo-labels, on synthetic slides or a sample of your patches.

    Example: pcam-ssl demo --data histopathologic-cancer-detection.zip --wsi patch_id_wsi.csv
    """
    from pcam_ssl.demo.tour import demo

    print(demo(folder, data=data, wsi=wsi, seed=seed))


def show_run(run, as_json: bool = False) -> None:
    """Print a finished run's scores and what to open, once for all processes; nothing where folds are still missing."""
    from pcam_ssl.distributed import own_rank
    from pcam_ssl.report.summary import run_summary

    if own_rank() or not run.paths.scores.exists():
        return
    scores = run.scores.file
    print(json.dumps(scores, indent=2) if as_json else run_summary(run, scores))


def show_sweep(
    axes: list[str],
    data: Path,
    recipe: str | None,
    settings: list[str] | None,
    out: Path | None,
    fold: list[int] | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Train a sweep and compare its finished runs, once for all processes. Raises UserError, a line a run, where some failed."""
    from pcam_ssl.api import compare, sweep
    from pcam_ssl.cli.evaluate import show_comparison
    from pcam_ssl.distributed import own_rank
    from pcam_ssl.files import PAGE, check_target

    if html is not None:
        check_target("--html", html, *PAGE)
    swept = sweep(axes, data, "baseline" if recipe is None else recipe, settings or [], out=out or Path("runs/sweep"), fold=fold)
    if not own_rank() and len(swept.finished) > 1:
        show_comparison(compare(swept.finished, html=html), html, as_json)
    swept.raise_failures()
