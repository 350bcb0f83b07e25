"""What a run's nearest neighbours say of patches of another source: each fold's training patches vote, as they did in training."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
from scipy.special import expit

from pcam_ssl.cross_validation.aggregate import mean_of_folds
from pcam_ssl.cross_validation.context import Setting, Unit, fold_unit
from pcam_ssl.cross_validation.knn_fold import embed_patches, training_gallery
from pcam_ssl.data.dataset import Dataset, open_dataset
from pcam_ssl.data.folds import read_folds
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.calibration import Calibrator
from pcam_ssl.inference.correlation import calibrated_logits
from pcam_ssl.models.trained import load_trained
from pcam_ssl.neighbors.knn import gallery_votes, knn_logits
from pcam_ssl.neighbors.knn_choice import Blend
from pcam_ssl.runs.calibration import INNER, INNER_KNN, mean_calibrator
from pcam_ssl.runs.records import read_neighbours
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import predictions


def neighbours_table(
    run: Run, kind: str, head: pd.DataFrame | None, source: Dataset, patches: pd.DataFrame, device: str = "auto"
) -> pd.DataFrame:
    """Predictions of `patches` of `source` by each fold's neighbours (`knn`) or by head and neighbours (`blend`), and their mean as fold -1.

    `head`: the classifier's Predictions of the same patches, by fold, which `knn` does without. Folds that are not finished are left out.
    Raises UserError where the run's dataset, whose patches vote, is gone or another one.
    """
    info, recipe = run.info(), run.load_recipe()
    if not Path(info["dataset"]).exists():
        raise UserError(
            f"{run.path}: its neighbours are the patches of {info['dataset']}, which is not there any more; put it back"
        )
    dataset = open_dataset(info["dataset"])
    if dataset.digest != info["dataset_digest"]:
        raise UserError(
            f"{run.path}: its neighbours are the patches of {info['dataset']}, and that is another dataset by now; put the old one back"
        )
    folds = read_folds(run.folds, dataset.patches)
    parts, finished = [], [k for k in range(folds.n_folds) if run.fold_done(k)]
    for unit in (fold_unit(folds, k) for k in finished):
        trained = load_trained(unit.folder(run), device)
        setting = Setting(recipe, dataset, folds, run, trained.world, trained.precision, trained.world.loader_workers)
        fold_head = None if head is None else head[head.fold == unit.number]
        parts.append(_fold(setting, unit, trained.network, kind, fold_head, replace(setting, dataset=source), patches))
    # Blended logits are made of calibrated ones, so their mean is as it should be.
    inner = INNER_KNN if recipe.scored_by == "head" else INNER
    calibrator = mean_calibrator(run, finished, inner) if kind == "knn" else None
    return pd.concat([*parts, mean_of_folds(parts, calibrator)], ignore_index=True)


def _fold(setting: Setting, unit: Unit, network, kind: str, head: pd.DataFrame | None, source: Setting, patches: pd.DataFrame):
    facts = read_neighbours(unit.folder(setting.run), kind == "blend")
    vote = facts["vote"]
    votes = gallery_votes(training_gallery(setting, unit, network), embed_patches(source, network, patches), vote["k"])
    logits = knn_logits(*votes, vote["temperature"])
    probs = Calibrator.from_dict(facts["calibration"]).prob(logits)
    if kind == "knn":
        return predictions(patches.id, patches.label, patches.wsi, unit.number, logits, probs=probs)
    # Logits of calibrated probs are what the share of the head was chosen for.
    blended = Blend(**facts["blend"]).logits(calibrated_logits(head.prob), calibrated_logits(probs))
    return head.assign(logit=blended, prob=expit(blended))
