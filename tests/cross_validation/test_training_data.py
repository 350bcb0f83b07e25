"""What a unit trains on once pseudo-labels join it, on patches few enough to name."""

from pathlib import Path

import albumentations as A
import numpy as np
import pandas as pd
import pytest

from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.cross_validation.training_data import batch_plan, mix_words, steps_per_epoch, train_stream, training_set
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.folds import Folds, Unit
from pcam_ssl.data.plans import ClassesBySlide, Mixed, MixedClassesBySlide, Shuffled
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import PATCH_COLUMNS, conform

# id, split, label, slide; the four labelled ones come first, and the third of them does not train.
PATCHES = [
    ("a0", "train", 0, "a"),
    ("a1", "train", 1, "a"),
    ("b0", "train", 0, "b"),
    ("c1", "train", 1, "c"),
    ("of-a", "test", None, "a"),
    ("of-d", "test", None, "d"),
    ("of-d-too", "test", None, "d"),
    ("nowhere", "test", None, None),
]
TRAINS = np.array([True, True, False, True])
PSEUDO = pd.DataFrame({"id": ["of-d", "nowhere", "of-a"], "label": [0.9, 0.0, 1.0], "weight": [0.8, 0.5, 0.25]})


@pytest.fixture
def make_setting(tiny_recipe):
    """make_setting("a.b=c", ..., grouping="slides"): a setting whose pixels are nowhere."""

    def make_setting(*more, grouping="slides") -> RunContext:
        table = pd.DataFrame(PATCHES, columns=["id", "split", "label", "wsi"])
        table = table.assign(row=range(10, 18), x=None, y=None, pixel_hash=table.id, view_hash="0")
        table = table.assign(**{name: 0.0 for name in PATCH_COLUMNS if name not in table})
        patches = conform(table.assign(wsi=pd.array(table.wsi, dtype="str")), PATCH_COLUMNS)
        frame = patches[["id", "wsi"]].head(4).assign(group=["a", "a", "b", "c"])
        dataset = Dataset(Path("none"), {}, patches, np.empty((0, 1, 1, 3), np.uint8))
        precision = Precision("fp32", "a test", False)
        world = World(0, 1, "cpu")
        return RunContext(tiny_recipe(*more), dataset, Folds(frame, grouping), Run(Path("none")), world, precision, 0)

    return make_setting


def unit(pseudo=PSEUDO) -> Unit:
    return Unit("fold-0", 0, TRAINS, ~TRAINS, ~TRAINS, 1, pseudo)


def test_labelled_patches_come_first_then_pseudo_labelled_ones_in_the_order_of_the_decisions(make_setting):
    found = training_set(make_setting(), unit())
    assert (found.n_labelled, len(found)) == (3, 6)
    assert found.rows.tolist() == [10, 11, 13, 15, 17, 14]


def test_labels_and_weights_belong_to_their_rows(make_setting):
    found = training_set(make_setting(), unit())
    assert found.labels.tolist() == [0, 1, 1, 0.9, 0.0, 1.0]
    assert found.weights.tolist() == [1, 1, 1, 0.8, 0.5, 0.25]


def test_a_slide_of_the_folds_is_that_slide_and_any_other_patch_is_a_slide_of_its_own(make_setting):
    of_a, of_a_too, of_c, of_d, nowhere, pseudo_of_a = training_set(make_setting(), unit()).slides
    assert of_a == of_a_too == pseudo_of_a
    assert len({of_a, of_c, of_d, nowhere}) == 4


def test_where_slides_are_no_groups_every_pseudo_labelled_patch_is_one_of_its_own(make_setting):
    slides = training_set(make_setting(grouping="stain clusters"), unit()).slides
    assert len(set(slides[3:])) == 3 and not set(slides[3:]) & set(slides[:3])


@pytest.mark.parametrize("pseudo", [None, PSEUDO.head(0)])
def test_without_pseudo_labels_only_labels_train_and_weigh_alike(make_setting, pseudo):
    found = training_set(make_setting(), unit(pseudo))
    assert found.rows.tolist() == [10, 11, 13]
    assert (found.labels.dtype.kind, found.weights.tolist(), found.n_labelled) == ("i", [1, 1, 1], 3)
    assert train_stream(make_setting(), unit(pseudo), found, 0).pseudo is None


@pytest.mark.parametrize("noise", ["same", "d4", "file"])
def test_a_users_own_views_reach_both_kinds_of_patches(make_setting, tmp_path, noise):
    A.save(A.InvertImg(p=1), tmp_path / "own.json")
    context = make_setting(f"views.file={tmp_path / 'own.json'}", f"pseudo.noise={noise}")
    stream = train_stream(context, unit(), training_set(context, unit()), 0)
    black = np.zeros((4, 4, 3), np.uint8)
    assert stream.views(black, (0,)).min() == 255
    assert stream.pseudo.views(black, (0,)).min() == (0 if noise == "d4" else 255)


@pytest.mark.parametrize(("noise", "policy"), [("same", "standard"), ("d4", "d4"), ("strong", "strong")])
def test_pseudo_labelled_patches_get_the_views_of_pseudo_noise(make_setting, noise, policy):
    context = make_setting(f"pseudo.noise={noise}")
    stream = train_stream(context, unit(), training_set(context, unit()), 0)
    assert (stream.views.policy, stream.pseudo.views.policy) == ("standard", policy)


@pytest.mark.parametrize(
    ("more", "steps"),
    # 6 patches in batches of 2 are 3 steps an epoch; where half of a batch is pseudo-labelled, 3 labels make 3 steps too.
    [(("pseudo.ramp_epochs=2",), 6), (("pseudo.ramp_epochs=0.5",), 2), ((), 0), (("pseudo.ramp_epochs=2", "pseudo.mix=0.5"), 6)],
)
def test_the_ramp_is_counted_in_epochs_of_the_student(make_setting, more, steps):
    context = make_setting("train.batch_size=2", *more)
    assert train_stream(context, unit(), training_set(context, unit()), 0).pseudo.ramp_steps == steps


@pytest.mark.parametrize(
    ("more", "n", "n_labelled", "steps"),
    [
        ((), 60, 20, 15),  # all together: 60 / 4
        (("pseudo.mix=0.75",), 60, 20, 20),  # a label in four: each of 20 once
        (("pseudo.mix=0.75",), 20, 20, 5),  # nothing was added
        (("train.samples_per_epoch=24",), 60, 20, 6),
        (("train.samples_per_epoch=24", "pseudo.mix=0.75"), 60, 20, 6),
        (("method.name=metric", "pseudo.mix=0.75"), 60, 20, 20),
        (("method.name=metric",), 60, 20, 15),
        ((), 1, 1, 1),
    ],
)
def test_an_epoch_sees_each_label_about_once(tiny_recipe, more, n, n_labelled, steps):
    assert steps_per_epoch(tiny_recipe("train.batch_size=4", *more), n, n_labelled) == steps


def test_the_mix_decides_the_plan(tiny_recipe):
    labels, slides = np.array([0, 1] * 10, dtype=float), np.arange(20)
    plan = batch_plan(tiny_recipe("train.batch_size=4", "pseudo.mix=0.5"), labels, slides, 0, 12)
    assert isinstance(plan, Mixed) and (plan.labelled.n, plan.pseudo.n) == (12, 8)
    assert isinstance(batch_plan(tiny_recipe(), labels, slides, 0, 12), Shuffled)
    assert isinstance(batch_plan(tiny_recipe("pseudo.mix=0.5"), labels, slides, 0, 20), Shuffled)


@pytest.mark.parametrize(
    ("mix", "n_pseudo", "pseudo"),
    # Of 20 patches in batches of 8: all is the share of the patches, half at most; a number is what it says.
    [("all", 4, 1), ("all", 16, 2), ("0.75", 16, 3), ("0.75", 4, 2)],  # two of a class cannot be three
)
def test_metric_learning_draws_labels_and_pseudo_labels_apart(tiny_recipe, mix, n_pseudo, pseudo):
    labels = np.array([0, 1] * 10, dtype=float)
    recipe = tiny_recipe("method.name=metric", "train.batch_size=8", f"pseudo.mix={mix}")
    plan = batch_plan(recipe, labels, np.arange(20), 0, 20 - n_pseudo)
    assert isinstance(plan, MixedClassesBySlide) and plan.n_pseudo == (pseudo, pseudo)


def test_metric_learning_pairs_the_slides_of_labels_where_it_is_slide_aware(tiny_recipe):
    labels, slides = np.array([0, 1] * 10, dtype=float), np.repeat(np.arange(10), 2)
    settings = ("method.name=metric", "method.loss=triplet", "train.batch_size=8")
    for aware, shared in (("false", 0), ("true", 8)):
        plan = batch_plan(tiny_recipe(*settings, f"method.slide_aware={aware}"), labels, slides, 0, 16)
        assert len(plan.labelled.shared) == shared


def test_a_soft_label_counts_for_the_class_it_is_nearer_to(tiny_recipe):
    labels = np.array([0, 0.4, 1, 0.6])
    plan = batch_plan(tiny_recipe("method.name=metric", "train.batch_size=4"), labels, np.arange(4), 0)
    assert isinstance(plan, ClassesBySlide)
    assert [sorted(plan.batch(0)[place::2]) for place in (0, 1)] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("pseudo", "told"),
    [
        ([0, 1] * 8, "normal: 2 labels, 2 pseudo-labels; tumor: 2 labels, 2 pseudo-labels"),
        ([0] * 16, "tumor: 4 labels, 0 pseudo-labels (tumor: fewer pseudo-labels than the mix asks for, labels fill the rest)"),
    ],
)
def test_a_batch_is_described_in_words(tiny_recipe, pseudo, told):
    labels = np.array([0, 1] * 8 + pseudo, dtype=float)
    plan = batch_plan(tiny_recipe("method.name=metric", "train.batch_size=8"), labels, np.arange(32), 0, 16)
    assert mix_words(plan).endswith(told)
