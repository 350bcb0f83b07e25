from dataclasses import replace

import pytest

from pcam_ssl.errors import UserError
from pcam_ssl.explain.explain import Exposure
from pcam_ssl.runs.networks import open_networks


@pytest.fixture(scope="module")
def networks(finished):
    return open_networks(finished.path)


@pytest.fixture(scope="module")
def id_of(networks):
    """id_of(mask): the first patch of the folds' rows under a mask."""
    return lambda mask: networks.folds.frame.id[mask].iloc[0]


def test_the_exposure_of_a_fold_to_a_label(networks, id_of):
    folds, sight = networks.folds, Exposure(networks)
    asked = [id_of(mask(0)) for mask in (folds.train_mask, folds.inner_mask, folds.score_mask)]
    assert [sight.learned(id, (0,)) for id in asked] == ["label", "inner", None]


def test_of_several_folds_the_most_telling_counts(networks, id_of):
    learned = Exposure(networks).learned(id_of(networks.folds.score_mask(0)), (0, 1))
    assert learned in ("label", "inner")


def test_a_hidden_label_was_not_learned_from(networks, id_of):
    id = id_of(networks.folds.train_mask(0))
    hidden = networks.folds.frame.assign(visible=networks.folds.frame.id != id)
    assert Exposure(replace(networks, folds=replace(networks.folds, frame=hidden))).learned(id, (0,)) is None


def test_pooled_pseudo_labels_carry_the_label_of_a_scored_patch(networks, id_of, tiny_recipe):
    pooled = replace(networks, info={**networks.info, "command": "pseudo-label"}, recipe=tiny_recipe("pseudo.pooled=true"))
    assert Exposure(pooled).learned(id_of(networks.folds.score_mask(0)), (0,)) == "pooled"


def test_a_patch_that_no_fold_scores_is_explained_by_all(networks, id_of):
    never = networks.folds.frame.assign(fold=-1)
    id = id_of(networks.folds.score_mask(0))
    assert Exposure(networks).folds_of(id) == (0,)
    assert Exposure(replace(networks, folds=replace(networks.folds, frame=never))).folds_of(id) == (0, 1)


def test_a_run_with_a_refit_alone_has_no_fold_to_explain_with(networks, id_of):
    with pytest.raises(UserError, match="no fold is finished yet"):
        Exposure(replace(networks, finished=())).folds_of(id_of(networks.folds.score_mask(0)))
