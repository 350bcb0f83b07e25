"""One function a verb: what the commands do, for Python. `import pcam_ssl as pcam`, then `pcam.train(...)`.

Options are those of the commands, as keywords. Where a run, dataset or file is taken, a path or the held object will do. Whatever the
user can mend is raised as UserError, the line that the command prints. Pages of runs are written here, after the work they show.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from pcam_ssl.errors import UserError, nearest, refused
from pcam_ssl.files import PAGE, StrPath, check_target

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from pcam_ssl.audit.findings import Audit
    from pcam_ssl.cross_validation.sweep import Sweep
    from pcam_ssl.data.dataset import Dataset
    from pcam_ssl.data.folds import Folds
    from pcam_ssl.doctor import Finding
    from pcam_ssl.evaluation.scores import Score, Scores
    from pcam_ssl.heatmap.heatmap import HeatMaps
    from pcam_ssl.pseudo_labels.patch_history import PatchHistory
    from pcam_ssl.pseudo_labels.thresholds import Threshold
    from pcam_ssl.recipe.schema import Recipe
    from pcam_ssl.report.report import Report
    from pcam_ssl.results import Comparison, Embeddings, Explanations, LabelCurve, Predictions, RoundsVerdict
    from pcam_ssl.runs.run import Run
    from pcam_ssl.search.search import Found
    from pcam_ssl.units.launch import Launched
    from pcam_ssl.units.unit import Unit

Settings = Mapping[str, Any] | Sequence[str]
"""Changed keys of a recipe: `{"train.epochs": 3}`, or `["train.epochs=3"]` as on the command line."""
EMBED_USAGE = "embed: give RUN and SOURCE (`pcam-ssl embed RUN SOURCE --out DIR`), or --model NAME and SOURCE alone"
DEVICES = ("auto", "cpu", "cuda", "mps")
P = ParamSpec("P")
R = TypeVar("R")


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """The function with unknown keywords, and what the system refuses, told as UserError."""
    known = list(signature(function).parameters)

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        unknown = [name for name in options if name not in known]
        if unknown:
            name = function.__name__
            raise UserError(
                *(f"{name}({key}=): no such option.{nearest(key, known)} `help(pcam_ssl.{name})` lists all" for key in unknown)
            )
        try:
            return function(*args, **options)
        except OSError as error:
            if (problem := refused(error)) is None:
                raise
            raise problem from error

    return call


@verb
def import_dataset(
    source: StrPath,
    dataset: StrPath,
    *,
    wsi: StrPath | None = None,
    wsi_pattern: str | None = None,
    skip_bad: bool = False,
    verify: bool = True,
    workers: int | None = None,
) -> "Dataset":
    """Pack `source` into the new folder `dataset` once (`pcam-ssl data import`); returns the Dataset.

    `source` is a Kaggle zip or folder, PCam HDF5 folder, Hugging Face parquet, image folder, or image; `wsi` a csv `id,wsi`, or `wsi_pattern` a
    regular expression with a group `wsi` over the paths of images. `verify=False` accepts files whose MD5 is not the published one.
    Raises UserError, with every problem found, where the source does not hold.
    """
    from pcam_ssl.data.importing import import_source

    return import_source(
        Path(source), Path(dataset), wsi=_path(wsi), wsi_pattern=wsi_pattern, skip_bad=skip_bad, workers=workers, verify=verify
    )


@verb
def tile(
    slides: StrPath | Iterable[StrPath],
    dataset: StrPath,
    *,
    size: int = 96,
    mpp: float = 0.97,
    stride: int | None = None,
    tissue: float = 0.5,
    annotations: StrPath | None = None,
    classes: Mapping[str, int] | None = None,
    assume_mpp: float | None = None,
    workers: int | None = None,
) -> "Dataset":
    """Cut whole slides into patches of `size` px at `mpp` um/px, in the new folder `dataset` (`pcam-ssl data tile`); returns the Dataset.

    Patches lie `stride` px apart (default: `size`), and a share `tissue` of each is tissue. `annotations` is a folder of GeoJSON or ASAP XML
    files with the stems of their slides, or one file; `classes` gives labels by class name (1 tumor, 0 not). Slides without a file are
    unlabelled, split test. `assume_mpp` is um/px of level 0 where a slide does not say it. Raises UserError, with the problems of all slides,
    before the first is cut. Run again after a kill it goes on with the next slide.
    """
    from pcam_ssl.slides.plan import Cutting
    from pcam_ssl.slides.tiling import tile_slides

    cutting = Cutting(size, mpp, size if stride is None else stride, tissue, assume_mpp)
    paths = [Path(each) for each in _specs(slides)]
    return tile_slides(paths, Path(dataset), cutting, _path(annotations), classes, workers)


@verb
def download(name: str = "pcam", folder: StrPath | None = None, *, sample: int | None = None, url: str | None = None) -> list[Path]:
    """Fetch PatchCamelyon (`pcam`) or Kaggle's competition data (`kaggle`), 7 GB each, into `folder`; returns the paths.

    `sample=N` fetches the first N patches of each split of PatchCamelyon alone, 24 kB a patch. `kaggle` is fetched by the command of that
    name, with your account. A broken transfer is continued. The folder is `data/pcam-download`, `data/pcam-sample` or
    `data/kaggle-download` by default. Raises UserError where the server cannot be reached or refuses, the disk is full, or a file is not
    the published one.
    """
    from pcam_ssl.data import download as pcam
    from pcam_ssl.data import pcam_sample
    from pcam_ssl.data.kaggle_command import download_kaggle

    if name == "kaggle":
        if sample is not None or url is not None:
            option = "--url" if sample is None else "--sample"
            raise UserError(f"{option}: is for `pcam-ssl data download pcam`; leave it out, because Kaggle sends all or nothing")
        return download_kaggle(Path("data/kaggle-download" if folder is None else folder))
    if name != "pcam":
        raise UserError(
            f"{name}: not a dataset that can be fetched; write `pcam-ssl data download pcam`, or kaggle in place of pcam"
        )
    if sample is not None:
        sample_url = pcam_sample.URL if url is None else url
        return pcam_sample.download_sample(Path("data/pcam-sample" if folder is None else folder), sample, sample_url)
    return pcam.download_pcam(Path("data/pcam-download" if folder is None else folder), pcam.URL if url is None else url)


@verb
def synth(
    dataset: StrPath,
    *,
    slides: int = 24,
    patches: int = 40,
    test_slides: int = 6,
    valid_slides: int = 0,
    size: int = 96,
    stain_shift: float = 1.0,
    tumor_signal: float = 1.0,
    coarse: float = 0.0,
    seed: int = 0,
    label_test: bool = False,
) -> "Dataset":
    """Draw small synthetic H&E slides into the new folder `dataset`, `patches` of `size` px from each; returns the Dataset."""
    from pcam_ssl.data.dataset import open_dataset
    from pcam_ssl.data.synthetic import write_synthetic

    write_synthetic(
        Path(dataset),
        slides=slides,
        valid_slides=valid_slides,
        test_slides=test_slides,
        patches=patches,
        size_px=size,
        stain_shift=stain_shift,
        tumor_signal=tumor_signal,
        coarse=coarse,
        seed=seed,
        label_test=label_test,
    )
    return open_dataset(dataset)


@verb
def open_dataset(path: StrPath | None = None) -> "Dataset":
    """The Dataset at `path` (default: $PCAM_SSL_DATA, else data/pcam). Raises UserError where it is absent, something else, or damaged."""
    from pcam_ssl.data.dataset import open_dataset

    return open_dataset(_data(path))


@verb
def show(dataset: StrPath | None = None, *, sheet: StrPath | None = None) -> dict[str, Any]:
    """Counts of a dataset by split, label and slide; `sheet` also writes a contact sheet of patches as a PNG."""
    from pcam_ssl.data.dataset import open_dataset
    from pcam_ssl.data.show import contact_sheet, summarise

    if sheet is not None:
        check_target("--sheet", sheet, ".png")
    opened = open_dataset(_data(dataset))
    summary = summarise(opened)
    if sheet is not None:
        contact_sheet(opened, Path(sheet))
        summary["sheet"] = os.fspath(sheet)
    return summary


@verb
def features(dataset: StrPath | None = None, *, prune: bool = False) -> dict[str, Any]:
    """The cached features of frozen backbones on a dataset: `folder`, and `sets` with `name`, `image_size`, `views`, `bytes` each.

    `prune` also removes them; commands that need them compute them anew. Raises UserError where they cannot be removed.
    """
    from pcam_ssl.data.dataset import open_dataset
    from pcam_ssl.data.features import features_root, remove_features, stored_features

    opened = open_dataset(_data(dataset))
    root = features_root(opened.path, opened.digest)
    sets = [
        {"name": each.name, "image_size": each.identity.get("image_size"), "views": len(each.views), "bytes": each.n_bytes}
        for each in stored_features(root)
    ]
    if prune:
        remove_features(root)
    return {"folder": str(root), "sets": sets}


@verb
def audit(
    dataset: StrPath | None = None,
    *,
    run: StrPath | None = None,
    near_bits: int = 3,
    html: StrPath | None = None,
    device: str = "auto",
) -> "Audit":
    """What would make a score a lie, looked for in a dataset and in a run on it; returns an Audit, whose `leaks` are findings.

    `near_bits`: how many bits near duplicates may differ in. `html` also writes a page. Raises UserError where there is no such dataset or run.
    """
    from pcam_ssl.audit.audit import audit
    from pcam_ssl.audit.report import write_page

    _check_device(device)
    if html is not None:
        check_target("--html", html, *PAGE)
    found = audit(_data(dataset), _path(run), near_bits, device)
    if html is not None:
        write_page(Path(html), found)
    return found


@verb
def make_folds(
    data: "StrPath | Dataset | pd.DataFrame",
    *,
    scheme: str = "grouped",
    n_folds: int = 5,
    inner_share: float = 0.15,
    label_budget: int | None = None,
    seed: int = 0,
) -> "Folds":
    """Folds of the labelled patches of a dataset (or of its `patches`), slides kept whole; `folds.frame` has a row a patch.

    The recipe's keys `cv.*` and `data.label_budget` are the same choices. Raises UserError where the patches allow no such folds.
    """
    import pandas as pd

    from pcam_ssl.data.dataset import open_dataset
    from pcam_ssl.data.splits import make_folds

    patches = data if isinstance(data, pd.DataFrame) else open_dataset(data).patches
    return make_folds(patches, scheme=scheme, n_folds=n_folds, inner_share=inner_share, label_budget=label_budget, seed=seed)


@verb
def train(
    data: StrPath | None = None,
    recipe: "StrPath | Recipe" = "baseline",
    settings: Settings = (),
    *,
    out: StrPath | None = None,
    fold: int | Iterable[int] | None = None,
) -> "Run":
    """Cross-validate a recipe on a dataset: train, score, predict the test split, write the report. Returns the Run at `out`.

    The run is continued where it exists, so the same call goes on after an interrupt. The recipe's method decides between `baseline` and
    `metric_train`, and so the default of `out`. `recipe`: a shipped name (`recipes()`), a yaml file, or a Recipe; `settings` change single keys;
    `fold` trains some folds only. Raises UserError for what cannot be trained, and where `out` holds another run.
    """
    chosen = _recipe(recipe, settings)
    command = metric_train if chosen.method.name == "metric" else baseline
    return command(data, chosen, fold=fold) if out is None else command(data, chosen, out=out, fold=fold)


@verb
def baseline(
    data: StrPath | None = None,
    recipe: "StrPath | Recipe" = "baseline",
    settings: Settings = (),
    *,
    out: StrPath = "runs/baseline",
    fold: int | Iterable[int] | None = None,
) -> "Run":
    """As `train`, for supervised and consistency recipes alone: the command `pcam-ssl baseline`."""
    from pcam_ssl.cross_validation import cross_validate

    return _with_page(cross_validate.baseline(_recipe(recipe, settings), _data(data), Path(out), _folds(fold)))


@verb
def metric_train(
    data: StrPath | None = None,
    recipe: "StrPath | Recipe" = "metric",
    settings: Settings = (),
    *,
    out: StrPath = "runs/metric-train",
    fold: int | Iterable[int] | None = None,
) -> "Run":
    """As `train`, for metric recipes alone: the command `pcam-ssl metric-train`."""
    from pcam_ssl.cross_validation import cross_validate

    return _with_page(cross_validate.metric_train(_recipe(recipe, settings), _data(data), Path(out), _folds(fold)))


@verb
def sweep(
    axes: Mapping[str, Sequence[Any]] | Sequence[str],
    data: StrPath | None = None,
    recipe: StrPath = "baseline",
    settings: Settings = (),
    *,
    out: StrPath = "runs/sweep",
    fold: int | Iterable[int] | None = None,
) -> "Sweep":
    """Train one run for each combination of the values of `axes`, such as `{"model.name": ["resnet34", "densenet121"]}`, in folders of `out`.

    Where one run fails the others go on: `finished` holds the folders of the others, `failed` a line for each that failed.
    """
    from pcam_ssl.cross_validation.sweep import sweep
    from pcam_ssl.runs.run import Run

    swept = sweep(os.fspath(recipe), _settings(settings), _axes(axes), _data(data), Path(out), _folds(fold))
    for path in swept.finished:
        _with_page(Run(Path(path)))
    return swept


@verb
def plan(
    recipes: StrPath | Iterable[StrPath],
    data: StrPath | None = None,
    settings: Settings = (),
    *,
    axes: Mapping[str, Sequence[Any]] | Sequence[str] = (),
    folds: Iterable[int] | None = None,
    seeds: Iterable[int] | None = None,
    out: StrPath = "runs/units",
    file: StrPath | None = None,
) -> "list[Unit]":
    """Units of work for many machines: each fold of each recipe with each combination of the values of `axes` (as `sweep`) and of `seeds`.

    Each run has a folder of its own in `out`. `file` also writes the units, a line of JSON each, for `run_unit` and `launch`. Raises
    UserError for what cannot be trained, so that no worker begins.
    """
    from pcam_ssl.files import write_text
    from pcam_ssl.units.plan import plan_units

    if file is not None:
        check_target("file", file, ".jsonl")
    chosen = [None if each is None else list(each) for each in (folds, seeds)]
    units = plan_units(_specs(recipes), _data(data), _settings(settings), _axes(axes), Path(out), *chosen)
    if file is not None:
        write_text(file, "".join(f"{unit.line}\n" for unit in units))
    return units


@verb
def run_unit(file: StrPath, number: int, *, data: StrPath | None = None) -> "Run":
    """Train unit `number` (from 0) of a file that `plan` wrote, or continue it; the last fold combines the run. Returns its Run.

    A finished unit returns at once. `data`: the dataset's place on this machine, where it is another. Raises UserError where another
    worker has the unit (`exit_code` 75), and where the dataset is absent or another one.
    """
    from pcam_ssl.units.run_unit import run_unit

    run, worked = run_unit(Path(file), number, _path(data))
    return _with_page(run) if worked else run


@verb
def launch(
    file: StrPath,
    *,
    on: str = "local",
    workers: int | None = None,
    retries: int = 2,
    requests: Sequence[str] = (),
    address: str | None = None,
    logs: StrPath | None = None,
    data: StrPath | None = None,
) -> "Launched":
    """Run all units of a file on this machine ("local": 2 `workers`), "slurm" or "ray"; returns which runs are finished and what failed.

    Only missing units are run. One whose worker is killed or crashes is started again up to `retries` times and continues from its
    checkpoint. `requests`: what a worker asks the cluster for, as "partition=gpu" or "num_gpus=1". Stopped where it is interrupted.
    """
    from pcam_ssl.units.launch import launch_units

    return launch_units(
        Path(file),
        on,
        workers=workers,
        retries=retries,
        requests=list(requests),
        address=address,
        logs=_path(logs),
        data=_path(data),
    )


@verb
def pseudo_label(
    run: StrPath = "runs/baseline",
    *,
    rounds: int = 3,
    out: StrPath | None = None,
    data: StrPath | None = None,
    recipe: StrPath | None = None,
    settings: Settings = (),
    pooled: bool = False,
    anyway: bool = False,
) -> "RoundsVerdict":
    """Rounds of pseudo-labels on a run (round 0, trained first where there is none); returns the verdict, whose `best` is a Run.

    Rounds that are there are not done again. `out`: where they lie, RUN itself by default. `recipe` and `settings` change round 0's recipe for the
    students and the selection. `pooled`: every fold learns from the pseudo-labels of all, and out-of-fold scores are withheld.
    Before the first round a forecast says what the pool could bring; it raises UserError where that could not be seen, unless `anyway`.
    """
    from pcam_ssl.distributed import own_rank
    from pcam_ssl.pseudo_labels.rounds import pseudo_label
    from pcam_ssl.report.report import first_report
    from pcam_ssl.results import RoundsVerdict
    from pcam_ssl.runs.run import POOLED, ROUNDS_FILE, Run

    chosen = None if recipe is None else os.fspath(recipe)
    verdict = RoundsVerdict(
        pseudo_label(
            Path(run),
            rounds,
            recipe=chosen,
            settings=_settings(settings),
            out=_path(out),
            data=_path(data),
            pooled=pooled,
            anyway=anyway,
        )
    )
    start = _with_page(Run(Path(run)))
    shown = [] if verdict["pooled"] else verdict.runs[1:]
    if any((folder / ROUNDS_FILE).exists() for folder in (start.path, start.path / POOLED)):
        shown.append(start)
    if not own_rank():
        for each in shown:
            first_report(each)
    return verdict


@verb
def label_curve(
    data: StrPath | None = None,
    recipe: "StrPath | Recipe" = "frozen",
    settings: Settings = (),
    *,
    budgets: str | Iterable[int | str],
    by: str = "patches",
    seeds: int = 3,
    method: str = "supervised",
    rounds: int | None = None,
    out: StrPath = "runs/label-curve",
) -> "LabelCurve":
    """AUROC of a recipe against `budgets` of labels (`by="patches"`) or of slides (`by="slides"`), and what twice as many would bring.

    `budgets`: whole numbers from 2, and "all". Each of `seeds` draws other folds and labels; larger budgets keep the labels of smaller ones.
    Runs in `out` are not trained again, so more budgets continue a curve, and the other kind of curve there is compared with this one.
    `method="rounds"` also makes `rounds` pseudo-label rounds (None: 1) on each run, and compares them with the labels alone and the control.
    Raises UserError, before anything is trained, for budgets that cannot be drawn, and where `out` holds something else.
    """
    from pcam_ssl.label_curve.curve import label_curve
    from pcam_ssl.recipe.schema import Recipe
    from pcam_ssl.results import LabelCurve

    return LabelCurve(
        label_curve(
            _recipe(recipe, settings),
            _data(data),
            Path(out),
            budgets=budgets if isinstance(budgets, str) else ",".join(map(str, budgets)),
            by=by,
            seeds=seeds,
            method=method,
            rounds=rounds,
            name="RECIPE" if isinstance(recipe, Recipe) else os.fspath(recipe),
            settings=_settings(settings),
        )
    )


@verb
def patch_history(run: StrPath, id: str, *, out: StrPath | None = None, pooled: bool = False) -> "PatchHistory":
    """One patch over rounds and folds, what was decided and why (`pcam-ssl pseudo-label RUN --explain ID`); `rows` is a DataFrame."""
    from pcam_ssl.pseudo_labels.patch_history import patch_history

    return patch_history(Path(run), id, _path(out), pooled)


@verb
def open_run(path: StrPath) -> "Run":
    """The Run at `path`, finished or not. Raises UserError where there is none."""
    from pcam_ssl.runs.run import ROUNDS_FILE, Run

    run = Run(Path(path))
    if not (run.path / ROUNDS_FILE).exists():
        run.info()
    return run


@verb
def predict(
    run: StrPath,
    source: "StrPath | np.ndarray | Sequence[StrPath]",
    *,
    out: StrPath | None = None,
    split: str | None = None,
    device: str = "auto",
    skip_bad: bool = False,
    round: int | None = None,
) -> "Predictions":
    """Score patches with every fold of a run or blend; returns Predictions: `prob` [N], `table`, and `scores` where labels are known.

    `source`: a DATASET, anything `import_dataset` reads, patches uint8 [N, H, W, 3], or a list of image files. `out` also writes the table
    as parquet; several processes (`torchrun`) need it. Raises UserError where no fold is finished, or the patches do not fit.
    """
    from pcam_ssl.results import predicted

    _check_device(device)
    return predicted(run, source, out=out, split=split, device=device, skip_bad=skip_bad, round=round)


@verb
def scores(
    labels: "Sequence[int | None] | np.ndarray | pd.Series",
    probs: "Sequence[float] | np.ndarray | pd.Series",
    slides: "Sequence[str | None] | np.ndarray | pd.Series | None" = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> "Scores":
    """Scores of predictions of any origin, slides resampled: `scores(labels, probs, slides)["auroc"]`.

    `labels` [N] are 0 or 1 (None where unknown), `probs` [N] of class 1. Without `slides` patches are resampled, which is too narrow.
    """
    from pcam_ssl.evaluation.scores import scores_of

    return scores_of(labels, probs, slides, resamples=resamples, seed=seed)


@verb
def bootstrap_intervals(
    labels: "Sequence[int] | np.ndarray | pd.Series",
    probs: "Sequence[float] | np.ndarray | pd.Series",
    slides: "Sequence[str] | np.ndarray | pd.Series | None" = None,
    *,
    against: "Sequence[float] | np.ndarray | pd.Series | None" = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> "dict[str, Score]":
    """Every score with its slide-clustered bootstrap interval; with `against` [N], the paired differences to those probs.

    `labels` [N] 0 or 1, `probs` [N] of class 1, `slides` [N] or None (patches are resampled then).
    """
    import numpy as np

    from pcam_ssl.evaluation.bootstrap import intervals, paired_differences
    from pcam_ssl.evaluation.scores import Score

    # By position: a Series would be aligned by its index.
    labels, probs = np.asarray(labels), np.asarray(probs)
    groups = None if slides is None else np.asarray(slides, dtype=object)
    if against is None:
        found = intervals(labels, probs, groups, resamples, seed, level)
    else:
        found = paired_differences(labels, np.asarray(against), probs, groups, resamples, seed, level)
    what = "patches" if slides is None else "slides"
    return {name: Score(score["value"], score["low"], score["high"], what, score.get("reason")) for name, score in found.items()}


@verb
def thresholds(predictions: "pd.DataFrame", *, precision: float = 0.95, level: float = 0.95) -> "dict[int, Threshold]":
    """For each class (1, 0) the prob beyond which labelled `predictions` prove a precision: its lower bound at `level` reaches it.

    `predictions` needs the columns label, wsi and calibrated prob, as a fold's inner.parquet has. A Threshold's `prob` is None where nothing is proven.
    """
    from pcam_ssl.pseudo_labels.thresholds import precision_thresholds

    absent = [name for name in ("label", "wsi", "prob") if name not in predictions]
    if absent:
        raise UserError(f"thresholds: the table lacks {', '.join(absent)}; give predictions with label, wsi and prob")
    return precision_thresholds(predictions, precision, level)


@verb
def compare(runs: Iterable[StrPath], *, html: StrPath | None = None) -> "Comparison":
    """Runs of the same dataset and folds side by side; differences are to the first, paired by slide. `html` also writes a page.

    A run is a Run, a path, or one of its further tables (`run.table("knn")`, "RUN:knn"). Raises UserError where they cannot be compared.
    """
    from pcam_ssl.compare.compare import compare_runs, write_page
    from pcam_ssl.results import Comparison

    if html is not None:
        check_target("--html", html, *PAGE)
    comparison = Comparison(compare_runs(_specs(runs)))
    if html is not None:
        write_page(Path(html), comparison)
    return comparison


@verb
def blend(runs: Iterable[StrPath], *, out: StrPath, method: str = "mean", max_correlation: float | None = None) -> "Run":
    """One run from several, at `out`: by mean, rank-mean, logit-mean, or weights or greedy, both nested over folds.

    `max_correlation`: of two runs more alike than this, the worse is dropped. Weights that score a fold never saw its labels.
    """
    from pcam_ssl.blending.blend import blend_runs

    return _with_page(blend_runs(_specs(runs), Path(out), method, max_correlation))


@overload
def report(  # type: ignore[overload-overlap]
    runs: StrPath,
    *,
    sensitivity: float | None = None,
    specificity: float | None = None,
    explain: bool = True,
    map: str = "pca",
    data: StrPath | None = None,
    device: str = "auto",
) -> "Report": ...


@overload
def report(
    runs: Iterable[StrPath],
    *,
    sensitivity: float | None = None,
    specificity: float | None = None,
    explain: bool = True,
    map: str = "pca",
    data: StrPath | None = None,
    device: str = "auto",
) -> "list[Report]": ...


@verb
def report(
    runs: StrPath | Iterable[StrPath],
    *,
    sensitivity: float | None = None,
    specificity: float | None = None,
    explain: bool = True,
    map: str = "pca",
    data: StrPath | None = None,
    device: str = "auto",
) -> "Report | list[Report]":
    """Write RUN/report.html and RUN/model-card.md: whether the score can be believed, and everything it stands on. A list for several runs.

    `sensitivity` or `specificity` sets the operating point; `explain=False` asks nothing of the networks; `map` is pca or umap.
    Raises UserError, before anything is written, for runs that have no report.
    """
    from pcam_ssl.evaluation.operating_point import target_asked
    from pcam_ssl.report.report import Asked, report_runs

    _check_device(device)
    paths = [Path(run) for run in _specs(runs)]
    told = report_runs(paths, target_asked(sensitivity, specificity), Asked(explain, map, _path(data), device))
    return told[0] if isinstance(runs, (str, os.PathLike)) else told


@verb
def embed(
    source: StrPath,
    *,
    out: StrPath,
    run: StrPath | None = None,
    model: str | None = None,
    pretrained: bool = True,
    weights: StrPath | None = None,
    image_size: int | None = None,
    fold: int | None = None,
    split: str | None = None,
    half: bool = False,
    knn: bool = False,
    device: str = "auto",
    skip_bad: bool = False,
) -> "Embeddings":
    """Embeddings of patches by a `run`, or by the frozen backbone `model`, as the new folder `out`; returns Embeddings: `vectors` [N, D], `ids`.

    `weights`: a file of your own weights for `model`. `knn`, with `model`, also scores labelled patches by their neighbours of other slides. Raises UserError where run, model or source do not hold.
    """
    from pcam_ssl.results import Embeddings
    from pcam_ssl.search.embed import embed_source

    if (run is None) == (model is None):
        raise UserError(EMBED_USAGE)
    if model is not None and fold is not None:
        raise UserError("--fold: a backbone named by --model has no folds; drop one of the two")
    if model is None and (not pretrained or image_size or weights):
        raise UserError("--no-pretrained, --weights and --image-size: only with --model; a run's network is as it was trained")
    if weights and not pretrained:
        raise UserError("--weights: is given, and so is --no-pretrained, which asks for random weights; drop one of the two")
    if run is not None and knn:
        raise UserError(
            f"--knn: only with --model; {os.fspath(run)} has learned from labels, and its scores.json holds its kNN scores out of fold"
        )
    _check_device(device)
    facts, knn_scores = embed_source(
        Path(source),
        Path(out),
        run=_path(run),
        fold=fold,
        model=model,
        pretrained=pretrained,
        weights=_path(weights),
        image_size=image_size,
        split=split,
        half=half,
        knn=knn,
        device=device,
        skip_bad=skip_bad,
    )
    return Embeddings(Path(out), facts, knn_scores)


def _place(slide: str | None, at: str | tuple[float, float] | None) -> tuple[str, float, float] | None:
    """(slide, x, y). Raises UserError where one of both is missing, or `at` is no pair of numbers."""
    if slide is None and at is None:
        return None
    if slide is None or at is None:
        raise UserError("--slide S and --at X,Y: a place on a slide needs both")
    try:
        x, y = (float(part) for part in (at.split(",") if isinstance(at, str) else at))
    except (TypeError, ValueError):
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise UserError(f"--at {at}: write two numbers, X,Y")
    return slide, x, y


@verb
def search(
    run: StrPath,
    ids: Iterable[str] = (),
    *,
    images: Iterable[StrPath] = (),
    source: StrPath | None = None,
    slide: str | None = None,
    at: str | tuple[float, float] | None = None,
    k: int = 10,
    any_slide: bool = False,
    index: str | None = None,
    rebuild: bool = False,
    backend: str = "auto",
    data: StrPath | None = None,
    device: str = "auto",
    html: StrPath | None = None,
    store: str | None = None,
    only_split: Iterable[str] = (),
    only_label: Iterable[int] = (),
    only_slide: Iterable[str] = (),
) -> "Found":
    """The `k` nearest patches of other slides, for patches by id, image files, or a whole `source`; with pictures in a notebook.

    `slide` and `at`, (x, y) or "x,y" in px as in the dataset, ask for the patch of a slide nearest to a place. `run`: a run with a refit
    network, or a folder of `embed`. The index is made on first use; `index` is a FAISS factory string. `any_slide` also
    finds patches of the query's own slide. `store` is the URI of the vector database that `index` loaded, which then is searched instead;
    `only_split`, `only_label` (0, 1) and `only_slide` name what neighbours must be. Raises UserError for a folder, query, index or store
    that does not hold.
    """
    from pcam_ssl.search.search import NOTHING_ASKED, search_space
    from pcam_ssl.search.store_gallery import Only

    _check_device(device)
    found = search_space(
        Path(run),
        ids=[ids] if isinstance(ids, str) else list(ids),
        images=[Path(image) for image in _specs(images)],
        source=_path(source),
        place=_place(slide, at),
        k=k,
        any_slide=any_slide,
        factory=index,
        rebuild=rebuild,
        backend=backend,
        data=_path(data),
        device=device,
        html=_path(html),
        store=store,
        only=Only(_specs(only_split), list(only_label), _specs(only_slide)),
    )
    if found is None:
        raise UserError(NOTHING_ASKED)
    return found


@verb
def rebuild_index(
    run: StrPath, *, index: str | None = None, backend: str = "auto", data: StrPath | None = None, device: str = "auto"
) -> Path:
    """Make the index that `search` uses anew; returns its folder."""
    from pcam_ssl.search.search import search_space

    _check_device(device)
    search_space(Path(run), factory=index, rebuild=True, backend=backend, data=_path(data), device=device)
    return Path(run) / "index"


@verb
def index(
    run: StrPath,
    *,
    store: str,
    index: str | None = None,
    rebuild: bool = False,
    data: StrPath | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Load the gallery of `run`, or of a folder of `embed`, into a vector database, for `search(..., store=store)`.

    `store` is a milvus-lite file NAME.db or the URL of a Milvus server, `index` FLAT (exact, the default), IVF_FLAT, IVF_SQ8, HNSW or
    AUTOINDEX. What is there already is not sent again; `rebuild` drops it first. Returns the facts that the command prints as JSON.
    Raises UserError for a folder or a store that cannot be used.
    """
    from pcam_ssl.search.store_gallery import load_gallery

    _check_device(device)
    return load_gallery(Path(run), store, index=index, rebuild=rebuild, data=_path(data), device=device)


@verb
def explain(
    run: StrPath,
    ids: Iterable[str],
    *,
    fold: int | None = None,
    neighbours: int = 6,
    out: StrPath | None = None,
    data: StrPath | None = None,
    round: int | None = None,
    device: str = "auto",
) -> "Explanations":
    """Explain the scores of patches of a run's dataset: Grad-CAM, its share in the centre, agreement over views, neighbours.

    Writes explain.html and a PNG a patch into `out` (RUN/explain). Each patch is explained by the network that never saw it, or by that of
    `fold`. Raises UserError for ids and folds that are not there.
    """
    from pcam_ssl.explain.explain import explain_patches
    from pcam_ssl.results import Explanations

    _check_device(device)
    wanted = [ids] if isinstance(ids, str) else list(ids)
    return Explanations(
        *explain_patches(
            Path(run), wanted, fold=fold, neighbours=neighbours, out=_path(out), data=_path(data), round=round, device=device
        )
    )


@verb
def explain_fold(
    run: StrPath, fold: int, *, data: StrPath | None = None, round: int | None = None, device: str = "auto"
) -> dict[str, Any]:
    """Mean centre share over all patches that `fold` scored, right calls against wrong ones (`pcam-ssl explain --whole-fold`)."""
    from pcam_ssl.explain.explain import explain_fold

    _check_device(device)
    return explain_fold(Path(run), fold, data=_path(data), round=round, device=device)


@verb
def heatmap(
    run: StrPath,
    source: StrPath,
    *,
    out: StrPath | None = None,
    slide: str | Iterable[str] = (),
    size: int | None = None,
    mpp: float | None = None,
    stride: int | None = None,
    tissue: float | None = None,
    assume_mpp: float | None = None,
    data: StrPath | None = None,
    round: int | None = None,
    device: str = "auto",
    workers: int | None = None,
) -> "HeatMaps":
    """Probs of tumor over a slide file, or over each `slide` (all) of a dataset with coordinates: pictures, pages, detections for QuPath.

    Files go into `out` (RUN/heatmaps/NAME). A slide in a fold is scored by the network that never saw it, any other by the mean of all. A
    slide file is cut as the run's dataset was, or with the options of `tile`; of a dataset `mpp` is um/px of its coordinates, where it does not
    say them. Returns HeatMaps: `table`, a HeatMap a slide, and AUROC over slides in `scores`. Raises UserError for a source without
    coordinates, unknown slides, and slides that every network was trained on.
    """
    from pcam_ssl.heatmap.heatmap import Cut, heat_maps

    _check_device(device)
    return heat_maps(
        Path(run),
        Path(source),
        out=_path(out),
        slides=(slide,) if isinstance(slide, str) else tuple(slide),
        cut=Cut(size, mpp, stride, tissue, assume_mpp, workers),
        data=_path(data),
        round=round,
        device=device,
    )


@verb
def export(
    run: StrPath,
    *,
    onnx: StrPath | None = None,
    parquet: StrPath | None = None,
    split: str | None = None,
    fold: int | None = None,
    all_folds: bool = False,
    d4: bool = False,
    round: int | None = None,
    data: StrPath | None = None,
    device: str = "auto",
) -> dict[str, dict[str, Any]]:
    """Write a network as ONNX (uint8 patches in; logit, calibrated prob, embedding out), or embeddings as parquet; returns facts of each file."""
    if onnx is None and parquet is None:
        raise UserError("export: say what to write with --onnx FILE.onnx or --parquet FILE.parquet, or both")
    if onnx is None and (all_folds or d4):
        raise UserError("--all-folds and --d4: only with --onnx; embeddings are of one network, and of patches as they are")
    if parquet is None and (split or device != "auto"):
        raise UserError("--split and --device: only with --parquet; the ONNX file is made and checked on the CPU")
    if all_folds and (fold is not None or parquet is not None):
        raise UserError("--all-folds: goes with neither --fold nor --parquet; the folds have no embedding in common")
    _check_device(device)
    for option, path, suffix in (("--onnx", onnx, ".onnx"), ("--parquet", parquet, ".parquet")):
        if path is not None:
            check_target(option, path, suffix)
    written = {}
    if onnx is not None:
        from pcam_ssl.export.onnx import export_onnx

        written["onnx"] = export_onnx(Path(run), Path(onnx), fold=fold, all_folds=all_folds, d4=d4, round=round, data=_path(data))
    if parquet is not None:
        from pcam_ssl.export.embeddings import export_embeddings

        written["parquet"] = export_embeddings(
            Path(run), Path(parquet), split=split, fold=fold, round=round, data=_path(data), device=device
        )
    return written


@verb
def explore(
    run: StrPath,
    *,
    out: StrPath | None = None,
    split: str | None = None,
    sample: int = 20_000,
    map: str = "pca",
    neighbours: int = 10,
    fold: int | None = None,
    round: int | None = None,
    data: StrPath | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Write a run's patches with thumbnail, map, label, prob, slide, decision and neighbours, for Embedding Atlas; returns facts of the file."""
    from pcam_ssl.export.atlas import explore

    _check_device(device)
    if map not in ("pca", "umap"):
        raise UserError(f"--map {map}: choose pca or umap")
    return explore(
        Path(run),
        _path(out),
        split=split,
        sample=sample,
        method=map,
        neighbours=neighbours,
        fold=fold,
        round=round,
        data=_path(data),
        device=device,
    )


@verb
def serve(file: StrPath, *, port: int = 5055) -> None:
    """Open what `explore` wrote in Embedding Atlas, on this machine alone, until it is interrupted."""
    from pcam_ssl.export.atlas import serve_atlas

    serve_atlas(os.fspath(file), port)


@verb
def recipes() -> dict[str, str]:
    """The shipped recipes: name, and what it is for; with a foundation model its size in fp32, whether it is gated, and its licence."""
    from pcam_ssl.models.foundation import FOUNDATION_MODELS
    from pcam_ssl.recipe.loading import recipe_names, recipe_path

    first = {name: recipe_path(name).read_text(encoding="utf-8").splitlines()[0] for name in recipe_names()}
    purposes = {name: line.removeprefix("#").strip() for name, line in first.items()}
    terms = {name: f" ({model.terms()})" for name, model in FOUNDATION_MODELS.items()}
    return {name: purpose.removesuffix(".") + terms[name] if name in terms else purpose for name, purpose in purposes.items()}


@verb
def recipe(name: "StrPath | Recipe" = "baseline", settings: Settings = ()) -> "Recipe":
    """A recipe, resolved: every key, after `settings`. Raises UserError for unknown names and keys, with the nearest."""
    return _recipe(name, settings)


@verb
def copy_recipe(name: str, target: StrPath) -> Path:
    """Copy a shipped recipe to the new file `target`, to change it."""
    from pcam_ssl.files import write_text
    from pcam_ssl.recipe.loading import recipe_path

    check_target("recipes copy", target, ".yaml", ".yml")
    if Path(target).exists():
        raise UserError(f"{os.fspath(target)}: exists already; choose another name")
    write_text(target, recipe_path(name).read_text(encoding="utf-8"))
    return Path(target)


@verb
def doctor(data: StrPath | None = None, *, verify: bool = False) -> "list[Finding]":
    """Versions, device, precision, training speed, disk and dataset, one finding each; `verify` reads all pixels of the dataset and compares their digest."""
    from pcam_ssl.doctor import examine

    return examine(None if data is None else Path(data), verify=verify)


def _data(path: StrPath | None) -> Path:
    return Path(os.environ.get("PCAM_SSL_DATA", "data/pcam") if path is None else path)


def _path(path: StrPath | None) -> Path | None:
    return None if path is None else Path(path)


def _recipe(name: "StrPath | Recipe", settings: Settings) -> "Recipe":
    from pcam_ssl.recipe.loading import load_recipe
    from pcam_ssl.recipe.schema import Recipe

    if isinstance(name, Recipe):
        # Also without settings: files that it names (views.file, model.weights) are read here.
        return load_recipe(None, _settings(settings), name)
    return load_recipe(os.fspath(name), _settings(settings))


def _settings(settings: Settings) -> list[str]:
    """Settings as the command line gives them; JSON is YAML, too."""
    if isinstance(settings, str):
        raise UserError(f'settings: {settings!r} is one text; give a dict, such as {{"train.epochs": 3}}, or a list')
    if isinstance(settings, Mapping):
        return [f"{key}={json.dumps(value, default=_plain)}" for key, value in settings.items()]
    return list(settings)


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's, all else as text."""
    return value.item() if hasattr(value, "item") else str(value)


def _axes(axes: Mapping[str, Sequence[Any]] | Sequence[str]) -> list[str]:
    if isinstance(axes, Mapping):
        return [f"{key}={','.join(map(str, values))}" for key, values in axes.items()]
    return list(axes)


def _folds(fold: int | Iterable[int] | None) -> list[int] | None:
    if fold is None or isinstance(fold, int):
        return None if fold is None else [fold]
    return list(fold) or None


def _specs(runs: StrPath | Iterable[StrPath]) -> list[str]:
    """Runs, or slides, as the command line names them; a single one is a list of one."""
    if isinstance(runs, (str, os.PathLike)):
        return [os.fspath(runs)]
    return [os.fspath(run) for run in runs]


def _check_device(device: str) -> None:
    if device not in DEVICES:
        raise UserError(f"--device {device}: choose auto, cpu, cuda or mps")


def _with_page(run: "Run") -> "Run":
    """The run, with its page written where it is finished and has none yet, or one from before its scores."""
    from pcam_ssl.distributed import own_rank

    page, scores = run.paths.report, run.paths.scores
    if own_rank() or not scores.exists() or run.info().get("status") != "done":
        return run
    if page.exists() and page.stat().st_mtime_ns >= scores.stat().st_mtime_ns:
        return run
    from pcam_ssl.records import read_scores
    from pcam_ssl.report.report import first_report

    if read_scores(run.path)["out_of_fold"] is not None:
        first_report(run)
    return run
