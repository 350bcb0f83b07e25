import numpy as np
import pytest
from patches_of_slides import SIZES, make_patches

from pcam_ssl.data.splits import inner_columns, inner_groups, make_folds


@pytest.fixture
def patches():
    return make_patches(SIZES)


def test_the_inner_part_has_about_the_requested_share(patches):
    folds = make_folds(patches, inner_share=0.2)
    for k in range(5):
        n_inner, n_train = folds.inner_mask(k).sum(), folds.train_mask(k).sum()
        assert 0.1 < n_inner / (n_inner + n_train) < 0.3


def test_inner_groups_take_at_least_one_and_never_all():
    codes, labels = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert len(inner_groups(codes, labels, 0.01, 0)) == len(inner_groups(codes, labels, 0.99, 0)) == 1


def test_inner_groups_prefer_both_classes_inside():
    codes = np.repeat(np.arange(10), 10)
    labels = np.where(np.isin(codes, [3, 7]), np.arange(100) % 2, 0)
    assert len({3, 7} & set(inner_groups(codes, labels, 0.1, 0))) == 1


def test_inner_groups_hold_several_slides_of_the_rarer_class():
    # Ten of thirty slides hold tumor; of a share of 0.1 a draw would mostly take one of them.
    codes = np.repeat(np.arange(30), 10)
    labels = np.where(codes % 3 == 0, np.arange(300) % 2, 0)
    for seed in range(10):
        chosen = inner_groups(codes, labels, 0.1, seed)
        assert (chosen % 3 == 0).sum() == 3
        assert len(chosen) <= 6


def test_training_keeps_twice_as_many_slides_of_the_rarer_class():
    codes = np.repeat(np.arange(30), 10)
    labels = np.where(codes < 3, np.arange(300) % 2, 0)
    assert {(inner_groups(codes, labels, 0.1, seed) < 3).sum() for seed in range(10)} == {1}


def test_inner_groups_leave_both_classes_in_training():
    codes = np.repeat(np.arange(10), 10)
    labels = np.where(codes == 4, np.arange(100) % 2, 0)
    assert 4 not in inner_groups(codes, labels, 0.15, 0)


def test_an_inner_part_of_one_class_is_noted():
    patches = make_patches([20] * 12)
    patches["label"] = patches["wsi"].isin(["train-slide-00", "train-slide-05"]).astype("Int8")
    folds = make_folds(patches, n_folds=2)
    assert "fold 0: its inner slides hold one class only, so no AUC can be computed on them alone" in folds.notes


@pytest.mark.parametrize("scheme", ["grouped", "random"])
@pytest.mark.parametrize("label_budget", [None, 150])
def test_labels_of_a_fold_do_not_reach_its_inner_part(patches, scheme, label_budget):
    folds = make_folds(patches, scheme=scheme, label_budget=label_budget)
    labels = patches["label"].to_numpy(dtype=int)
    for k in range(5):
        scrambled = np.where(folds.score_mask(k), 1 - labels, labels)
        again = inner_columns(folds.frame, scrambled, n_folds=5, share=0.15, seed=0)
        assert (again[f"inner_{k}"] == folds.frame[f"inner_{k}"]).all()


def test_hidden_labels_do_not_reach_the_inner_part(patches):
    folds = make_folds(patches, label_budget=150)
    labels = patches["label"].to_numpy(dtype=int)
    again = inner_columns(folds.frame, np.where(folds.frame["visible"], labels, 1 - labels), n_folds=5, share=0.15, seed=0)
    assert again.equals(folds.frame[list(again)])
