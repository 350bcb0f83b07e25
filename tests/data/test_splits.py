import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from patches_of_slides import SIZES, join, make_patches

from pcam_ssl.data.images import measure
from pcam_ssl.data.splits import PATCH_STATISTICS, make_folds
from pcam_ssl.errors import UserError
from pcam_ssl.recipe.unused_keys import FOLDS_OF_FEWEST_CLUSTERS

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def patches():
    return make_patches(SIZES)


def assert_grouped(folds):
    frame = folds.frame
    assert (frame.groupby("group")["fold"].nunique() == 1).all()
    for k in range(folds.n_folds):
        parts = [set(frame["group"][mask]) for mask in (folds.train_mask(k), folds.inner_mask(k), folds.score_mask(k))]
        assert all(parts)
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


# the table


def test_rows_are_the_labelled_patches_outside_test_in_dataset_order(patches):
    patches.loc[3, "label"] = pd.NA
    both = join(patches, make_patches([20], split="test")).sample(frac=1, random_state=0)
    folds = make_folds(both)
    expected = both.sort_values("row").query("split != 'test' and label.notna()")
    assert list(folds.frame["id"]) == list(expected["id"]) and patches["id"][3] not in set(folds.frame["id"])


def test_masks_partition_the_visible_rows(patches):
    folds = make_folds(patches, n_folds=4)
    for k in range(4):
        assert ((folds.train_mask(k).astype(int) + folds.inner_mask(k) + folds.score_mask(k)) == 1).all()


def test_every_row_is_scored_once(patches):
    folds = make_folds(patches, n_folds=4)
    assert (sum(folds.score_mask(k).astype(int) for k in range(4)) == 1).all()


def test_same_seed_same_folds_other_seed_other_folds(patches):
    assert make_folds(patches, seed=1).frame.equals(make_folds(patches, seed=1).frame)
    assert not make_folds(patches, seed=1).frame.equals(make_folds(patches, seed=2).frame)


# grouped


@pytest.mark.parametrize("seed", range(8))
def test_no_slide_is_in_two_parts(seed):
    generator = np.random.default_rng(seed)
    sizes = generator.integers(5, 120, generator.integers(8, 30))
    folds = make_folds(make_patches(sizes, seed=seed), n_folds=int(generator.integers(2, 6)), seed=seed)
    assert folds.grouping == "slides"
    assert_grouped(folds)


def test_folds_hold_similar_shares_of_rows_and_tumor():
    patches = make_patches([30] * 40)
    folds = make_folds(patches)
    by_fold = patches.groupby(folds.frame["fold"].to_numpy())["label"]
    assert by_fold.size().between(180, 300).all()
    assert (by_fold.mean() - patches["label"].mean()).abs().max() < 0.06


def test_folds_spread_each_stain():
    patches = make_patches([20] * 30)
    stain = np.array([int(name[-2:]) % 3 for name in patches["wsi"]])
    for name in PATCH_STATISTICS:
        patches[name] = stain + 0.01 * patches[name]
    assert pd.crosstab(make_folds(patches).frame["fold"], stain).to_numpy().min() >= 20


def test_too_few_similar_slides_are_balanced_by_label_with_a_note():
    folds = make_folds(make_patches([30] * 6), n_folds=5)
    assert folds.notes == ("folds are balanced by label alone: too few slides look alike for 5 folds of each stain",)


@pytest.mark.skipif(not SHARED.exists(), reason=f"real patches are not at {SHARED}")
def test_real_slide_sizes_make_grouped_folds():
    sizes = pd.read_csv(SHARED / "patch_id_wsi.csv")["wsi"].value_counts()
    assert_grouped(make_folds(make_patches(list(sizes), tumor=0.36)))


# official and random


def test_official_trains_on_train_and_scores_valid():
    patches = join(make_patches([20] * 8), make_patches([20] * 3, split="valid", seed=1))
    folds = make_folds(patches, scheme="official")
    assert folds.n_folds == 1 and list(folds.score_mask(0)) == list(patches["split"] == "valid")
    assert set(folds.frame["fold"]) == {-1, 0}
    assert_grouped(folds)


def test_official_without_slide_ids_clusters_each_split_alone():
    patches = join(make_patches([50] * 8, named=False), make_patches([40] * 3, split="valid", named=False))
    folds = make_folds(patches, scheme="official")
    assert_grouped(folds)
    assert folds.grouping == "stain clusters"
    assert folds.notes[0].startswith("no slide ids: train and valid are taken to share no slide")


@pytest.mark.parametrize(
    ("named", "folds", "same"),
    [(True, 10, True), (False, FOLDS_OF_FEWEST_CLUSTERS, True), (False, FOLDS_OF_FEWEST_CLUSTERS + 1, False)],
)
def test_the_number_of_folds_changes_official_only_by_the_number_of_stain_clusters(named, folds, same):
    """What the warning about `cv.folds` without effect relies on."""
    patches = join(make_patches([50] * 8, named=named), make_patches([40] * 3, split="valid", seed=1, named=named))
    two, more = (make_folds(patches, scheme="official", n_folds=n).frame for n in (2, folds))
    assert two.equals(more) is same


def test_random_folds_split_slides_with_a_note(patches):
    folds = make_folds(patches, scheme="random")
    assert folds.grouping == "none"
    assert folds.notes[0].startswith("cv.scheme random: patches of one slide are in training and scoring")
    assert (folds.frame["fold"].groupby(patches["wsi"]).nunique() > 1).all()


def test_an_exact_copy_in_another_fold_is_noted(patches):
    folds = make_folds(patches)
    twins = [int(np.flatnonzero(folds.score_mask(k))[0]) for k in (0, 1)]
    patches.loc[twins, "pixel_hash"] = "same"
    assert make_folds(patches).notes[-1] == "2 patches have an exact copy in another fold; `pcam-ssl data audit` names them"


# no slide ids


def test_stain_clusters_replace_unknown_slides():
    patches = make_patches([40] * 15, named=False)
    patches.loc[:99, "pixel_hash"] = [f"pair-{n % 50}" for n in range(100)]
    folds = make_folds(patches)
    assert folds.grouping == "stain clusters" and folds.frame["group"].nunique() == 20
    assert folds.notes[0].startswith("slides are not used: 20 stain clusters stand in for them")
    assert (folds.frame["fold"].groupby(patches["pixel_hash"]).nunique() == 1).all()
    assert_grouped(folds)


def test_stain_clusters_can_be_chosen_where_slides_are_known(patches):
    assert make_folds(patches, n_folds=3, grouping="stain clusters").grouping == "stain clusters"


# label budget


@pytest.mark.parametrize("scheme", ["grouped", "random"])
def test_budget_keeps_that_many_labels_independent_of_their_values(patches, scheme):
    folds = make_folds(patches, scheme=scheme, label_budget=120)
    other = make_folds(patches.assign(label=1 - patches["label"]), scheme=scheme, label_budget=120)
    assert folds.frame["visible"].sum() == 120 and folds.frame["visible"].equals(other.frame["visible"])


def test_a_larger_budget_keeps_the_labels_of_a_smaller_one(patches):
    small, large = (make_folds(patches, label_budget=n).frame["visible"] for n in (100, 200))
    assert (large | ~small).all()


def test_official_budget_hides_labels_of_train_only():
    patches = join(make_patches([20] * 8), make_patches([20] * 3, split="valid", seed=1))
    folds = make_folds(patches, scheme="official", label_budget=60)
    assert folds.frame["visible"][folds.score_mask(0)].all() and (folds.train_mask(0) | folds.inner_mask(0)).sum() == 60


def test_hidden_rows_stay_in_the_pool_of_their_fold(patches):
    folds = make_folds(patches, label_budget=120)
    hidden = ~folds.frame["visible"].to_numpy()
    assert (folds.pool_mask(0) & hidden).sum() > 50 and not (folds.train_mask(0) & hidden).any()


# what cannot be split

CASES = {
    "no labels": (lambda p: p.assign(label=pd.array([pd.NA] * len(p), dtype="Int8")), {}, "the dataset has no labelled patches"),
    "unknown scheme": (
        lambda p: p,
        {"scheme": "gruoped"},
        "cv.scheme 'gruoped' is unknown; choose one of grouped, official, random. Did you mean",
    ),
    "one fold": (lambda p: p, {"n_folds": 1}, "cv.folds is 1; ask for 2 or more"),
    "no valid": (
        lambda p: p,
        {"scheme": "official"},
        "cv.scheme official needs labelled patches in the split valid; use cv.scheme grouped",
    ),
    "one slide": (
        lambda p: p.assign(wsi="s1"),
        {},
        "labelled patches are of one slide (s1), so no fold is possible; import more slides",
    ),
    "few slides": (
        lambda p: p,
        {"n_folds": 15},
        "14 slides cannot make 15 folds; set cv.folds to 14 or less, or import more slides",
    ),
    "two slides": (
        lambda p: p.assign(wsi=["s1", "s2"] * 158),
        {"n_folds": 2},
        "fold 0 has 1 labelled slides to train on, and one more is",
    ),
    "one class": (
        lambda p: p.assign(label=1),
        {},
        "316 tumor and 0 normal patches cannot make 5 folds; set cv.folds lower, or import more",
    ),
    "one class, random": (lambda p: p.assign(label=0), {"scheme": "random"}, "0 tumor and 316 normal patches cannot make 5 folds"),
    "tumor in one slide": (
        lambda p: p.assign(label=(p["wsi"] == "train-slide-03").astype("Int8")),
        {},
        "would train on one class only; change cv.folds or seed, import slides with the other class, or raise data.label_budget",
    ),
    "some slides unknown": (
        lambda p: p.assign(wsi=p["wsi"].where(p["row"] >= 16)),
        {},
        "slide ids are known for 300 of 316 labelled patches; import again with a slide csv that covers all (--wsi CSV)",
    ),
    "slides asked for, unknown": (
        lambda p: p.assign(wsi=None),
        {"grouping": "slides"},
        "the dataset has no slide ids; import it again with --wsi CSV",
    ),
    "large budget": (
        lambda p: p,
        {"label_budget": 317},
        "data.label_budget is 317, but there are 316 labels to train on; ask for 2 to that many",
    ),
    "small budget": (lambda p: p, {"label_budget": 1}, "data.label_budget is 1, but there are 316 labels"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_names_the_problem_and_the_next_step(patches, case):
    spoil, options, text = CASES[case]
    with pytest.raises(UserError) as error:
        make_folds(spoil(patches).astype({"wsi": "str", "label": "Int8"}), **options)
    assert text in str(error.value) and "\n" not in str(error.value)


def test_official_refuses_a_slide_in_both_splits():
    patches = join(make_patches([20] * 8), make_patches([20] * 3, split="valid", seed=1))
    patches.loc[patches["split"] == "valid", "wsi"] = "train-slide-02"
    with pytest.raises(UserError, match=r"1 slides are in both train and valid, first train-slide-02; use cv.scheme grouped"):
        make_folds(patches, scheme="official")


# on another machine


@pytest.mark.parametrize(
    ("grouping", "digest"),
    [
        ("slides", "08ca5c7e4ec4f711"),
        ("stain clusters", "ea0214210070aeca"),
    ],
)
def test_folds_are_the_same_on_every_cpu(grouping, digest):
    """From the pixels on: statistics, stain clusters, strata and folds."""
    rng = np.random.default_rng(0)
    slides = rng.integers(40, size=600)
    pixels = rng.integers(0, 60, (600, 24, 24, 3)) + rng.integers(60, 190, (40, 3))[slides][:, None, None]
    patches = make_patches([600]).assign(**measure(pixels.astype(np.uint8)), wsi=[f"s{slide}" for slide in slides])
    frame = make_folds(patches, n_folds=4, grouping=grouping, label_budget=400).frame
    text = frame[["id", "group", "fold", "visible"]].to_csv(index=False)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest
