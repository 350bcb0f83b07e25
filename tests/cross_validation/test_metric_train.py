import json

import numpy as np
import pandas as pd
import pytest
import search_run
from sklearn.neighbors import KNeighborsClassifier

from pcam_ssl.errors import UserError
from pcam_ssl.tables import read_table

METRIC = (*search_run.METRIC, "cv.inner_share=0.3")


@pytest.fixture(scope="module")
def metric_run(tiny_recipe, slides, tmp_path_factory):
    from pcam_ssl.cross_validation.cross_validate import metric_train

    return metric_train(tiny_recipe(*METRIC), slides, tmp_path_factory.mktemp("runs") / "metric")


@pytest.mark.parametrize("name", ["oof", "oof-knn", "oof-blend"])
def test_each_labelled_patch_is_scored_once(metric_run, name):
    table, _ = read_table(metric_run.path / f"{name}.parquet")
    folds, _ = read_table(metric_run.paths.folds)
    assert table.id.tolist() == folds.id.tolist()


@pytest.mark.parametrize("name", ["test", "test-knn", "test-blend"])
def test_test_tables_hold_every_fold_and_the_mean(metric_run, name):
    table, _ = read_table(metric_run.path / f"{name}.parquet")
    assert table.groupby("fold").id.nunique().to_dict() == {-1: 16, 0: 16, 1: 16}


def test_knn_scores_are_those_of_scikit_learn(metric_run, slides):
    import torch

    from pcam_ssl.data.dataset import PIXELS, open_dataset
    from pcam_ssl.data.folds import labelled_rows, read_folds
    from pcam_ssl.data.pixels import Pixels
    from pcam_ssl.device import choose_precision
    from pcam_ssl.distributed import World
    from pcam_ssl.models.artefact import load_network
    from pcam_ssl.models.inference import embed_rows

    dataset, cpu = open_dataset(slides), torch.device("cpu")
    folds, rows = read_folds(metric_run.paths.folds, dataset.patches), labelled_rows(dataset.patches)
    network, _ = load_network(metric_run.fold(0), cpu)
    how = {"batch_size": 64, "precision": choose_precision(cpu, "fp32"), "world": World(0, 1, cpu)}
    embeddings = embed_rows(network, Pixels(slides / PIXELS), rows.row.to_numpy(), **how)
    train, scored = folds.train_mask(0), folds.score_mask(0)
    classifier = KNeighborsClassifier(5, weights=lambda distance: np.exp((1 - distance) / 0.07), metric="cosine", algorithm="brute")
    classifier.fit(embeddings[train], rows.label[train].astype(int))
    share = classifier.predict_proba(embeddings[scored])[:, 1]
    ours = read_table(metric_run.fold(0) / "oof-knn.parquet")[0]
    assert ours.id.tolist() == rows.id[scored].tolist()
    assert ours.logit.to_numpy() == pytest.approx(np.log((5 * share + 0.5) / (5 * (1 - share) + 0.5)), abs=1e-4)


def test_the_blend_mixes_calibrated_logits_by_the_inner_weight(metric_run):
    head, knn, blend = (read_table(metric_run.fold(1) / f"{name}.parquet")[0] for name in ("oof", "oof-knn", "oof-blend"))
    weight = json.loads((metric_run.fold(1) / "fold.json").read_text())["neighbours"]["blend"]["weight"]

    def logit(prob):
        return np.log(prob / (1 - prob))

    assert blend.logit.to_numpy() == pytest.approx(
        (weight * logit(head.prob) + (1 - weight) * logit(knn.prob)).to_numpy(), abs=1e-6
    )


def test_scores_hold_knn_blend_and_retrieval(metric_run):
    neighbours = json.loads(metric_run.paths.scores.read_text())["neighbours"]
    assert set(neighbours) >= {"knn", "blend", "retrieval"}
    assert set(neighbours["retrieval"]["across_slides"]) >= {"precision_at_1", "r_precision", "map_at_r", "cmc_at_5"}


def test_the_refit_trains_on_all_but_its_inner_slides_and_scores_nothing(metric_run):
    facts = json.loads((metric_run.path / "refit" / "fold.json").read_text())
    folds, _ = read_table(metric_run.paths.folds)
    assert facts["train"] == len(folds) - int(folds.inner_0.sum()) and facts["score"] == 0
    assert not (metric_run.path / "refit" / "oof.parquet").exists()


def test_the_refit_is_no_part_of_the_test_mean(metric_run):
    test, _ = read_table(metric_run.path / "test.parquet")
    wide = test.pivot(index="id", columns="fold", values="logit")
    assert wide[-1].to_numpy() == pytest.approx(wide[[0, 1]].mean(axis=1).to_numpy())


def test_scrambled_labels_of_a_fold_change_neither_its_knn_nor_its_blend(metric_run, tiny_recipe, slides, rewrite, tmp_path):
    from pcam_ssl.cross_validation.cross_validate import metric_train

    folds, _ = read_table(metric_run.paths.folds)
    scored = set(folds.id[folds.fold == 0])

    def scramble(patches: pd.DataFrame) -> pd.DataFrame:
        here = patches.id.isin(scored)
        patches.loc[here, "label"] = 1 - patches.label[here]
        return patches

    changed = rewrite(slides, tmp_path / "changed", scramble)
    recipe = tiny_recipe(*METRIC, f"cv.folds_file={metric_run.paths.folds}")
    run = metric_train(recipe, changed, tmp_path / "run", [0])
    for name in ("oof-knn", "oof-blend", "test-knn"):
        before, after = (read_table(path / "fold-0" / f"{name}.parquet")[0] for path in (metric_run.path, run.path))
        assert np.array_equal(before[["logit", "prob"]].to_numpy(), after[["logit", "prob"]].to_numpy()), name
    weights = [(path / "fold-0" / "model.safetensors").read_bytes() for path in (metric_run.path, run.path)]
    assert weights[0] == weights[1]


def test_k_larger_than_the_gallery_is_refused(tiny_recipe, slides, tmp_path):
    from pcam_ssl.cross_validation.cross_validate import metric_train

    with pytest.raises(UserError, match=r"neighbours.k is 500, fold-0 trains on \d+ patches; lower neighbours.k"):
        metric_train(tiny_recipe(*METRIC[:2], "neighbours.k=500", "train.epochs=1"), slides, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fewer_patches_of_a_class_than_a_batch_asks_for_are_refused(tiny_recipe, slides, tmp_path):
    from pcam_ssl.cross_validation.cross_validate import metric_train

    with pytest.raises(UserError, match=r"train.batch_size 64 asks for 32 patches of each class"):
        metric_train(tiny_recipe(*METRIC, "train.batch_size=64"), slides, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "method", "told"),
    [("metric-train", "supervised", "metric-train takes metric recipes"), ("baseline", "metric", "use `pcam-ssl metric-train`")],
)
def test_a_recipe_of_the_other_command_is_refused(command, method, told, tiny_recipe, slides, tmp_path):
    from pcam_ssl.cross_validation.cross_validate import baseline, metric_train

    with pytest.raises(UserError, match=told):
        {"baseline": baseline, "metric-train": metric_train}[command](
            tiny_recipe(f"method.name={method}"), slides, tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()
