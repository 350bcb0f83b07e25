"""The example of docs/api.md, on real files small enough for a test."""

from html import unescape

import numpy as np
import pytest
from PIL import Image

import pcam_ssl as pcam

pytestmark = pytest.mark.trains


@pytest.fixture(scope="module")
def kaggle(slides, tmp_path_factory):
    """The synthetic slides as Kaggle's folder, and the csv of their slides."""
    folder = tmp_path_factory.mktemp("kaggle")
    dataset = pcam.open_dataset(slides)
    patches = dataset.patches.assign(split=dataset.patches.split.replace("valid", "train"))
    for split in ("train", "test"):
        (folder / split).mkdir()
    for row in patches.itertuples():
        Image.fromarray(np.asarray(dataset.pixels[row.row])).save(folder / row.split / f"{row.id}.tif")
    train, test = (patches[patches.split == split] for split in ("train", "test"))
    train[["id", "label"]].to_csv(folder / "train_labels.csv", index=False)
    test[["id"]].assign(label=0).to_csv(folder / "sample_submission.csv", index=False)
    patches[["id", "wsi"]].to_csv(folder / "slides.csv", index=False)
    return folder


def test_the_example_runs(kaggle, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = tiny("train.epochs=2", "train.batch_size=8", "cv.folds=2")
    data = pcam.import_dataset(kaggle, "data/pcam", wsi=kaggle / "slides.csv")
    base = pcam.train(data, "baseline", quick, out="runs/r34")
    assert str(base.scores["auroc"]).endswith("slides resampled")
    assert set(base.oof.query("prob > .5 and label == 0").columns) == {"id", "label", "wsi", "fold", "logit", "prob", "view_std"}
    metric = pcam.train(data, "metric", [*quick, "method.projection=8", "neighbours.k=5"], out="runs/metric")
    selection = {"pseudo.precision": None, "pseudo.k_best": 4, "pseudo.planted_precision": None, "pseudo.planted_stop": False}
    never = dict.fromkeys(("pseudo.stop_share", "pseudo.stop_ratio", "pseudo.stop_flips"))
    rounds = pcam.pseudo_label(base, rounds=1, settings={**selection, **never, "pseudo.stop_worse": False})
    assert rounds.verdict and rounds.best.path.exists() and isinstance(rounds.best, pcam.Run)
    assert rounds.verdict in unescape(rounds._repr_html_())
    assert "<table" in pcam.compare([base, metric, rounds.runs[-1]])._repr_html_()
    blend = pcam.blend([rounds.best, metric.table("knn")], method="weights", out="runs/blend")
    pcam.search(metric, ids=[data.patches.id[0]], k=3).show()
    assert data.patches.id[0] in capsys.readouterr().out
    assert str(pcam.report(blend)).startswith("runs/blend/report.html: ")
    assert blend.submission("submission.csv").read_text().startswith("id,label\n")
