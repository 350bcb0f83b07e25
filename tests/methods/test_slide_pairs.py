"""Mining among the pairs that slides allow: embeddings at known angles against plain double loops."""

import pytest
import torch
from pytorch_metric_learning import miners

from pcam_ssl.methods.metric import mine, slide_masks

# Patches 0..4: slide 0 holds a tumor and a normal patch, slide 1 a tumor and a normal patch, slide 2 a tumor patch alone.
LABELS = torch.tensor([1, 0, 1, 0, 1])
SLIDES = torch.tensor([0, 0, 1, 1, 2])
ANGLES = torch.deg2rad(torch.tensor([0.0, 11, 47, 20, 33, 5, 76, 58, 14, 90, 39, 25]))
POINTS = torch.stack([ANGLES.cos(), ANGLES.sin()], 1)
TWELVE = (torch.arange(12) % 2, torch.tensor([0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 3]))
MINERS = ["batch_hard", "semihard", "hard", "multi_similarity"]


def pairs(mask) -> set[tuple[int, int]]:
    return set(zip(*(part.tolist() for part in torch.where(mask)), strict=True))


def options(miner: str) -> dict:
    return {"miner": miner, "triplet_margin": 0.2, "miner_epsilon": 0.05}


def as_tuples(mined) -> set:
    """{(anchor, positive, negative)}, or for pairs {("positive" or "negative", anchor, other)}."""
    lists = [part.tolist() for part in mined]
    if len(lists) == 3:
        return set(zip(*lists, strict=True))
    kinds = (("positive", lists[:2]), ("negative", lists[2:]))
    return {(kind, a, b) for kind, ends in kinds for a, b in zip(*ends, strict=True)}


def by_loops(miner: str, positive, negative) -> set:
    """The rule of each miner, an anchor at a time."""
    distance = [[float((a - b).norm()) for b in POINTS] for a in POINTS]
    cosine = [[float(a @ b) for b in POINTS] for a in POINTS]
    found = set()
    for a in range(12):
        near = [b for b in range(12) if positive[a, b]]
        far = [b for b in range(12) if negative[a, b]]
        if not near or not far:
            continue
        if miner == "batch_hard":
            found.add((a, max(near, key=lambda b: distance[a][b]), min(far, key=lambda b: distance[a][b])))
        elif miner == "multi_similarity":
            found |= {("positive", a, p) for p in near if cosine[a][p] - 0.05 < max(cosine[a][n] for n in far)}
            found |= {("negative", a, n) for n in far if cosine[a][n] + 0.05 > min(cosine[a][p] for p in near)}
        else:
            gaps = {(a, p, n): distance[a][n] - distance[a][p] for p in near for n in far}
            found |= {triplet for triplet, gap in gaps.items() if (gap <= 0 if miner == "hard" else 0 < gap <= 0.2)}
    return found


def test_positives_come_from_other_slides():
    positive, _ = slide_masks(LABELS, SLIDES)
    assert pairs(positive) == {(0, 2), (0, 4), (2, 0), (2, 4), (4, 0), (4, 2), (1, 3), (3, 1)}


def test_negatives_come_from_the_own_slide_where_it_has_any():
    _, negative = slide_masks(LABELS, SLIDES)
    assert {pair for pair in pairs(negative) if pair[0] != 4} == {(0, 1), (1, 0), (2, 3), (3, 2)}


def test_an_anchor_without_a_negative_on_its_slide_takes_those_of_all_slides():
    _, negative = slide_masks(LABELS, SLIDES)
    assert {pair for pair in pairs(negative) if pair[0] == 4} == {(4, 1), (4, 3)}


def test_a_batch_of_one_slide_has_no_positive():
    positive, negative = slide_masks(LABELS, torch.zeros(5, dtype=torch.int64))
    assert not positive.any() and int(negative.sum()) == 12


def test_without_a_miner_every_allowed_pair_counts():
    positive, negative = slide_masks(LABELS, SLIDES)
    found = as_tuples(mine(POINTS[:5], positive, negative, options("none")))
    assert found == {("positive", *pair) for pair in pairs(positive)} | {("negative", *pair) for pair in pairs(negative)}


@pytest.mark.parametrize("miner", MINERS)
def test_each_miner_applies_its_rule_to_the_allowed_pairs(miner):
    allowed = slide_masks(*TWELVE)
    expected = by_loops(miner, *allowed)
    assert expected and as_tuples(mine(POINTS, *allowed, options(miner))) == expected


@pytest.mark.parametrize("miner", MINERS)
def test_with_all_pairs_allowed_the_miners_equal_those_of_the_library(miner):
    labels, _ = TWELVE
    same = labels[:, None] == labels[None]
    built = {
        "batch_hard": miners.BatchHardMiner(),
        "semihard": miners.TripletMarginMiner(margin=0.2, type_of_triplets="semihard"),
        "hard": miners.TripletMarginMiner(margin=0.2, type_of_triplets="hard"),
        "multi_similarity": miners.MultiSimilarityMiner(epsilon=0.05),
    }
    theirs = as_tuples(built[miner](POINTS, labels))
    assert theirs and as_tuples(mine(POINTS, same & ~torch.eye(12, dtype=torch.bool), ~same, options(miner))) == theirs


def test_batch_hard_gives_every_possible_anchor_a_triplet():
    generator = torch.Generator().manual_seed(3)
    embedding = torch.nn.functional.normalize(torch.randn(64, 8, generator=generator))
    positive, negative = slide_masks(torch.arange(64) % 2, torch.randint(0, 12, (64,), generator=generator))
    anchors = mine(embedding, positive, negative, options("batch_hard"))[0]
    assert anchors.tolist() == torch.where(positive.any(1) & negative.any(1))[0].tolist()
    assert len(anchors) > 60


def test_one_slide_gives_no_triplets():
    allowed = slide_masks(LABELS, torch.zeros(5, dtype=torch.int64))
    assert [len(part) for part in mine(POINTS[:5], *allowed, options("batch_hard"))] == [0, 0, 0]
