"""Round benchmark: a whole pseudo-label round against the same training and predicting done bare."""

import shutil
import time

import numpy as np
import torch
from bench_inputs import Inputs, pixels_of, place
from bench_measure import NotMeasured, at_most, compare, rate, ratios, take_turns
from bench_training import CPU
from torch.nn.functional import binary_cross_entropy_with_logits

from pcam_ssl.cross_validation.cross_validate import baseline
from pcam_ssl.cross_validation.fitting import new_network
from pcam_ssl.cross_validation.fold import scored_rows
from pcam_ssl.cross_validation.training_data import train_stream, training_set
from pcam_ssl.data.batches import load
from pcam_ssl.pseudo_labels.experiment import Rounds
from pcam_ssl.pseudo_labels.labeling import with_pseudo_labels
from pcam_ssl.pseudo_labels.rounds import run_round
from pcam_ssl.pseudo_labels.setup import open_rounds
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.records import read_metrics
from pcam_ssl.training.optim import build_optimizer

SETTINGS = ("cv.folds=2", "model.name=resnet10t", "model.pretrained=false", "train.batch_size=64", "score.floor=false")
EASY = (
    "pseudo.precision=null",
    "pseudo.confidence=0.51",
    "pseudo.stop_share=null",
    "pseudo.stop_ratio=null",
    "pseudo.planted_share=0",
)


def rounds(inputs: Inputs):
    """Time of a pseudo-label round (selecting, training, predicting, scoring, writing) over training and predicting the same patches bare."""
    if not (inputs.dataset.patches.split == "test").any():
        raise NotMeasured("the dataset has no test split to serve as pool")
    recipe = load_recipe(None, [*SETTINGS, f"train.epochs={inputs.size(4, 1)}"])
    folder = inputs.folder / "rounds"
    start = baseline(recipe, inputs.dataset.path, folder)
    opened = open_rounds(start, None, list(EASY), folder)

    def tool() -> float:
        shutil.rmtree(folder / "round-1", ignore_errors=True)
        begun = time.perf_counter()
        run_round(opened, 1)
        return time.perf_counter() - begun

    tool()  # the bare side needs to know what was selected
    seconds = take_turns({"round": tool, "bare": BareRound(opened)}, inputs.size(3, 1))
    patches = sum(len(training_set(opened.context(1), unit)) for unit in with_pseudo_labels(opened, 1)) * recipe.train.epochs
    yield compare(
        f"rounds: resnet10t, {inputs.dataset.size_px} px, 2 folds, D4",
        ratios(seconds["round"], seconds["bare"]),
        at_most(1.05),
        rate(patches, seconds["round"], "training patches"),
        rate(patches, seconds["bare"], "training patches"),
        place(CPU.device, opened.precision),
    )


class BareRound:
    """The students' steps on the same batches, then eight views of every patch that a round predicts, in plain loops."""

    def __init__(self, opened: Rounds):
        self.opened, self.context = opened, opened.context(1)
        self.units = with_pseudo_labels(opened, 1)
        self.pixels = np.asarray(pixels_of(opened.dataset).array)

    def __call__(self) -> float:
        begun = time.perf_counter()
        for unit in self.units:
            network = new_network(self.opened.recipe, self.opened.dataset.size_px).to(memory_format=torch.channels_last)
            self._train(network, unit)
            predicted = {**scored_rows(self.context, unit), "inner": self.context.rows[unit.inner]}
            self._predict(network.eval(), np.concatenate([rows.row.to_numpy() for rows in predicted.values()]))
        return time.perf_counter() - begun

    def _train(self, network, unit) -> None:
        steps = read_metrics(self.context.run.unit(unit.name) / "metrics.jsonl")[-1]["step"]
        stream = train_stream(self.context, unit, training_set(self.context, unit), seed=0)
        optimizer = build_optimizer(network, self.opened.recipe.optim.model_dump(), CPU.device)
        network.train()
        for batch in load(stream, range(steps), 0, CPU.device):
            with self.opened.precision.autocast(CPU.device):
                loss = binary_cross_entropy_with_logits(network(batch["pixels"])["logit"], batch["label"])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    @torch.inference_mode()
    def _predict(self, network, rows: np.ndarray) -> None:
        for first in range(0, len(rows), 128):
            batch = torch.from_numpy(self.pixels[rows[first : first + 128]])
            for turns in range(4):
                for view in (batch.rot90(turns, (1, 2)), batch.rot90(turns, (1, 2)).flip(2)):
                    with self.opened.precision.autocast(CPU.device):
                        network(view.contiguous())["logit"].tolist()
