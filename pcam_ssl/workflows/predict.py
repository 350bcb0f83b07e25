"""`pcam-ssl predict`: patches that no run has seen, from one run folder alone."""

import tempfile
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from pcam_ssl.data.importing import import_source
from pcam_ssl.data.store import PIXELS, Dataset, is_dataset, open_dataset
from pcam_ssl.data.streams import Pixels
from pcam_ssl.engine.precision import Precision, choose_precision
from pcam_ssl.errors import UserError
from pcam_ssl.inference.calibrate import Calibrator
from pcam_ssl.inference.predict import TestViews, predict_logits
from pcam_ssl.inference.scores import score_report
from pcam_ssl.models.artefact import load_network
from pcam_ssl.recipe import Recipe
from pcam_ssl.run import Run
from pcam_ssl.tables import predictions, write_table
from pcam_ssl.terminal import progress, warn
from pcam_ssl.workflows.gather import mean_of_folds
from pcam_ssl.world import World, choose_device


def predict_source(
    run_path: Path | str,
    source: Path | str,
    out: Path | str,
    *,
    split: str | None = None,
    device: str = "auto",
    skip_bad: bool = False,
) -> tuple[int, dict | None]:
    """Write Predictions of `source` by every fold of a run, and their mean as fold -1.

    Returns the number of patches and, where at least one has a label, the score report of the mean.
    """
    run, out = Run(Path(run_path)), Path(out)
    info = run.info()
    if out.suffix != ".parquet":
        raise UserError(f"--out {out}: Predictions are parquet; name it {out.with_suffix('.parquet')}")
    folders = sorted(run.path.glob("fold-*/fold.json"), key=lambda path: int(path.parent.name.removeprefix("fold-")))
    if not folders:
        raise UserError(f"{run.path}: no fold is finished yet; run its command again, it goes on where it stopped")
    recipe = run.load_recipe()
    with _dataset(Path(source), skip_bad) as dataset:
        patches = dataset.patches if split is None else dataset.patches[dataset.patches.split == split]
        if not len(patches):
            raise UserError(f"{source}: no patches in split {split}; it has {', '.join(sorted(dataset.patches.split.unique()))}")
        if dataset.digest == info["dataset_digest"] and (patches.split != "test").any():
            warn(
                f"{source}: the run was trained on these patches, so scores of its train split are no estimate; use oof.parquet, or --split test"
            )
        parts = [_score_fold(path.parent, recipe, dataset, patches, device) for path in folders]
        table = pd.concat([*parts, mean_of_folds(parts)], ignore_index=True)
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
    world = World(0, 1, choose_device(device))
    _, facts = load_network(folder, world.device)
    precision = _precision(facts["precision"], world)
    network, facts = load_network(folder, world.device, precision.channels_last)
    calibrator = Calibrator.from_dict(facts["calibration"])
    views = TestViews(
        recipe.predict.d4, recipe.predict.random_views, recipe.views.policy, recipe.views.strength, recipe.predict.mean, recipe.seed
    )
    with progress(folder.name, len(patches)) as advance:
        logits, view_std = predict_logits(
            network,
            Pixels(dataset.path / PIXELS),
            patches.row.to_numpy(),
            patches.id,
            views=views,
            batch_size=recipe.predict.batch_size,
            precision=precision,
            world=world,
            advance=advance,
        )
    return predictions(patches.id, patches.label, patches.wsi, facts["fold"], logits, view_std, calibrator.prob(logits))


def _precision(trained: dict, world: World) -> Precision:
    """The format the network was trained in, where this device computes in it; else this device's own, and that is said."""
    here = choose_precision(world.device)
    if trained["name"] in ("fp32", here.name):
        return Precision(trained["name"], trained["channels_last"], trained["why"])
    warn(
        f"the run was trained in {trained['name']}, {world.device.type} computes in {here.name} ({here.why}); logits may differ in the second decimal"
    )
    return here


@contextmanager
def _dataset(source: Path, skip_bad: bool):
    if is_dataset(source):
        yield open_dataset(source)
        return
    with tempfile.TemporaryDirectory(prefix="pcam-ssl-") as folder:
        yield import_source(source, Path(folder) / "patches", skip_bad=skip_bad)
