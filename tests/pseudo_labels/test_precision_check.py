"""What the precision check trains on, and what it hides."""

from dataclasses import replace

import numpy as np
import pytest

from pcam_ssl.pseudo_labels.precision_check import check_unit
from pcam_ssl.pseudo_labels.setup import open_rounds
from pcam_ssl.runs.run import Run


@pytest.fixture(scope="module")
def rounds(round_0, tmp_path_factory):
    return open_rounds(Run(round_0), None, ["pseudo.planted_share=0.4"], tmp_path_factory.mktemp("rounds"))


@pytest.fixture(scope="module", params=[0, 1])
def pair(request, rounds):
    """A fold and its precision check."""
    return rounds.units[request.param], check_unit(rounds, rounds.units[request.param])


def test_planted_slides_are_scored_and_not_trained_on(rounds, pair):
    unit, planted = pair
    groups = rounds.folds.frame.group
    assert planted.score.any() and planted.train.any()
    assert not set(groups[planted.score]) & set(groups[planted.train])
    assert np.array_equal(planted.train | planted.score, unit.train)


def test_the_check_leaves_inner_slides_and_scored_slides_of_its_fold_alone(rounds, pair):
    unit, planted = pair
    assert np.array_equal(planted.inner, unit.inner)
    groups = rounds.folds.frame.group
    assert not set(groups[planted.train | planted.score]) & set(groups[unit.inner | unit.score])


def test_the_check_has_first_weights_of_its_own_and_predicts_no_test_split(rounds, pair):
    unit, planted = pair
    assert planted.number not in {each.number for each in rounds.units}
    assert (planted.name, planted.test) == (unit.name, False)


def test_planted_slides_do_not_depend_on_scored_labels(rounds, pair):
    unit, planted = pair
    patches = rounds.dataset.patches.copy()
    scored = patches.id.isin(rounds.folds.frame.id[unit.score])
    turned = replace(rounds.dataset, patches=patches.assign(label=patches.label.where(~scored, 1 - patches.label)))
    again = check_unit(replace(rounds, dataset=turned), unit)
    assert np.array_equal(again.train, planted.train) and np.array_equal(again.score, planted.score)
