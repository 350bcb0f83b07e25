"""Who may speak on a slide, from the folds of a run alone."""

from types import SimpleNamespace

import pandas as pd
import pytest

from pcam_ssl.heatmap.probs import witnesses

FOLDS = pd.DataFrame(
    [("kept", 1), ("kept", 1), ("torn", 0), ("torn", 1), ("trained", -1)],
    columns=["wsi", "fold"],
)
LEARNED = [("kept", "a"), ("kept", "b"), ("pool", "c"), ("pool", "d")]


def dataset_of(rows, digest: str):
    patches = pd.DataFrame(rows, columns=["wsi", "pixel_hash"])
    return SimpleNamespace(digest=digest, patches=patches.assign(id=[f"{digest}{n}" for n in range(len(rows))]))


def run_of(finished=(0, 1), **info):
    recipe = SimpleNamespace(pseudo=SimpleNamespace(pooled=info.pop("pooled", False)))
    paths = SimpleNamespace(oof=SimpleNamespace(exists=lambda: False))
    told = {"command": "baseline", **info}
    return SimpleNamespace(
        path="runs/a", folds=FOLDS, recipe=recipe, paths=paths, info=lambda: told, fold_done=lambda k: k in finished
    )


def asked(run, rows, learned=True):
    dataset = dataset_of(rows, "other")
    slides = list(dict.fromkeys(wsi for wsi, _ in rows))
    return witnesses(run, dataset_of(LEARNED, "own") if learned else None, dataset, slides)


def test_the_fold_of_a_slide_speaks_and_the_mean_of_a_new_one():
    found = asked(run_of(), [("kept", "x"), ("new", "y")])
    assert (found["kept"].fold, found["kept"].words) == (1, "out of fold: fold 1 never saw this slide")
    assert (found["new"].fold, found["new"].problem) == (None, "")
    assert found["new"].words == "mean of all finished folds: none was trained on this slide"


@pytest.mark.parametrize("slide", ["torn", "trained"])
def test_nobody_speaks_on_what_every_network_saw(slide):
    assert "every network of the run was trained on it" in asked(run_of(), [(slide, "x")])[slide].problem


@pytest.mark.parametrize(("hashes", "fold"), [("a" + 9 * "x", 1), ("a" + 10 * "x", None)])
def test_a_tenth_of_copies_makes_it_the_same_slide(hashes, fold):
    found = asked(run_of(), [("renamed", letter) for letter in hashes])["renamed"]
    assert found.fold == fold and ("(kept under another name)" in found.words) == (fold == 1)


def test_learning_from_its_patches_without_labels_is_said():
    told = [asked(run_of(learned_from_pool=learned), [("pool", "z")])["pool"].words for learned in (True, False)]
    assert ["without labels" in words for words in told] == [True, False]


def test_networks_of_pooled_pseudo_labels_do_not_speak_on_slides_in_folds():
    run = run_of(command="pseudo-label", pooled=True, learned_from_pool=True)
    found = asked(run, [("kept", "x"), ("new", "y")])
    assert "pooled over folds" in found["kept"].problem and found["new"].problem == ""


def test_without_the_dataset_of_the_run_names_decide():
    found = asked(run_of(), [("kept", "x"), ("renamed", "a")], learned=False)
    assert (found["kept"].fold, found["renamed"].fold) == (1, None)


def test_an_unfinished_fold_does_not_speak():
    assert (
        "fold 1, the only one that never saw it, is not finished" in asked(run_of(finished=(0,)), [("kept", "x")])["kept"].problem
    )
