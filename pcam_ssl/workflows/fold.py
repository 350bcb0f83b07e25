"""One fold, the unit of work: fit on its training slides, calibrate on its inner slides, score its own slides and the test split."""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timm.utils import ModelEmaV3

from pcam_ssl.data.folds import Folds, labelled_rows
from pcam_ssl.data.store import PIXELS, Dataset
from pcam_ssl.data.streams import Pixels, Shuffled, TrainStream
from pcam_ssl.data.views import Views
from pcam_ssl.engine.checkpoint import remove_checkpoints
from pcam_ssl.engine.fit import Plan, Training, fit
from pcam_ssl.engine.optim import Schedule, build_optimizer
from pcam_ssl.engine.precision import Precision
from pcam_ssl.engine.tensorboard import tensorboard_log
from pcam_ssl.files import write_json
from pcam_ssl.inference.calibrate import Calibrator, fit_calibrator
from pcam_ssl.inference.metrics import auroc, nll
from pcam_ssl.inference.predict import PLAIN, TestViews, predict_logits
from pcam_ssl.methods import build_method
from pcam_ssl.models.artefact import load_weights, save_facts, save_weights
from pcam_ssl.models.batchnorm import share_batch_norms
from pcam_ssl.models.network import Network, build_network
from pcam_ssl.recipe import Recipe
from pcam_ssl.run import Metrics, Run
from pcam_ssl.tables import predictions, write_table
from pcam_ssl.terminal import progress, say, warn
from pcam_ssl.world import World


@dataclass(frozen=True)
class Setting:
    """What all folds of a run share."""

    recipe: Recipe
    dataset: Dataset
    folds: Folds
    run: Run
    world: World
    precision: Precision
    workers: int

    @property
    def pixels(self) -> Pixels:
        return Pixels(self.dataset.path / PIXELS)

    @property
    def test_views(self) -> TestViews:
        options, views = self.recipe.predict, self.recipe.views
        return TestViews(options.d4, options.random_views, views.policy, views.strength, options.mean, self.recipe.seed)

    def scorer(self, views: TestViews):
        """`predict_logits` with everything but network, rows and ids filled in."""
        return partial(
            predict_logits,
            pixels=self.pixels,
            views=views,
            batch_size=self.recipe.predict.batch_size,
            precision=self.precision,
            world=self.world,
            workers=self.workers,
        )


def fold_seed(seed: int, k: int) -> int:
    """Seed of a fold: folds differ in their first weights and batches too."""
    return seed * 1009 + k


def train_fold(setting: Setting, k: int) -> None:
    """Train and score fold `k`; its folder is complete once `fold.json` is there. Resumes where it was stopped."""
    folder = setting.run.fold(k)
    folder.mkdir(parents=True, exist_ok=True)
    rows = labelled_rows(setting.dataset.patches)
    labels = rows.label.to_numpy(np.int64)
    begun = time.time()
    training = fit_fold(setting, k, folder, rows, labels)
    network = training.method.network
    load_weights(folder, network)
    calibrator = _calibrate(setting, network, rows[setting.folds.inner_mask(k)])
    if setting.world.leads:
        save_facts(
            folder,
            network,
            fold=k,
            calibration=calibrator.to_dict(),
            precision=setting.precision.to_dict(),
            recipe=setting.recipe.dump(),
            dataset_digest=setting.dataset.digest,
        )
    _score(setting, network, calibrator, k, rows[setting.folds.score_mask(k)], "oof")
    test = setting.dataset.patches[setting.dataset.patches.split == "test"]
    if len(test):
        _score(setting, network, calibrator, k, test, "test")
    if setting.world.leads:
        facts = {
            "fold": k,
            "epoch": training.best["epoch"],
            "seconds": round(time.time() - begun, 1),
            "processes": setting.world.size,
        }
        counts = {name: int(getattr(setting.folds, f"{name}_mask")(k).sum()) for name in ("train", "inner", "score")}
        write_json(
            folder / "fold.json", {**facts, **counts, "precision": setting.precision.to_dict(), "calibration": calibrator.to_dict()}
        )
        remove_checkpoints(folder)


def fit_fold(setting: Setting, k: int, folder: Path, rows, labels: np.ndarray) -> Training:
    """Fit fold `k`; the weights to use lie in its folder afterwards."""
    recipe, world = setting.recipe, setting.world
    options = recipe.train
    mask = setting.folds.train_mask(k)
    seed = fold_seed(recipe.seed, k)
    torch.manual_seed(seed)
    network = _network(setting, k)
    training = _training(setting, network, labels[mask], int(mask.sum()))
    stream = TrainStream(
        setting.pixels,
        rows.row.to_numpy()[mask],
        labels[mask],
        Shuffled(int(mask.sum()), options.batch_size, seed),
        Views(recipe.views.policy, recipe.views.strength),
        seed,
        world.rank,
        world.size,
    )
    world.share(options.batch_size, "train.batch_size")
    plan = Plan(
        epochs=options.epochs,
        steps_per_epoch=steps_per_epoch(recipe, int(mask.sum())),
        seed=seed,
        clip_norm=options.clip_norm,
        head_first_epochs=recipe.model.head_first_epochs,
        keep_best=options.choose != "last",
        checkpoint_s=options.checkpoint_s,
        workers=setting.workers,
    )
    metrics = Metrics(folder / "metrics.jsonl")
    chosen_by = setting.folds.score_mask(k) if options.choose == "fold" else setting.folds.inner_mask(k)
    bar = progress(f"fold {k}", plan.total, "batches") if world.leads else nullcontext(lambda *_: None)
    with bar as advance:
        fit(
            training,
            stream,
            plan,
            folder=folder,
            precision=setting.precision,
            world=world,
            evaluate=partial(_evaluate, setting, rows[chosen_by], "fold" if options.choose == "fold" else "inner"),
            keep=partial(save_weights, folder) if world.leads else lambda network: None,
            log=_logger(metrics, folder, options.tensorboard) if world.leads else lambda event: None,
            rewind=metrics.rewind if world.leads else lambda step: None,
            advance=lambda n, text: advance(n, f"fold {k} {text}"),
        )
    world.gather(None)  # the leader's weights must lie on disk before any process reads them
    if options.choose != "last" and "score" not in training.best and world.leads:
        warn(f"fold {k}: {options.choose} patches hold one class, so no epoch could be chosen by AUROC; the last is kept")
    return training


def _logger(metrics: Metrics, folder: Path, tensorboard: bool):
    mirror = tensorboard_log(folder / "tensorboard") if tensorboard else lambda event: None

    def log(event: dict) -> None:
        metrics.write(**event)
        mirror(event)

    return log


def steps_per_epoch(recipe: Recipe, n_train: int) -> int:
    """Batches of an epoch: each training patch about once, or `train.samples_per_epoch`."""
    seen = min(n_train, recipe.train.samples_per_epoch or n_train)
    return max(1, round(seen / recipe.train.batch_size))


def _network(setting: Setting, k: int) -> Network:
    model = setting.recipe.model
    network = build_network(
        model.name,
        model.pretrained and model.init is None,
        setting.dataset.size_px,
        model.image_size,
        model.drop_rate,
        model.drop_path_rate,
    )
    if model.init is not None:
        load_weights(Run(Path(model.init)).fold(k), network)
    if setting.world.size > 1:
        share_batch_norms(network, setting.world.device)
    network.freeze_backbone(model.freeze_backbone)
    layout = torch.channels_last if setting.precision.channels_last else torch.contiguous_format
    return network.to(setting.world.device, memory_format=layout)


def _training(setting: Setting, network: Network, labels: np.ndarray, n_train: int) -> Training:
    recipe, device = setting.recipe, setting.world.device
    method = build_method(recipe.method.model_dump(), network, labels).to(device)
    optimizer = build_optimizer(method, recipe.optim.model_dump(), device)
    schedule = Schedule(recipe.schedule.model_dump(), recipe.optim.lr, recipe.train.epochs, steps_per_epoch(recipe, n_train))
    ema = ModelEmaV3(network, recipe.train.ema_decay, use_warmup=True) if recipe.train.ema_decay else None
    if recipe.train.compile:
        network.compile()
    scaler = torch.amp.GradScaler(device.type, enabled=setting.precision.name == "fp16")
    return Training(method, optimizer, schedule, ema, scaler)


def _evaluate(setting: Setting, rows, name: str, network: torch.nn.Module) -> dict[str, float | None]:
    """AUROC and NLL of one plain view, after an epoch."""
    labels = rows.label.to_numpy(np.int64)
    logits, _ = setting.scorer(PLAIN)(network, rows=rows.row.to_numpy(), ids=rows.id)
    score, loss = auroc(labels, logits), nll(labels, Calibrator().prob(logits))
    return {"score": score, "loss": loss, f"{name}_auroc": score, f"{name}_nll": loss}


def _calibrate(setting: Setting, network: Network, rows) -> Calibrator:
    logits, _ = setting.scorer(setting.test_views)(network, rows=rows.row.to_numpy(), ids=rows.id)
    slides = rows.wsi.to_numpy() if rows.wsi.notna().all() else None
    calibrator = fit_calibrator(logits, rows.label.to_numpy(np.int64), slides)
    if calibrator.reason and setting.world.leads:
        say(calibrator.reason)
    return calibrator


def _score(setting: Setting, network: Network, calibrator: Calibrator, k: int, rows, name: str) -> None:
    bar = progress(f"fold {k} {name}", len(rows)) if setting.world.leads else nullcontext(lambda *_: None)
    with bar as advance:
        logits, view_std = setting.scorer(setting.test_views)(network, rows=rows.row.to_numpy(), ids=rows.id, advance=advance)
    if setting.world.leads:
        table = predictions(rows.id, rows.label, rows.wsi, k, logits, view_std, calibrator.prob(logits))
        write_table(
            setting.run.fold(k) / f"{name}.parquet",
            table,
            setting.run.table_notes(setting.run.info(), round=0, views=setting.test_views.count),
        )
