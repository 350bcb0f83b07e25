"""Rounds of two teachers with three opinions each, whose students start from their teacher: labels that a fold scores reach nothing of it."""

import shutil

import numpy as np
import pandas as pd
import pytest
from round_outputs import calibration, decisions, table, turn, weights, without_labels
from safetensors.numpy import load_file

from pcam_ssl.files import read_json

RUN = ("neighbours.use=true", "neighbours.k=inner", "graph.use=true", "data.label_budget=56", "train.batch_size=8")
ROUNDS = (
    "pseudo.opinions=head+knn+graph",
    "pseudo.weight=agreement",
    "pseudo.prior=em",
    "pseudo.k_best=null",
    "pseudo.class_share=0.5",
    "pseudo.label=soft",
    "pseudo.start=teacher",
    "pseudo.teachers=2",
)


@pytest.fixture(scope="module", autouse=True)
def em_everywhere():
    """EM is used though these networks hardly tell the classes apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pcam_ssl.pseudo_labels.selection.LEAST_TOLD", -np.inf)
        yield


@pytest.fixture(scope="module")
def run_0(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("opinions") / "run", *RUN).path


@pytest.fixture(scope="module")
def run(run_0, make_rounds, tmp_path_factory):
    """A run with two rounds. Do not write into it."""
    path = shutil.copytree(run_0, tmp_path_factory.mktemp("opinions") / "rounds")
    make_rounds(path, 2, *ROUNDS)
    return path


@pytest.fixture(scope="module")
def own_turned(run_0, slides, rewrite, train, make_rounds, tmp_path_factory):
    """The same from nothing, folds held fixed, with scrambled labels of the slides that fold 0 scores."""
    folder, folds = tmp_path_factory.mktemp("turned"), table(run_0 / "folds.parquet")
    data = rewrite(slides, folder / "slides", turn(folds.id[folds.fold == 0]))
    path = train(folder / "run", *RUN, f"cv.folds_file={run_0 / 'folds.parquet'}", data=data).path
    make_rounds(path, 2, *ROUNDS)
    return path


def facts(run, number, fold) -> dict:
    return read_json(run / f"round-{number}" / f"fold-{fold}" / "selection.json", dict)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_labels_of_a_fold_reach_nothing_of_it(own_turned, run, number):
    assert weights(own_turned, number, "fold-0") == weights(run, number, "fold-0")
    assert calibration(own_turned, number, "fold-0") == calibration(run, number, "fold-0")
    if number:
        assert facts(own_turned, number, 0) == facts(run, number, 0)
        pd.testing.assert_frame_equal(decisions(own_turned, number, 0), decisions(run, number, 0), check_exact=True)
    for name in ("oof", "oof-knn", "oof-graph", "inner-graph"):
        mine, theirs = ((path / f"round-{number}" if number else path) / "fold-0" / f"{name}.parquet" for path in (own_turned, run))
        pd.testing.assert_frame_equal(without_labels(table(mine)), without_labels(table(theirs)), check_exact=True)


def test_they_reach_the_other_fold(own_turned, run):
    assert not decisions(own_turned, 1, 1).equals(decisions(run, 1, 1))


@pytest.mark.parametrize("fold", [0, 1])
def test_what_a_round_mixed_is_written_down(run, fold):
    told = facts(run, 1, fold)
    assert set(told["opinions"]["weights"]) == {"head", "knn", "graph"}
    assert sum(told["opinions"]["weights"].values()) == pytest.approx(1)
    assert 0 < told["prior"] < 1 and 0 < told["labelled_share"] < 1
    kept = table(run / f"fold-{fold}" / "pool.parquet")
    assert kept.graph_prob.between(0, 1).all() and kept.knn_prob.between(0, 1).all()


def test_opinions_that_differ_lower_the_weight(run):
    rows = decisions(run, 1, 0)[lambda rows: rows.decision == "added"]
    assert rows.weight.between(0, 1).all()
    assert rows.weight.nunique() > 1


def test_the_share_of_each_class_grows(run):
    shares = [(decisions(run, number, 0).decision == "added").mean() for number in (1, 2)]
    assert shares[0] == pytest.approx(0.5, abs=0.1)
    assert shares[1] == 1


def distance(first, second) -> float:
    """The largest change of a weight of the head between two networks."""
    first, second = (load_file(path / "fold-0" / "model.safetensors") for path in (first, second))
    names = [name for name in first if name.startswith("head.")]
    assert names
    return max(float(np.abs(first[name] - second[name]).max()) for name in names)


@pytest.mark.parametrize(("start", "stays"), [("teacher", True), ("weights", False)])
def test_students_start_from_their_teacher_or_from_the_first_weights(run_0, make_rounds, tmp_path, start, stays):
    path = shutil.copytree(run_0, tmp_path / "run")
    make_rounds(path, 1, *ROUNDS, f"pseudo.start={start}", "optim.lr=1e-12", "train.ema_decay=null")
    assert (distance(path, path / "round-1") < 1e-6) == stays


def test_the_control_of_students_that_go_on_takes_the_steps_of_all_rounds(run, make_rounds, tmp_path):
    path = shutil.copytree(run, tmp_path / "run")
    told = make_rounds(path, 2, *ROUNDS, "pseudo.control=true")["control"]
    taken = [
        sum(read_json(path / f"round-{number}" / f"fold-{fold}" / "fold.json")["steps"] for number in (1, 2)) for fold in (0, 1)
    ]
    assert told["steps"] == taken
    assert read_json(path / "control" / "fold-0" / "fold.json")["steps"] == taken[0]


def test_the_control_starts_from_round_0(run_0, make_rounds, tmp_path):
    path = shutil.copytree(run_0, tmp_path / "run")
    make_rounds(path, 1, *ROUNDS, "pseudo.control=true", "optim.lr=1e-12", "train.ema_decay=null")
    assert distance(path, path / "control") < 1e-6
