import numpy as np
import pytest

from pcam_ssl.data.plans import ClassesBySlide, Mixed, Shuffled
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
    [Shuffled(24, 5, 1), Mixed(6, 24, 5, 0.4, 1), ClassesBySlide(LABELS, SLIDES, 8, 1), ClassesBySlide(LABELS, SLIDES, 8, 1, True)],
)
def test_a_batch_is_a_function_of_its_step_alone(plan):
    later = plan.batch(7)
    for step in (0, 9, 3):
        plan.batch(step)
    assert np.array_equal(plan.batch(7), later)


@pytest.mark.parametrize("paired", [False, True])
def test_classes_take_turns(paired):
    batch = ClassesBySlide(LABELS, SLIDES, 8, 0, paired).batch(3)
    assert LABELS[batch].tolist() == [0, 1] * 4


@pytest.mark.parametrize("paired", [False, True])
def test_no_patch_stands_twice_in_a_batch(paired):
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


def test_too_few_patches_of_a_class_are_refused():
    with pytest.raises(UserError, match="asks for 4 patches of each class, the fold trains on 2 tumor ones; lower it"):
        ClassesBySlide(np.array([1, 1, 0, 0, 0, 0, 0, 0]), np.arange(8), 8, 0)


def test_an_odd_batch_is_refused():
    with pytest.raises(UserError, match=r"train.batch_size is 7; .* make it even"):
        ClassesBySlide(LABELS, SLIDES, 7, 0)


@pytest.mark.parametrize(
    ("share", "pseudo"),
    [(0.5, 4), (0.25, 2), (0.8, 6), (0.01, 1), (0.99, 7)],  # 0.8 of 8 is 6.4; each kind has at least one
)
def test_a_mixed_batch_holds_labelled_patches_then_its_share_of_pseudo_labelled_ones(share, pseudo):
    plan = Mixed(10, 30, 8, share, seed=0)
    for step in range(5):
        assert (plan.batch(step) >= 10).tolist() == [False] * (8 - pseudo) + [True] * pseudo


def test_each_kind_goes_round_in_passes_of_its_own():
    plan = Mixed(4, 16, 5, 0.6, seed=0)
    shown = np.stack([plan.batch(step) for step in range(4)])
    assert sorted(shown[:2, :2].ravel()) == sorted(shown[2:, :2].ravel()) == [0, 1, 2, 3]
    assert sorted(shown[:, 2:].ravel()) == list(range(4, 16))


def test_few_pseudo_labels_come_again_to_keep_the_ratio():
    assert Mixed(10, 11, 4, 0.5, seed=0).batch(3)[2:].tolist() == [10, 10]


def test_the_kinds_are_not_shuffled_alike():
    plan = Mixed(50, 100, 100, 0.5, seed=0)
    assert plan.batch(0)[:50].tolist() != (plan.batch(0)[50:] - 50).tolist()
