import numpy as np
import pytest

from pcam_ssl.data.plans import ClassesBySlide, Mixed, MixedClassesBySlide, Shuffled, check_classes, spread
from pcam_ssl.errors import UserError

LABELS = np.array([0, 1] * 12)
SLIDES = np.repeat(np.arange(6), 4)


def test_a_pass_sees_every_patch_once():
    plan = Shuffled(12, 4, seed=0)
    assert sorted(np.concatenate([plan.batch(step) for step in range(3)])) == list(range(12))


def test_passes_differ_in_order():
    plan = Shuffled(12, 12, seed=0)
    assert not np.array_equal(plan.batch(0), plan.batch(1))


@pytest.mark.parametrize(
    "plan",
    [
        Shuffled(24, 5, 1),
        Mixed(6, 24, 5, 0.4, 1),
        ClassesBySlide(LABELS, SLIDES, 8, 1),
        ClassesBySlide(LABELS, SLIDES, 8, 1, True),
        MixedClassesBySlide(LABELS, SLIDES, 16, 8, 0.5, 1),
    ],
)
def test_a_batch_is_a_function_of_its_step_alone(plan):
    later = plan.batch(7)
    for step in (0, 9, 3):
        plan.batch(step)
    assert np.array_equal(plan.batch(7), later)


@pytest.mark.parametrize("paired", [False, True])
def test_classes_alternate(paired):
    batch = ClassesBySlide(LABELS, SLIDES, 8, 0, paired).batch(3)
    assert LABELS[batch].tolist() == [0, 1] * 4


@pytest.mark.parametrize("paired", [False, True])
def test_no_patch_is_repeated_in_a_batch(paired):
    batch = ClassesBySlide(LABELS, SLIDES, 20, 0, paired).batch(0)
    assert len(set(batch)) == 20


def test_a_class_comes_from_as_many_slides_as_it_can():
    for step in range(20):
        batch = ClassesBySlide(LABELS, SLIDES, 12, 0).batch(step)
        assert len(set(SLIDES[batch[LABELS[batch] == 1]])) == 6


def test_pairing_puts_both_classes_of_a_slide_into_the_batch():
    def shared(paired):
        plan, found = ClassesBySlide(np.arange(400) % 2, np.repeat(np.arange(100), 4), 8, 0, paired), []
        for step in range(50):
            slides = np.repeat(np.arange(100), 4)[plan.batch(step)].reshape(-1, 2)
            found.append(len(set(slides[:, 0]) & set(slides[:, 1])))
        return np.mean(found)

    assert shared(True) >= 2 > shared(False)


def test_patches_of_a_slide_are_drawn_alike():
    shown = np.concatenate([ClassesBySlide(LABELS, SLIDES, 8, 0).batch(step) for step in range(300)])
    assert np.bincount(shown, minlength=24).min() > 60  # each of 24 patches 100 times, in the mean


def test_a_second_patch_of_a_slide_comes_after_the_first_of_all():
    # Tumor stands on slides of 1, 2 and 9 patches: 8 of them are 1, 2 and 5.
    labels, slides = np.r_[np.zeros(12, int), np.ones(12, int)], np.r_[np.zeros(12, int), 1, 2, 2, [3] * 9]
    counts = np.bincount(slides[ClassesBySlide(labels, slides, 16, 0).batch(0)[1::2]])
    assert counts.tolist() == [0, 1, 2, 5]


def test_a_class_smaller_than_half_a_batch_is_repeated_in_it():
    batch = ClassesBySlide(np.array([1, 1, 0, 0, 0, 0, 0, 0]), np.arange(8), 8, 0).batch(0)
    assert sorted(batch[1::2]) == [0, 0, 1, 1]


def test_too_few_patches_of_a_class_are_refused():
    with pytest.raises(UserError, match="asks for 4 patches of each class, the fold trains on 2 tumor ones; lower it"):
        check_classes(np.array([1, 1, 0, 0, 0, 0, 0, 0]), 8)


def test_an_odd_batch_is_refused():
    with pytest.raises(UserError, match=r"train.batch_size is 7; .* make it even"):
        check_classes(LABELS, 7)


@pytest.mark.parametrize("part", range(9))
def test_each_process_has_its_part_of_both_kinds(part):
    places = spread(8, part)
    assert places.sum() == part
    for size in (2, 4):
        shares = places.reshape(size, -1).sum(1)
        assert shares.max() - shares.min() <= 1


@pytest.mark.parametrize(
    ("share", "pseudo"),
    [(0.5, 4), (0.25, 2), (0.8, 6), (0.01, 1), (0.99, 7)],  # 0.8 of 8 is 6.4; each kind has at least one
)
def test_a_mixed_batch_holds_its_share_of_pseudo_labelled_patches(share, pseudo):
    plan = Mixed(10, 30, 8, share, seed=0)
    for step in range(5):
        assert (plan.batch(step) >= 10).tolist() == spread(8, pseudo).tolist()


def test_each_kind_has_its_own_passes():
    plan = Mixed(4, 16, 5, 0.6, seed=0)
    shown = [plan.batch(step) for step in range(4)]
    labelled = [batch[batch < 4] for batch in shown]
    assert sorted([*labelled[0], *labelled[1]]) == sorted([*labelled[2], *labelled[3]]) == [0, 1, 2, 3]
    assert sorted(np.concatenate([batch[batch >= 4] for batch in shown])) == list(range(4, 16))


def test_few_pseudo_labels_are_repeated_to_keep_the_ratio():
    batch = Mixed(10, 11, 4, 0.5, seed=0).batch(3)
    assert batch[batch >= 10].tolist() == [10, 10]


def test_the_two_kinds_have_different_orders():
    plan = Mixed(50, 100, 100, 0.5, seed=0)
    batch = plan.batch(0)
    assert batch[batch < 50].tolist() != (batch[batch >= 50] - 50).tolist()


# 24 labels on 6 slides, then 200 pseudo-labels each of a slide of its own: three in four are normal.
POOLED = np.r_[LABELS, np.arange(200) % 4 == 0].astype(int)
POOLED_SLIDES = np.r_[SLIDES, 6 + np.arange(200)]


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(("share", "pseudo"), [(0.5, 8), (0.25, 4), (0.01, 2), (0.99, 14), (0.96, 14)])
def test_each_class_has_its_share_of_pseudo_labels_with_any_number_of_unknown_slides(paired, share, pseudo):
    plan = MixedClassesBySlide(POOLED, POOLED_SLIDES, 24, 16, share, 0, paired)
    for step in range(5):
        batch = plan.batch(step)
        assert POOLED[batch].tolist() == [0, 1] * 8
        assert [(batch[label::2] >= 24).sum() for label in (0, 1)] == [pseudo // 2] * 2
        assert len(set(batch)) == 16


def test_pseudo_labels_are_not_drawn_by_slide():
    plan = MixedClassesBySlide(POOLED, POOLED_SLIDES, 24, 16, 0.5, 0)
    assert [each.slides.tolist() for each in plan.labelled.classes] == [[0, 1, 2, 3, 4, 5]] * 2


def test_every_process_has_both_classes_and_both_kinds():
    batch = MixedClassesBySlide(POOLED, POOLED_SLIDES, 24, 16, 0.5, 0).batch(0)
    kinds = {(int(POOLED[each]), bool(each >= 24)) for each in batch}
    for size in (2, 4):
        for share in batch.reshape(size, -1):
            assert {(int(POOLED[each]), bool(each >= 24)) for each in share} == kinds and len(kinds) == 4


def test_labels_of_a_mixed_batch_come_from_as_many_slides_as_they_can():
    batch = MixedClassesBySlide(POOLED, POOLED_SLIDES, 24, 24, 0.5, 0).batch(0)
    for label in (0, 1):
        assert len(set(SLIDES[batch[(POOLED[batch] == label) & (batch < 24)]])) == 6


def test_pseudo_labels_of_a_class_are_seen_equally_often():
    plan = MixedClassesBySlide(POOLED, POOLED_SLIDES, 24, 20, 0.5, 0)
    shown = np.concatenate([plan.batch(step) for step in range(30)])
    counts = np.bincount(shown, minlength=224)[24:]
    assert counts[::4].tolist() == [3] * 50 and counts[POOLED[24:] == 0].tolist() == [1] * 150


def test_where_a_class_has_few_pseudo_labels_its_labels_fill_the_rest():
    labels = np.r_[LABELS, [0] * 50, 1]
    plan = MixedClassesBySlide(labels, np.arange(75), 24, 16, 0.5, 0)
    batch = plan.batch(3)
    assert labels[batch].tolist() == [0, 1] * 8
    assert [(batch[label::2] >= 24).sum() for label in (0, 1)] == [4, 1]


def test_pseudo_labels_of_one_class_leave_the_other_to_labels():
    plan = MixedClassesBySlide(np.r_[LABELS, [0] * 50], np.arange(74), 24, 16, 0.5, 0)
    assert [(plan.batch(0)[label::2] >= 24).sum() for label in (0, 1)] == [4, 0]
