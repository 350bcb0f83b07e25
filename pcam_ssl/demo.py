"""`pcam-ssl demo`: a tour on synthetic slides in minutes on a laptop: leaky and leak-free folds, search, and a pseudo-label round."""

from pathlib import Path

import numpy as np

from pcam_ssl.api import pseudo_label, search, synth, train
from pcam_ssl.data.dataset import is_dataset, open_dataset
from pcam_ssl.evaluation.metrics import auroc
from pcam_ssl.files import check_folder
from pcam_ssl.render.document import Table
from pcam_ssl.render.format import interval
from pcam_ssl.render.text import aligned
from pcam_ssl.terminal import say

SLIDES, PATCHES, TEST_SLIDES, SIZE_PX, STAIN_SHIFT = 40, 30, 12, 64, 1.0


def demo(folder: Path | str) -> str:
    """Train one recipe under grouped folds, under random folds, with an embedding, and with a round of pseudo-labels.

    Returns a table of out-of-fold and held-out scores, and the verdict on the round. The test slides keep their labels here, so that
    out-of-fold scores can be compared with scores on held-out slides. Raises UserError where `folder` cannot be written.
    """
    folder = Path(folder)
    check_folder("--folder", folder)
    dataset = folder / "slides"
    if not is_dataset(dataset):
        say(f"{dataset}: drawing {SLIDES + TEST_SLIDES} synthetic slides of {PATCHES} patches")
        synth(
            dataset,
            slides=SLIDES,
            patches=PATCHES,
            test_slides=TEST_SLIDES,
            size=SIZE_PX,
            stain_shift=STAIN_SHIFT,
            label_test=True,
        )
    runs = {"grouped": train(dataset, "demo", out=folder / "grouped")}
    without_floor = {"score.floor": False}
    runs["random"] = train(dataset, "demo", {"cv.scheme": "random", **without_floor}, out=folder / "random")
    metric = {"method.name": "metric", "method.projection": 32, "train.epochs": 12, **without_floor}
    runs["metric"] = train(dataset, "demo", metric, out=folder / "metric")
    page = folder / "neighbours.html"
    search(runs["metric"], _queries(dataset), k=8, html=page)
    verdict = pseudo_label(runs["grouped"], rounds=1)
    table = demo_table({name: (run, run.scores.file) for name, run in runs.items()}, page)
    return f"{table}\n\n{verdict!r}"


def _queries(dataset: Path) -> list[str]:
    """Two test patches of each class."""
    patches = open_dataset(dataset).patches
    test = patches[patches.split == "test"]
    return test.groupby("label").head(2).id.tolist()


NAMES = {
    "random": "random folds (slides split: leakage)",
    "grouped": "grouped folds (slides kept whole)",
    "metric": "grouped folds, metric learning",
}


def demo_table(runs: dict[str, tuple], page: Path) -> str:
    """A text table of out-of-fold and held-out AUROC. `runs` maps the keys of `NAMES` to (Run, values of scores.json); `page` is the page of neighbours.

    Held-out slides are scored by each fold's network alone. The mean over folds is an ensemble, which out-of-fold scores do not estimate.
    """
    rows = []
    for key, name in NAMES.items():
        run, scores = runs[key]
        held_out = _by_fold(run)
        by_fold = ", ".join(f"{score:.3f}" for score in held_out)
        rows.append([name, interval(scores["out_of_fold"]["scores"]["auroc"]), f"{np.mean(held_out):.3f} ({by_fold})"])
    rows.append(["colour baseline, grouped folds", interval(runs["grouped"][1]["floor"]["scores"]["auroc"]), ""])
    head = ["synthetic slides", "out-of-fold AUROC", "AUROC on held-out slides, by fold"]
    table = aligned(Table(head, rows, align="lll"))
    return f"{table}\n\nopen {runs['grouped'][0].path / 'report.html'}\nand  {page}"


def _by_fold(run) -> list[float]:
    test = run.test
    return [auroc(rows.label.astype(int), rows.prob) for fold, rows in test.groupby("fold") if fold >= 0]
