"""Train the network of a unit: build method, optimizer and batches from the recipe, then run the training loop."""

from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timm.utils import ModelEmaV3

from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.cross_validation.frozen import features_of_rows
from pcam_ssl.cross_validation.neighbor_votes import watched_logits
from pcam_ssl.cross_validation.training_data import mix_words, steps_per_epoch, train_stream, training_set, with_pool
from pcam_ssl.cross_validation.training_pixels import training_inputs
from pcam_ssl.data.folds import Unit
from pcam_ssl.distributed import share_batch_norms
from pcam_ssl.errors import UserError, first_line
from pcam_ssl.evaluation.calibration import Calibrator
from pcam_ssl.evaluation.metrics import auroc, nll
from pcam_ssl.methods import build_method
from pcam_ssl.models.artefact import load_weights, save_weights
from pcam_ssl.models.depthwise import speed_up_depthwise
from pcam_ssl.models.inference import PLAIN
from pcam_ssl.models.network import Network
from pcam_ssl.models.new_network import new_network
from pcam_ssl.recipe.loading import flatten
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.run import Run
from pcam_ssl.terminal import progress, say, warn
from pcam_ssl.training.loggers import Metrics, mlflow_log, tensorboard_log
from pcam_ssl.training.loop import CHECK_STEPS_GPU, Plan, Training, fit
from pcam_ssl.training.optim import Schedule, build_optimizer


def fit_unit(context: RunContext, unit: Unit) -> Training:
    """Train a unit and save the chosen weights in its folder. Continues from the unit's checkpoint where there is one."""
    recipe, world = context.recipe, context.world
    options = recipe.train
    folder = context.run.unit(unit.name)
    patches = training_set(context, unit)
    seed = unit_seed(recipe.seed, unit)
    torch.manual_seed(seed)
    network = _network(context, unit)
    steps = unit.steps or steps_per_epoch(recipe, len(patches), patches.n_labelled)
    training = _training(context, unit, network, patches.labels, steps)
    stream = train_stream(context, unit, patches, seed, training_inputs(context, unit, patches))
    if world.is_main and (words := mix_words(stream.plan)) is not None:
        say(f"{unit.name}: {words}")
    world.share(options.batch_size, "train.batch_size")
    stream = with_pool(context, unit, stream, seed, steps)
    plan = Plan(
        epochs=options.epochs,
        steps_per_epoch=steps,
        seed=seed,
        clip_norm=options.clip_norm,
        head_first_epochs=recipe.model.head_first_epochs,
        keep_best=options.choose != "last",
        checkpoint_s=options.checkpoint_s,
        check_steps=CHECK_STEPS_GPU if world.device.type == "cuda" else 1,
        workers=context.workers,
    )
    metrics = Metrics(folder / "metrics.jsonl")
    if world.is_main and recipe.scored_by == "knn":
        say(
            f"{unit.name}: method.classify=false trains no classifier; kNN scores the patches, and its AUROC is logged after each epoch"
        )
    on_fold = options.choose == "fold" and unit.score.any()
    chosen_by = context.rows[unit.score if on_fold else unit.inner]
    bar = progress(unit.name, plan.total, "batches") if world.is_main else nullcontext(lambda *_: None)
    with bar as advance, _compiler_errors():
        fit(
            training,
            stream,
            plan,
            folder=folder,
            precision=context.precision,
            world=world,
            evaluate=partial(_evaluate, context, unit, chosen_by, "fold" if on_fold else "inner"),
            keep=partial(_keep, folder, context.frozen is not None) if world.is_main else lambda training: None,
            log=_logger(metrics, folder, recipe) if world.is_main else lambda event: None,
            rewind=metrics.rewind if world.is_main else lambda step: None,
            advance=lambda n, text: advance(n, f"{unit.name} {text}"),
        )
    # Rank 0 must have written the weights before any process reads them.
    world.gather(None)
    if options.choose != "last" and "score" not in training.best and world.is_main:
        warn(f"{unit.name}: {options.choose} patches hold one class, so AUROC cannot choose an epoch; the last epoch is kept")
    return training


@contextmanager
def _compiler_errors():
    """Raises UserError for errors of torch's compilers, which come in the first step."""
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = first_line(error)
        raise UserError(f"train.compile: torch cannot compile here ({reason}); fix that, or set train.compile=false") from None


def _keep(folder: Path, heads_only: bool, training: Training) -> None:
    save_weights(folder, training.network, getattr(training.method, "metric_loss", None), heads_only)


def _logger(metrics: Metrics, folder: Path, recipe: Recipe):
    mirrors = [tensorboard_log(folder / "tensorboard")] if recipe.train.tensorboard else []
    mirrors += [mlflow_log(folder, flatten(recipe.dump()))] if recipe.train.mlflow else []

    def log(event: dict) -> None:
        metrics.write(**event)
        for mirror in mirrors:
            mirror(event)

    return log


def unit_seed(seed: int, unit: Unit) -> int:
    """The seed of a unit's first weights and batches, another one for each unit and round."""
    part = 0 if unit.part is None else 1 + unit.part
    return seed * 1009 + unit.number + 101 * unit.round + 1_000_003 * part


def _network(context: RunContext, unit: Unit) -> Network:
    """The network of a unit before training: with a backbone of its own, or new heads on the features of the frozen one."""
    model = context.recipe.model
    if context.frozen is not None:
        network = context.frozen.heads(model.drop_rate)
        network.standardise(unit_features(context, context.rows[unit.train].row.to_numpy(), "none"))
        return network.to(context.world.device)
    network = new_network(context.recipe, context.dataset.size_px)
    if context.world.size > 1:
        share_batch_norms(network, context.world.device)
    speed_up_depthwise(network, context.world.device)
    network.freeze_backbone(model.freeze_backbone)
    layout = torch.channels_last if context.precision.channels_last else torch.contiguous_format
    return network.to(context.world.device, memory_format=layout)


def unit_features(context: RunContext, rows: np.ndarray, policy: str) -> torch.Tensor:
    """Features float32 `[n, D]` of patches by the frozen backbone, each the mean over the fixed views of a policy."""
    views = context.frozen.views(context.recipe, policy)
    options = {"precision": context.precision, "world": context.world, "batch_size": context.recipe.predict.batch_size}
    return features_of_rows(context.frozen, context.inputs, rows, views, **options)


def _training(context: RunContext, unit: Unit, network: Network, labels: np.ndarray, steps: int) -> Training:
    recipe, device = context.recipe, context.world.device
    method = build_method(recipe.method.model_dump(), network, (labels > 0.5).astype(np.int64)).to(device)
    start = unit.start or (Run(Path(recipe.model.init)).unit(unit.name) if recipe.model.init is not None else None)
    if start is not None:
        load_weights(start, network, getattr(method, "metric_loss", None), heads_only=context.frozen is not None)
    optimizer = build_optimizer(method, recipe.optim.model_dump(), device)
    schedule = Schedule(recipe.schedule.model_dump(), recipe.optim.lr, recipe.train.epochs, steps)
    ema = ModelEmaV3(network, recipe.train.ema_decay, use_warmup=True) if recipe.train.ema_decay else None
    if recipe.train.compile is True and context.frozen is None:
        # Batches of training have one size. Kernels for any size would be slower.
        network.compile(dynamic=False)
    scaler = torch.amp.GradScaler(device.type, enabled=context.precision.name == "fp16")
    return Training(method, optimizer, schedule, ema, scaler)


def _evaluate(context: RunContext, unit: Unit, rows, name: str, network: torch.nn.Module) -> dict[str, float | None]:
    """AUROC and NLL (nats) of one plain view after an epoch: of the classifier, or of kNN where there is no classifier."""
    if unit.parts and name == "inner":
        # No patch is left that the unit does not train on.
        return {"score": None, "loss": None}
    labels = rows.label.to_numpy(np.int64)
    if context.recipe.scored_by == "knn":
        logits = watched_logits(context, unit, network, rows)
    else:
        logits, *_ = context.scorer(PLAIN)(network, rows=rows.row.to_numpy(), ids=rows.id)
    score, loss = auroc(labels, logits), nll(labels, Calibrator().prob(logits))
    return {"score": score, "loss": loss, f"{name}_auroc": score, f"{name}_nll": loss}
