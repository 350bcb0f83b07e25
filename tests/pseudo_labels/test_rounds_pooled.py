"""`--pooled`: one decision for all folds, and no out-of-fold score, which would leak."""

import shutil

import numpy as np
import pandas as pd
import pytest
from round_outputs import decisions, table
from scipy.special import expit, logit

from pcam_ssl.files import read_json
from pcam_ssl.runs.run import run_in_use

# What depends on the rest of a pool: a rank, a cap, a ratio.
SHARED = ("pseudo.k_best=8", "pseudo.round_cap=0.4", "pseudo.balance=prior")


@pytest.fixture(scope="module")
def experiment(round_0, make_rounds, tmp_path_factory):
    """(run, verdict) of two pooled rounds. Do not write into it."""
    path = shutil.copytree(round_0, tmp_path_factory.mktemp("pooled") / "run")
    return path, make_rounds(path, 2, *SHARED, pooled=True)


@pytest.fixture(scope="module")
def pooled(experiment):
    return experiment[0] / "pooled"


@pytest.fixture(scope="module")
def told(experiment):
    return experiment[1]


def test_pooled_rounds_lie_apart(experiment, pooled):
    assert not list(experiment[0].glob("round-*"))
    assert (pooled / "round-2" / "test.parquet").exists()


@pytest.mark.parametrize("number", [1, 2])
def test_out_of_fold_scores_are_null_with_the_reason(pooled, number):
    scores = read_json(pooled / f"round-{number}" / "scores.json")
    assert scores["out_of_fold"] is None and scores["above_floor"] is None
    assert scores["withheld"].startswith("pseudo.pooled: every fold learnt from pseudo-labels that networks of all folds made")


def test_there_is_no_table_of_which_one_could_be_made(pooled, told):
    assert not [path for path in pooled.rglob("*") if "oof" in path.name or path.name == "report.html"]


def test_the_verdict_says_why(told):
    assert told["pooled"] is True and told["chosen_by_fold"] is None
    assert told["verdict"].startswith("Pooled: whether 2 rounds helped cannot be told. Out-of-fold scores are withheld")
    for row in told["rounds"][1:]:
        assert row["out_of_fold"]["auroc"]["value"] is None and row["against_round_0"]["auroc"]["value"] is None
        assert row["out_of_fold"]["auroc"]["reason"].startswith("withheld")
    assert told["rounds"][0]["out_of_fold"]["auroc"]["value"] is not None


def test_the_last_round_is_taken(pooled, told):
    assert told["best"] == 2
    assert run_in_use(pooled).path == pooled / "round-2"


def test_report_refuses_in_one_line(pooled, command):
    done = command("report", pooled / "round-1")
    assert done.code == 2
    (problem,) = done.problems
    assert problem.startswith(f"{pooled / 'round-1'}: no report without out-of-fold scores, and they are withheld (")


def test_the_page_of_round_0_shows_what_they_learned_from(pooled):
    page = (pooled.parent / "report.html").read_text()
    assert "Pseudo-label rounds, pooled" in page and "Pooled: whether 2 rounds helped cannot be told." in page


@pytest.mark.parametrize("number", [1, 2])
def test_folds_decide_alike_where_their_pools_overlap(experiment, pooled, number):
    columns = ["id", "logit", "prob", "decision", "reason", "label", "weight", "change", "network_digest"]
    first, second = (decisions(pooled, number, fold)[columns] for fold in (0, 1))
    shared = set(first.id) & set(second.id)
    assert 16 <= len(shared) < min(len(first), len(second))
    first, second = (rows[rows.id.isin(shared)].reset_index(drop=True) for rows in (first, second))
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert {"added", "left out"} <= set(first.decision)


@pytest.mark.parametrize("number", [1, 2])
def test_a_fold_still_learns_from_no_patch_that_it_scores_or_keeps(experiment, pooled, number):
    folds = table(experiment[0] / "folds.parquet")
    for fold in (0, 1):
        kept = folds[(folds.fold == fold) | folds[f"inner_{fold}"]]
        assert not set(decisions(pooled, number, fold).id) & set(kept.id)


def test_the_probs_are_the_mean_of_what_the_folds_say_calibrated(experiment, pooled):
    test = table(experiment[0] / "test.parquet")
    folds = test[test.fold >= 0].assign(calibrated=lambda rows: logit(rows.prob)).groupby("id")
    rows = decisions(pooled, 1, 0).set_index("id").loc[list(folds.groups)]
    np.testing.assert_allclose(rows.logit, folds.logit.mean(), rtol=1e-9)
    np.testing.assert_allclose(rows.prob, expit(folds.calibrated.mean()), rtol=1e-9)


def test_a_recipe_that_says_pooled_goes_there_too(fresh, make_rounds, pooled):
    make_rounds(fresh, 1, *SHARED, "pseudo.pooled=true")
    assert not (fresh / "round-1").exists()
    assert decisions(fresh / "pooled", 1, 0).equals(decisions(pooled, 1, 0))
