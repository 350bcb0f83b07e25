"""Guarantees 2 and 3 through two rounds: what a fold's labels, hidden labels, and other folds' networks may not reach."""

import shutil

import pandas as pd
import pytest
from round_outputs import calibration, decisions, table, turn, verdict, weights, without_labels

from pcam_ssl.cross_validation.aggregate import read_scores
from pcam_ssl.files import read_json
from pcam_ssl.tables import write_table

BLIND, OTHER, ROUNDS = 0, 1, (1, 2)
TRUTH_BASED = {"out_of_fold", "against_round_0", "against_control", "truth", "transductive"}
CONTROL = "pseudo.control=true"


@pytest.fixture(scope="module")
def turned(slides, rewrite, round_0, train, make_rounds, tmp_path_factory):
    """turned(ids): two rounds from nothing, folds held fixed, on a dataset with these labels turned around."""
    folder = tmp_path_factory.mktemp("turned")

    def turned(name, ids):
        data = rewrite(slides, folder / f"{name}-slides", turn(ids))
        fixed = f"cv.folds_file={round_0 / 'folds.parquet'}"
        run = train(folder / name, "data.label_budget=56", "train.batch_size=8", fixed, data=data)
        make_rounds(run.path, 2, CONTROL)
        return run.path

    return turned


@pytest.fixture(scope="module")
def two_rounds(two_rounds, make_rounds, tmp_path_factory):
    """The shared rounds, and their control. Do not write into it."""
    path = shutil.copytree(two_rounds, tmp_path_factory.mktemp("controlled") / "run")
    make_rounds(path, 2, CONTROL)
    return path


@pytest.fixture(scope="module")
def folds(round_0):
    return table(round_0 / "folds.parquet")


@pytest.fixture(scope="module")
def own_turned(turned, folds):
    """Rounds on scrambled labels of the slides that fold 0 scores."""
    return turned("own", folds.id[folds.fold == BLIND])


@pytest.fixture(scope="module")
def hidden_turned(turned, folds):
    """Rounds on scrambled labels of all that data.label_budget hides."""
    return turned("hidden", folds.id[~folds.visible])


class TestLabelsOfTheFoldsOwnSlides:
    def test_they_were_scrambled(self, own_turned, two_rounds):
        mine, theirs = (table(path / "round-2" / "fold-0" / "oof.parquet") for path in (own_turned, two_rounds))
        assert (mine.label + theirs.label == 1).all()

    @pytest.mark.parametrize("number", [0, 1, 2, "control"])
    def test_its_weights_stay_the_same_to_the_bit(self, own_turned, two_rounds, number):
        assert weights(own_turned, number, "fold-0") == weights(two_rounds, number, "fold-0")

    @pytest.mark.parametrize("number", [0, 1, 2, "control"])
    def test_its_calibration_stays_the_same(self, own_turned, two_rounds, number):
        assert calibration(own_turned, number, "fold-0") == calibration(two_rounds, number, "fold-0")

    @pytest.mark.parametrize("number", ROUNDS)
    def test_its_decisions_stay_the_same_to_the_bit(self, own_turned, two_rounds, number):
        pd.testing.assert_frame_equal(decisions(own_turned, number, BLIND), decisions(two_rounds, number, BLIND), check_exact=True)
        facts = [read_json(path / f"round-{number}" / "fold-0" / "selection.json") for path in (own_turned, two_rounds)]
        assert facts[0] == facts[1]

    @pytest.mark.parametrize("folder", ["round-1", "round-2", "control"])
    @pytest.mark.parametrize("name", ["inner", "oof", "test"])
    def test_its_predictions_stay_the_same_to_the_bit(self, own_turned, two_rounds, folder, name):
        mine, theirs = (table(path / folder / "fold-0" / f"{name}.parquet") for path in (own_turned, two_rounds))
        pd.testing.assert_frame_equal(without_labels(mine), without_labels(theirs), check_exact=True)

    def test_the_fold_chooses_the_same_round(self, own_turned, two_rounds):
        chosen = [verdict(path)["chosen_by_fold"]["rounds"]["0"] for path in (own_turned, two_rounds)]
        assert chosen[0] == chosen[1]

    @pytest.mark.parametrize("number", ROUNDS)
    def test_another_fold_learns_from_them(self, own_turned, two_rounds, number):
        assert weights(own_turned, number, "fold-1") != weights(two_rounds, number, "fold-1")
        assert not decisions(own_turned, number, OTHER).equals(decisions(two_rounds, number, OTHER))

    def test_the_control_of_another_fold_learns_from_them(self, own_turned, two_rounds):
        assert weights(own_turned, "control", "fold-1") != weights(two_rounds, "control", "fold-1")


class TestHiddenLabels:
    def test_they_were_scrambled(self, hidden_turned, two_rounds):
        assert not table(hidden_turned / "oof.parquet").label.equals(table(two_rounds / "oof.parquet").label)

    @pytest.mark.parametrize("number", [0, 1, 2, "control"])
    @pytest.mark.parametrize("unit", ["fold-0", "fold-1"])
    def test_no_weight_and_no_calibration_changes(self, hidden_turned, two_rounds, number, unit):
        assert weights(hidden_turned, number, unit) == weights(two_rounds, number, unit)
        assert calibration(hidden_turned, number, unit) == calibration(two_rounds, number, unit)

    @pytest.mark.parametrize("number", ROUNDS)
    @pytest.mark.parametrize("name", ["pseudo", "test", "fold-0/inner", "fold-1/inner"])
    def test_no_decision_and_no_table_changes(self, hidden_turned, two_rounds, number, name):
        mine, theirs = (table(path / f"round-{number}" / f"{name}.parquet") for path in (hidden_turned, two_rounds))
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)

    @pytest.mark.parametrize("number", ROUNDS)
    def test_out_of_fold_predictions_change_in_nothing_but_the_truth(self, hidden_turned, two_rounds, number):
        mine, theirs = (table(path / f"round-{number}" / "oof.parquet") for path in (hidden_turned, two_rounds))
        pd.testing.assert_frame_equal(without_labels(mine), without_labels(theirs), check_exact=True)
        assert not mine.label.equals(theirs.label)

    def test_the_verdict_changes_in_nothing_but_what_truth_counts(self, hidden_turned, two_rounds):
        mine, theirs = verdict(hidden_turned), verdict(two_rounds)
        # Whether the best round is used is decided by the scores of the rounds, so "best" is not among these.
        for name in ("best_inner", "stopped", "pool", "planted", "unit", "pooled", "decided_by_scores"):
            assert mine[name] == theirs[name], name
        for name in ("is_round_0", "of_round", "steps", "epochs", "cost"):
            assert mine["control"][name] == theirs["control"][name], name
        assert mine["chosen_by_fold"]["rounds"] == theirs["chosen_by_fold"]["rounds"]
        for one, other in zip(mine["rounds"], theirs["rounds"], strict=True):
            assert {key: one[key] for key in one if key not in TRUTH_BASED} == {
                key: other[key] for key in other if key not in TRUTH_BASED
            }
        assert mine["rounds"][1]["truth"] != theirs["rounds"][1]["truth"]

    def test_the_scores_that_count_them_change(self, hidden_turned, two_rounds):
        from pcam_ssl.runs.run import Run

        one, other = (read_scores(Run(path / "round-1")) for path in (hidden_turned, two_rounds))
        assert one["out_of_fold"] != other["out_of_fold"]


@pytest.fixture(scope="module")
def other_network(round_0, train, make_rounds, tmp_path_factory):
    """Round 1 after fold 1 was replaced by one that other first weights and batches made."""
    folder = tmp_path_factory.mktemp("other")
    path = shutil.copytree(round_0, folder / "run")
    fixed = f"cv.folds_file={round_0 / 'folds.parquet'}"
    another = train(folder / "another", "data.label_budget=56", "train.batch_size=8", "seed=5", fixed)
    shutil.rmtree(path / "fold-1")
    shutil.copytree(another.fold(1), path / "fold-1")
    make_rounds(path, 1)
    return path


class TestAnotherFoldsNetwork:
    def test_it_reaches_nothing_of_the_fold(self, other_network, two_rounds):
        pd.testing.assert_frame_equal(decisions(other_network, 1, 0), decisions(two_rounds, 1, 0), check_exact=True)
        assert weights(other_network, 1, "fold-0") == weights(two_rounds, 1, "fold-0")

    def test_it_makes_the_pseudo_labels_of_its_own_fold(self, other_network, two_rounds):
        mine, theirs = decisions(other_network, 1, 1), decisions(two_rounds, 1, 1)
        assert mine.id.tolist() == theirs.id.tolist()
        assert not mine.logit.equals(theirs.logit)
        assert set(mine.network_digest) != set(theirs.network_digest)


def test_decisions_of_another_fold_reach_nothing_of_the_fold(fresh, two_rounds, make_rounds):
    make_rounds(fresh, 1, "pseudo.stop_share=0.99")
    path = fresh / "round-1" / "fold-1" / "pseudo.parquet"
    write_table(path, table(path).assign(label=1 - table(path).label))
    make_rounds(fresh, 1)
    assert weights(fresh, 1, "fold-0") == weights(two_rounds, 1, "fold-0")
    assert weights(fresh, 1, "fold-1") != weights(two_rounds, 1, "fold-1")
