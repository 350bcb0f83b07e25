"""Predict new patches with every fold of a run: by its network, by kNN votes of its training patches, by its graph, or smoothed in space."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.cross_validation.graph_scores import propagated_logits
from pcam_ssl.cross_validation.neighbor_votes import training_gallery
from pcam_ssl.cross_validation.spatial_scores import around_logits, check_places, smoothed
from pcam_ssl.data.dataset import PIXELS, Dataset, open_dataset, split_rows
from pcam_ssl.data.folds import Unit, fold_unit, read_folds
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.data.pool import transductive
from pcam_ssl.distributed import World, join_world
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.calibration import Calibrator
from pcam_ssl.evaluation.scores import score_report
from pcam_ssl.models.artefact import load_trained
from pcam_ssl.models.filling import fill
from pcam_ssl.models.inference import logit_batches, summarised, test_views
from pcam_ssl.neighbors.knn import Blend, gallery_votes, knn_logits
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.records import read_graph, read_neighbours, read_spatial
from pcam_ssl.runs.embedder import Embedder, unit_digest
from pcam_ssl.runs.networks import INNER, INNER_GRAPH, INNER_KNN, INNER_SPATIAL, mean_calibrator, mean_of_folds
from pcam_ssl.runs.run import Run
from pcam_ssl.runs.shared_work import kept_work, shared_source
from pcam_ssl.tables import calibrated_logits, predictions, read_predictions, write_table, write_tables
from pcam_ssl.terminal import warn

BLOCK = 65_536
"""Patches of which Predictions are made and written at once."""


def predict_run(
    run: Run, source: Path | str, out: Path, *, split: str | None = None, device: str = "auto", skip_bad: bool = False
) -> tuple[int, dict | None]:
    """Write Predictions of `source` by every fold of a run, and their mean as fold -1.

    Several processes (`torchrun`) share the patches and write one file, the same as one process writes; an interrupted command is continued
    by the next one. Returns the number of patches and, where at least one has a label, the score report of the mean.
    Raises UserError where no fold is finished.
    """
    world = join_world(device)
    info = world.run_on_all(run.info)
    folders = sorted(run.path.glob("fold-*/fold.json"), key=lambda path: int(path.parent.name.removeprefix("fold-")))
    if not folders:
        raise world.agreed(UserError(f"{run.path}: no fold is finished yet; run its command again, it continues where it stopped"))
    recipe = run.recipe
    with shared_source(source, skip_bad, world) as dataset:
        patches = world.run_on_all(lambda: split_rows(dataset, source, split))
        if dataset.digest == info["dataset_digest"] and (patches.split != "test").any():
            warn(
                f"{source}: the run was trained on these patches, so scores on its train split are too good; use oof.parquet, or --split test"
            )
        in_pool = dataset.digest == info["dataset_digest"] and info.get("learned_from_pool", False)
        exposure = transductive(dataset, read_folds(run.paths.folds, dataset.patches), patches.id, True) if in_pool else None
        if exposure and exposure["transductive"]:
            warn(
                f"{source}: scores are transductive: the networks learned from {exposure['in_pool']:.0%} of these patches, without labels; score new slides for an honest estimate"
            )
        notes = run.table_notes({**info, "dataset_digest": dataset.digest}, round=0, run=run.path)
        identity = {
            "networks": world.run_on_main(lambda: {path.parent.name: unit_digest(path.parent) for path in folders}),
            "dataset": dataset.digest,
            "views": repr(test_views(recipe)),
            "split": patches.split.unique().tolist(),
            "device": world.device.type,
        }
        with kept_work(out, f"--out {out}", identity, world) as work:
            if recipe.scored_by == "knn":
                tables = neighbours_table(run, "knn", None, dataset, patches, work / "knn", out.parent, world)
                mean = tables[tables.fold == -1]
                world.run_on_main(lambda: write_table(out, tables, notes))
            else:
                mean = _predict_folds(run, [path.parent for path in folders], dataset, patches, work, out, notes, world)
        return len(patches), world.run_on_main(lambda: _report(mean, recipe))


def _predict_folds(
    run: Run,
    folders: list[Path],
    dataset: Dataset,
    patches: pd.DataFrame,
    work: Path,
    out: Path,
    notes: dict[str, str],
    world: World,
) -> pd.DataFrame:
    """Write the Predictions of all folds and their mean, block by block, from logits kept in the folder `work`; returns the mean where
    there are labels, else an empty table, in the process that writes."""
    recipe = run.recipe
    folds = [_score_fold(folder, work / f"{folder.name}.npy", out.parent, recipe, dataset, patches, world) for folder in folders]
    means: list[pd.DataFrame] = []
    calibrator, labelled = mean_calibrator(run, [fold.number for fold in folds]), patches.label.notna().any()

    def blocks() -> Iterator[pd.DataFrame]:
        places = [slice(begin, begin + BLOCK) for begin in range(0, len(patches), BLOCK)]
        for fold in folds:
            yield from (fold.table(patches, place) for place in places)
        for place in places:
            mean = mean_of_folds([fold.table(patches, place) for fold in folds], calibrator)
            if labelled:
                means.append(mean)
            yield mean

    world.run_on_main(lambda: write_tables(out, blocks(), notes))
    return pd.concat(means, ignore_index=True) if means else pd.DataFrame()


@dataclass(frozen=True)
class _Scored:
    """What a fold's network says of all patches: `logits` float64 `[N, 2]`, mean and standard deviation over views, on the disk."""

    number: int
    calibrator: Calibrator
    logits: np.ndarray

    def table(self, patches: pd.DataFrame, place: slice) -> pd.DataFrame:
        """Predictions of the patches at `place`."""
        part, (logits, view_std) = patches.iloc[place], self.logits[place].T
        return predictions(part.id, part.label, part.wsi, self.number, logits, view_std, self.calibrator.prob(logits))


def _score_fold(
    folder: Path, path: Path, place: Path, recipe: Recipe, dataset: Dataset, patches: pd.DataFrame, world: World
) -> _Scored:
    trained, rows, views = world.run_on_all(lambda: load_trained(folder, world)), patches.row.to_numpy(), test_views(recipe)
    pixels, size = Pixels(dataset.path / PIXELS), recipe.predict.batch_size

    def compute(numbers: Sequence[int]) -> Iterator[list[np.ndarray]]:
        how = {"views": views, "batch_size": size, "precision": trained.precision}
        where = {"device": world.device, "workers": world.loader_workers}
        for logits in logit_batches(trained.network, pixels, rows, patches.id, numbers, **how, **where):
            yield [np.stack(summarised(logits, views), 1)]

    fill([path], (len(rows), 2), np.float64, compute, batch_size=size, world=world, label=folder.name, place=place)
    calibrator = Calibrator.from_dict(trained.facts["calibration"])
    return _Scored(trained.facts["fold"], calibrator, np.load(path, mmap_mode="r"))


def _report(mean: pd.DataFrame, recipe: Recipe) -> dict | None:
    """The score report of the mean; None where nothing has a label."""
    if mean.empty or not mean.label.notna().any():
        return None
    groups = mean.wsi.to_numpy() if mean.wsi[mean.label.notna()].notna().all() else None
    return score_report(mean, groups, recipe.score.resamples, recipe.seed)


def further_table(
    run: Run, kind: str, own: pd.DataFrame, source: Dataset, patches: pd.DataFrame, kept: Path, place: Path, world: World
) -> pd.DataFrame:
    """Predictions of `patches` of `source` by one of a run's further ways (`knn`, `blend`, `graph` or `spatial`), by fold and their mean as
    fold -1, from the run's `own` of the same patches. Raises as `neighbours_table`, and where `spatial` finds no places."""
    return (
        _smoothed(run, own, source) if kind == "spatial" else neighbours_table(run, kind, own, source, patches, kept, place, world)
    )


def _smoothed(run: Run, own: pd.DataFrame, source: Dataset) -> pd.DataFrame:
    places = check_places(run.recipe, source)
    parts, finished = [], [int(k) for k in own.fold.unique() if k >= 0]
    for k in finished:
        facts, table = read_spatial(run.fold(k)), own[own.fold == k].reset_index(drop=True)
        calibrator = Calibrator.from_dict(facts["calibration"])
        parts.append(smoothed(table, around_logits(places, table), facts["weight"], calibrator))
    return pd.concat([*parts, mean_of_folds(parts, mean_calibrator(run, finished, INNER_SPATIAL))], ignore_index=True)


def neighbours_table(
    run: Run,
    kind: str,
    head: pd.DataFrame | None,
    source: Dataset,
    patches: pd.DataFrame,
    kept: Path,
    place: Path,
    world: World,
) -> pd.DataFrame:
    """Predictions of `patches` of `source` by each finished fold, and their mean as fold -1: by kNN (`knn`), by head and kNN (`blend`), or by
    label propagation (`graph`).

    `head`: the classifier's Predictions of the same patches, by fold, which only `blend` needs. In the folder `kept` are the Predictions of
    finished folds and the embeddings of the present one, with which an interrupted command goes on; errors name the folder `place`.
    Raises UserError where the run's dataset, whose patches vote, does not exist any more or has changed.
    """
    info, recipe = run.info(), run.recipe
    voters = "graph joins the patches" if kind == "graph" else "kNN votes with the patches"
    if not Path(info["dataset"]).exists():
        raise UserError(f"{run.path}: its {voters} of {info['dataset']}, which does not exist any more; put it back")
    dataset = open_dataset(info["dataset"])
    if dataset.digest != info["dataset_digest"]:
        raise UserError(f"{run.path}: its {voters} of {info['dataset']}, which has changed since; put the dataset of the run back")
    if kind == "graph" and recipe.graph.transductive and source.digest == dataset.digest:
        warn(
            f"{source.path}: scores by the graph of {run.path} are transductive: its nodes are patches of this dataset, scored ones too; score"
            " new slides for an honest estimate"
        )
    folds = read_folds(run.paths.folds, dataset.patches)
    world.run_on_main(lambda: kept.mkdir(exist_ok=True))
    parts, finished = [], [k for k in range(folds.n_folds) if run.fold_done(k)]
    for unit in (fold_unit(folds, k) for k in finished):
        done, embedded = kept / f"{unit.name}-{kind}.parquet", kept / f"{unit.name}.npy"
        if not world.run_on_main(done.exists):
            trained = world.run_on_all(lambda unit=unit: load_trained(run.unit(unit.name), world))
            context = RunContext(recipe, dataset, folds, run, world, trained.precision, world.loader_workers)
            embedder = Embedder(trained.network, trained.precision, world, recipe.predict.batch_size, {})
            pixels, rows = Pixels(source.path / PIXELS), patches.row.to_numpy()
            embeddings = embedder.fill(pixels, rows, embedded, place, label=f"{unit.name} embedding")
            fold_head = None if head is None else head[head.fold == unit.number]
            part = _fold(context, unit, trained.network, kind, fold_head, embeddings, patches)
            world.run_on_main(lambda part=part, done=done: write_table(done, part))
            # One fold's embeddings at a time: those of all folds may be larger than the patches.
            world.run_on_main(lambda embedded=embedded: embedded.unlink())
        parts.append(world.run_on_all(lambda done=done: read_predictions(done)))
    # Blended logits are calibrated already, so their mean needs no temperature.
    inner = {"graph": INNER_GRAPH, "knn": INNER_KNN if recipe.scored_by == "head" else INNER}
    calibrator = mean_calibrator(run, finished, inner[kind]) if kind in inner else None
    return pd.concat([*parts, mean_of_folds(parts, calibrator)], ignore_index=True)


def _fold(
    context: RunContext, unit: Unit, network, kind: str, head: pd.DataFrame | None, embeddings: np.ndarray, patches: pd.DataFrame
):
    folder = context.run.unit(unit.name)
    if kind == "graph":
        facts = read_graph(folder)
        logits = propagated_logits(context, unit, network, facts["choice"], embeddings)
        probs = Calibrator.from_dict(facts["calibration"]).prob(logits)
        return predictions(patches.id, patches.label, patches.wsi, unit.number, logits, probs=probs)
    facts = read_neighbours(folder, kind == "blend")
    vote = facts["vote"]
    votes = gallery_votes(training_gallery(context, unit, network), embeddings, vote["k"])
    logits = knn_logits(*votes, vote["temperature"])
    probs = Calibrator.from_dict(facts["calibration"]).prob(logits)
    if kind == "knn":
        return predictions(patches.id, patches.label, patches.wsi, unit.number, logits, probs=probs)
    # The blend weight was chosen for logits of calibrated probs.
    blended = Blend(**facts["blend"]).logits(calibrated_logits(head.prob), calibrated_logits(probs))
    return head.assign(logit=blended, prob=expit(blended))
