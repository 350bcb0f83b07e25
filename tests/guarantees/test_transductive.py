"""Scores on patches that were in the pool are called transductive wherever they are shown; those of labels alone are held out."""

import json
import shutil

import pytest

from pcam_ssl.blending.blend import blend_runs
from pcam_ssl.compare.compare import compare_runs
from pcam_ssl.compare.report import compare_text, page
from pcam_ssl.cross_validation.aggregate import read_scores
from pcam_ssl.cross_validation.checks import learned_from_pool
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.folds import fold_unit, read_folds
from pcam_ssl.data.pool import pool_rows
from pcam_ssl.report.summary import run_summary
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import read_table

SETTINGS = ("data.label_budget=56", "train.batch_size=8", "train.epochs=1")
LEARNED = ("fixmatch", "round")


@pytest.fixture(scope="module")
def data(slides, rewrite, tmp_path_factory):
    """The tiny slides with labels on the test split too."""

    def label_test(patches):
        return patches.assign(label=patches.label.mask(patches.split == "test", (patches.row % 2).astype("Int8")))

    return rewrite(slides, tmp_path_factory.mktemp("transductive") / "set", label_test)


@pytest.fixture(scope="module")
def runs(data, train, make_rounds, tmp_path_factory):
    """By name: `labels` alone, `fixmatch`, and `round` 1 on the first. Do not write into them."""
    folder = tmp_path_factory.mktemp("transductive")
    labels = train(folder / "labels", *SETTINGS, data=data)
    fixmatch = train(folder / "fixmatch", *SETTINGS, "method.name=fixmatch", data=data)
    make_rounds(shutil.copytree(labels.path, folder / "rounds"), 1, "train.epochs=1")
    return {"labels": labels, "fixmatch": fixmatch, "round": Run(folder / "rounds" / "round-1")}


@pytest.fixture
def told(runs):
    """told(name): the summary, the page, and the model card of a run."""

    def told(name):
        run = runs[name]
        return [run_summary(run, read_scores(run)), *((run.path / file).read_text() for file in ("report.html", "model-card.md"))]

    return told


@pytest.mark.parametrize("name", ["labels", *LEARNED])
def test_scores_say_whether_scored_patches_were_in_the_pool(runs, name):
    held_out = read_scores(runs[name])["held_out"]["test"]
    assert (held_out["transductive"], held_out["in_pool"]) == ((True, 1.0) if name in LEARNED else (False, 0.0))


@pytest.mark.parametrize("name", ["labels", *LEARNED])
def test_summary_page_and_card_say_so(told, name):
    for text in told(name):
        assert ("transductive: test" in text.lower()) == (name in LEARNED), text[:80]
        assert ("held out: test" in text.lower()) == (name not in LEARNED), text[:80]
        assert ("100% of the scored patches of test were in the pool" in text) == (name in LEARNED)


def test_a_comparison_says_so_of_the_runs_it_is_true_of(runs):
    compared = compare_runs([str(runs[name].path) for name in ("labels", *LEARNED)])
    assert [run["in_pool"] for run in compared["runs"]] == [{"test": 0.0}, {"test": 1.0}, {"test": 1.0}]
    table = compare_text(compared).split("held-out slides\n")[1].split("\n\n")[0].splitlines()
    assert ["transductive" in line for line in table] == [False, True, True]
    assert page(compared).count("<td>test, transductive</td>") == 2


def test_a_blend_with_a_member_that_learned_from_the_pool_is_transductive(runs, tmp_path):
    blend = blend_runs([str(runs[name].path) for name in ("labels", "fixmatch")], tmp_path / "blend")
    held_out = read_scores(blend)["held_out"]["test"]
    assert (held_out["transductive"], held_out["in_pool"]) == (True, 1.0)


@pytest.mark.parametrize("name", ["labels", "fixmatch"])
def test_predicting_the_pool_warns(runs, data, command, tmp_path, name):
    done = command("predict", runs[name].path, data, "--split", "test", "--out", tmp_path / "test.parquet")
    assert done.code == 0, done.err
    assert ("scores are transductive: the networks learned from 100%" in done.err) == (name == "fixmatch")


@pytest.mark.parametrize("name", ["labels", "fixmatch"])
def test_weights_that_learned_from_the_pool_hand_it_on(runs, tiny_recipe, name):
    assert learned_from_pool(tiny_recipe(f"model.init={runs[name].path}")) == (name == "fixmatch")


def test_what_a_fold_scores_was_never_in_its_pool_hidden_labels_neither(runs, data):
    dataset, oof = open_dataset(data), read_table(runs["fixmatch"].path / "oof.parquet")[0]
    folds = read_folds(runs["fixmatch"].paths.folds, dataset.patches)
    assert (~folds.frame.visible & (folds.frame.fold >= 0)).any()
    for k in range(folds.n_folds):
        pool = pool_rows(dataset, folds, fold_unit(folds, k)).id
        assert len(pool) and not set(pool) & set(oof.id[oof.fold == k])


def test_the_verdict_on_rounds_tells_the_same_of_the_same_patches(runs):
    (row,) = json.loads((runs["round"].path.parent / "rounds.json").read_text())["rounds"][1:]
    assert row["transductive"]["n"] >= read_scores(runs["round"])["held_out"]["test"]["n"] == 16
