"""Explanations by real tiny networks, against the run's own predictions and against a plain recomputation."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from pcam_ssl.errors import UserError
from pcam_ssl.explain import explain as explain_module
from pcam_ssl.explain.centre import without_centre, without_surround
from pcam_ssl.explain.explain import explain_patches, explained
from pcam_ssl.explain.gradcam import view_logits
from pcam_ssl.models.artefact import load_network
from pcam_ssl.runs.embedder import run_embedder
from pcam_ssl.runs.networks import open_networks
from pcam_ssl.tables import read_table

K = 5


@pytest.fixture(scope="module")
def networks(finished, tmp_path_factory):
    """A copy of the finished run, into which indexes may be written."""
    return open_networks(shutil.copytree(finished.path, tmp_path_factory.mktemp("runs") / "explained"))


@pytest.fixture(scope="module")
def ids(networks) -> list[str]:
    """A patch that fold 1 scored, one of fold 0, and one of the test split."""
    folds, patches = networks.folds.frame, networks.dataset.patches
    return [*(folds.id[folds.fold == k].iloc[2] for k in (1, 0)), patches.id[patches.split == "test"].iloc[0]]


@pytest.fixture(scope="module")
def told(networks, ids):
    return explained(networks, ids, neighbours=K)


@pytest.fixture
def fresh(finished, tmp_path):
    """A copy of the finished run without indexes."""
    return shutil.copytree(finished.path, tmp_path / "run")


def test_a_patch_is_explained_by_the_fold_that_scored_it_and_others_by_the_mean(told, ids):
    assert [(each.id, each.folds, each.learned) for each in told] == [
        (ids[0], (1,), None),
        (ids[1], (0,), None),
        (ids[2], (0, 1), None),
    ]


def test_probs_are_those_of_the_run(told, networks):
    scored = networks.scored().prob
    assert [each.run_prob for each in told] == [scored[each.id] for each in told]
    # The run averages the eight D4 views too.
    assert [each.summary.prob for each in told] == pytest.approx([each.run_prob for each in told], abs=1e-5)


def test_blurred_patches_are_scored_by_the_same_network(told, networks):
    first = told[0]
    network, facts = load_network(networks.run.fold(1), torch.device("cpu"))
    for blurred, prob in (
        (without_centre, first.summary.prob_without_centre),
        (without_surround, first.summary.prob_without_surround),
    ):
        logit = view_logits(network, torch.from_numpy(blurred(first.pixels[None])))[0] / facts["calibration"]["temperature"]
        assert prob == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


def test_pixels_label_slide_and_split_are_the_patchs_own(told, networks):
    patches = networks.dataset.patches.set_index("id")
    for each in told:
        row = patches.loc[each.id]
        assert np.array_equal(each.pixels, networks.dataset.pixels[row.row])
        assert (each.wsi, each.split) == (row.wsi, row.split) and each.label == (None if pd.isna(row.label) else row.label)


def test_neighbours_are_the_nearest_labelled_patches_of_other_slides(told, networks):
    embedder, patches = run_embedder(networks.run, 1), networks.dataset.patches
    first = told[0]
    rows = patches[patches.label.notna() & (patches.wsi != first.wsi)]
    with torch.inference_mode():
        asked, others = (
            embedder.network(torch.from_numpy(np.ascontiguousarray(some)))["embedding"].numpy()
            for some in (first.pixels[None], networks.dataset.pixels[rows.row.to_numpy()])
        )
    cosine = pd.Series((others @ asked[0]).astype(float), index=rows.id).nlargest(K)
    assert [each["id"] for each in first.neighbours] == cosine.index.tolist()
    assert [each["cosine"] for each in first.neighbours] == pytest.approx(cosine.tolist(), abs=1e-5)


def test_neighbours_bring_their_pixels(told, networks):
    rows = networks.dataset.patches.set_index("id").row
    for each in told:
        assert len(each.neighbours) == len(each.neighbour_pixels) == K
        for found, pixels in zip(each.neighbours, each.neighbour_pixels, strict=True):
            assert np.array_equal(pixels, networks.dataset.pixels[rows[found["id"]]])


def test_a_map_sums_to_one_or_is_flat(told):
    for each in told:
        assert each.summary.map.min() >= 0
        assert each.summary.map.sum() == pytest.approx(0 if each.summary.centre_share is None else 1)


def test_without_neighbours_nothing_is_embedded(fresh, ids):
    (only,) = explained(open_networks(fresh), ids[:1], neighbours=0)
    assert only.neighbours == [] and not (fresh / "fold-1" / "index").exists()


def test_no_ids_explain_nothing(networks):
    assert explained(networks, []) == []


def test_a_damaged_index_is_made_anew(fresh, ids, told):
    networks = open_networks(fresh)
    explained(networks, ids[:1], neighbours=K)
    for file in (fresh / "fold-1" / "index").iterdir():
        file.write_text("damaged")
    (again,) = explained(networks, ids[:1], neighbours=K)
    assert again.neighbours == told[0].neighbours


def test_a_named_fold_explains_all_and_warns_of_labels_it_learned(networks, ids, capsys):
    own, other = explained(networks, ids[:2], fold=1, neighbours=0)
    assert (own.folds, own.learned, other.folds) == ((1,), None, (1,))
    assert other.learned in ("label", "inner")
    warned = capsys.readouterr().err
    assert f"--fold 1: that network saw the label of {ids[1]}" in warned and ids[0] not in warned


def test_a_page_and_a_picture_of_each_are_written(networks, ids):
    told, page = explain_patches(networks.run.path, [*ids, ids[0]], neighbours=2)
    assert page == networks.run.path / "explain" / "explain.html"
    assert sorted(each.name for each in page.parent.iterdir()) == sorted([*(f"{id}.png" for id in ids), "explain.html"])
    assert [each.id for each in told] == ids
    assert json.loads(json.dumps([each.to_dict() for each in told], allow_nan=False))[2]["label"] is None


def test_a_vision_transformer_is_explained_on_its_tokens(train, ids, tmp_path):
    run = train(tmp_path / "vit", "model.name=test_vit", "train.epochs=1", only=[1])
    (only,) = explained(open_networks(run.path), ids[:1], neighbours=1)
    assert only.summary.map.shape == (10, 10) and only.summary.map.sum() == pytest.approx(1)
    assert len(only.neighbours) == 1
    with pytest.raises(UserError, match=rf"^--id {ids[1]}: fold 0, .* is not finished; run the command of "):
        explained(open_networks(run.path), ids[1:2])


def test_a_patch_with_a_pseudo_label_is_explained_by_networks_that_learned_it(two_rounds_copy):
    networks = open_networks(two_rounds_copy, round=1)
    decisions = read_table(networks.run.path / "pseudo.parquet")[0]
    test = networks.dataset.patches.id[networks.dataset.patches.split == "test"]
    added = decisions[(decisions.decision == "added") & decisions.id.isin(test)].id.iloc[0]
    (only,) = explained(networks, [added], neighbours=0)
    assert only.learned == "pseudo-label" and only.network.endswith("which learned from a pseudo-label of it")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ids": ["nothing-like-it"]}, r"^--id nothing-like-it: .* has no such patch\."),
        ({"fold": 7}, r"^--fold 7: .* has no such finished fold; it has 0, 1$"),
        ({"ids": [str(n) for n in range(201)]}, r"^--id: a page shows at most 200 patches, these are 201; name fewer, or use"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(fresh, ids, change, told, tmp_path):
    with pytest.raises(UserError, match=told) as caught:
        explain_patches(fresh, **{"ids": ids[:1], "out": tmp_path / "out"} | change)
    assert len(caught.value.problems) == 1 and not (tmp_path / "out").exists()


def test_an_unknown_id_is_refused_with_the_nearest(networks, ids):
    with pytest.raises(UserError, match=rf"Did you mean .*{ids[0]}"):
        explained(networks, [ids[0][:-1]])


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(networks, ids, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(explain_module, "explained", None)
    with pytest.raises(UserError, match=r"^--out .*file/deeper: .*file is a file, so no folder; choose another place$"):
        explain_patches(networks.run.path, ids, out=tmp_path / "file" / "deeper")
