import torch

from pcam_ssl.methods.slide_pairs import keep_slide_pairs, slide_pairs

# Patches 0..4: slide 0 holds a tumor and a normal patch, slide 1 a tumor and a normal patch, slide 2 a tumor patch alone.
LABELS = torch.tensor([1, 0, 1, 0, 1])
SLIDES = torch.tensor([0, 0, 1, 1, 2])


def as_sets(pairs):
    a1, p, a2, n = (part.tolist() for part in pairs)
    return set(zip(a1, p, strict=True)), set(zip(a2, n, strict=True))


def test_positives_come_from_other_slides():
    positive, _ = as_sets(slide_pairs(LABELS, SLIDES))
    assert positive == {(0, 2), (0, 4), (2, 0), (2, 4), (4, 0), (4, 2), (1, 3), (3, 1)}


def test_negatives_come_from_the_own_slide_where_it_has_any():
    _, negative = as_sets(slide_pairs(LABELS, SLIDES))
    assert {pair for pair in negative if pair[0] != 4} == {(0, 1), (1, 0), (2, 3), (3, 2)}


def test_an_anchor_without_a_negative_on_its_slide_takes_those_of_all_slides():
    _, negative = as_sets(slide_pairs(LABELS, SLIDES))
    assert {pair for pair in negative if pair[0] == 4} == {(4, 1), (4, 3)}


def test_a_batch_of_one_slide_has_no_positive():
    positive, negative = as_sets(slide_pairs(LABELS, torch.zeros(5, dtype=torch.int64)))
    assert not positive
    assert len(negative) == 12


def test_mined_triplets_keep_those_that_both_allow():
    pairs = slide_pairs(LABELS, SLIDES)
    mined = (torch.tensor([0, 0, 1]), torch.tensor([2, 4, 3]), torch.tensor([1, 3, 0]))
    kept = keep_slide_pairs(mined, pairs, 5)
    assert [part.tolist() for part in kept] == [[0, 1], [2, 3], [1, 0]]


def test_mined_pairs_keep_those_that_both_allow():
    pairs = slide_pairs(LABELS, SLIDES)
    mined = (torch.tensor([0, 0]), torch.tensor([2, 0]), torch.tensor([0, 2]), torch.tensor([3, 3]))
    kept = keep_slide_pairs(mined, pairs, 5)
    assert [part.tolist() for part in kept] == [[0], [2], [2], [3]]
