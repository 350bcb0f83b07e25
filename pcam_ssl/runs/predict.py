"""`pcam-ssl predict`: patches that no run has seen, from one run folder alone."""

from pathlib import Path

import pandas as pd

from pcam_ssl.data.folds import read_folds
from pcam_ssl.data.dataset import PIXELS, Dataset
from pcam_ssl.data.batches import Pixels
from pcam_ssl.errors import UserError
from pcam_ssl.files import check_target
from pcam_ssl.evaluation.calibration import Calibrator
from pcam_ssl.models.inference import predict_logits
from pcam_ssl.evaluation.scores import score_report
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.run import BLEND, run_in_use
from pcam_ssl.tables import predictions, write_table
from pcam_ssl.terminal import progress, warn
from pcam_ssl.blending.blend_neighbours import neighbours_table
from pcam_ssl.blending.predict import predict_blend
from pcam_ssl.runs.calibration import mean_calibrator
from pcam_ssl.cross_validation.aggregate import mean_of_folds
from pcam_ssl.data.pool import transductive
from pcam_ssl.cross_validation.context import test_views
from pcam_ssl.data.source import open_source, split_rows
from pcam_ssl.models.trained import load_trained


def predict_source(
    run_path: Path | str,
    source: Path | str,
    out: Path | str,
    *,
    split: str | None = None,
    device: str = "auto",
    skip_bad: bool = False,
    round: int | None = None,
) -> tuple[int, dict | None]:
    """Write Predictions of `source` by every fold of a run (of its best round, or of `round`), and their mean as fold -1.

    Returns the number of patches and, where at least one has a label, the score report of the mean.
    """
    run, out = run_in_use(run_path, round), Path(out)
    info = run.info()
    check_target("--out", out, ".parquet")
    if info["command"] == BLEND:
        return predict_blend(run, source, out, predict_source, split=split, device=device, skip_bad=skip_bad)
    folders = sorted(run.path.glob("fold-*/fold.json"), key=lambda path: int(path.parent.name.removeprefix("fold-")))
    if not folders:
        raise UserError(f"{run.path}: no fold is finished yet; run its command again, it goes on where it stopped")
    recipe = run.load_recipe()
    with open_source(source, skip_bad) as dataset:
        patches = split_rows(dataset, source, split)
        if dataset.digest == info["dataset_digest"] and (patches.split != "test").any():
            warn(
                f"{source}: the run was trained on these patches, so scores of its train split are no estimate; use oof.parquet, or --split test"
            )
        in_pool = dataset.digest == info["dataset_digest"] and info.get("learned_from_pool", False)
        known = transductive(dataset, read_folds(run.folds, dataset.patches), patches.id, True) if in_pool else None
        if known and known["transductive"]:
            warn(
                f"{source}: transductive: {known['in_pool']:.0%} of these patches were in the pool that the networks learned from, so scores on them are no estimate for new slides"
            )
        if recipe.scored_by == "knn":
            table = neighbours_table(run, "knn", None, dataset, patches, device)
        else:
            parts = [_score_fold(path.parent, recipe, dataset, patches, device) for path in folders]
            calibrator = mean_calibrator(run, [int(path.parent.name.removeprefix("fold-")) for path in folders])
            table = pd.concat([*parts, mean_of_folds(parts, calibrator)], ignore_index=True)
        write_table(out, table, run.table_notes({**info, "dataset_digest": dataset.digest}, round=0, run=run.path))
        return len(patches), _report(table, recipe)


def _report(table: pd.DataFrame, recipe: Recipe) -> dict | None:
    mean = table[table.fold == -1]
    if not mean.label.notna().any():
        return None
    known = mean[mean.label.notna()]
    groups = mean.wsi.to_numpy() if known.wsi.notna().all() else None
    return score_report(mean, groups, recipe.score.resamples, recipe.seed)


def _score_fold(folder: Path, recipe: Recipe, dataset: Dataset, patches: pd.DataFrame, device: str) -> pd.DataFrame:
    trained = load_trained(folder, device)
    calibrator = Calibrator.from_dict(trained.facts["calibration"])
    with progress(folder.name, len(patches)) as advance:
        logits, view_std, _ = predict_logits(
            trained.network,
            Pixels(dataset.path / PIXELS),
            patches.row.to_numpy(),
            patches.id,
            views=test_views(recipe),
            batch_size=recipe.predict.batch_size,
            precision=trained.precision,
            world=trained.world,
            advance=advance,
        )
    return predictions(patches.id, patches.label, patches.wsi, trained.facts["fold"], logits, view_std, calibrator.prob(logits))
