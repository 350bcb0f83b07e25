"""Pairs that make stain no shortcut: positives from other slides, negatives from the anchor's own slide where it has any."""

from typing import Any

import torch


def slide_masks(labels: torch.Tensor, slides: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which patches may be an anchor's positives and which its negatives, bool `[B, B]` each (row: anchor), of `labels` `[B]` and `slides` (codes) `[B]`.

    A positive has the anchor's label and another slide. A negative has another label, and the anchor's slide if the batch
    holds such a patch; an anchor whose slide holds none takes the negatives of all slides.
    """
    same_label = labels[:, None] == labels[None]
    same_slide = slides[:, None] == slides[None]
    near = ~same_label & same_slide
    return same_label & ~same_slide, torch.where(near.any(1, keepdim=True), near, ~same_label)


@torch.no_grad()
def mine(
    embedding: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, options: dict[str, Any]
) -> tuple[torch.Tensor, ...]:
    """What `options['miner']` takes of the allowed pairs: (anchor, positive, negative), or (a1, positive, a2, negative) for pair miners.

    The rules are those of pytorch-metric-learning's miners, on embeddings of unit length `[B, D]`. Its miners take labels alone; what they choose
    among all pairs is seldom allowed here, so choosing first and dropping afterwards leaves most anchors without a triplet.
    """
    if options["miner"] == "none":
        return (*torch.where(positive), *torch.where(negative))
    if options["miner"] == "multi_similarity":
        return _multi_similarity(embedding @ embedding.T, positive, negative, options["miner_epsilon"])
    distance = torch.cdist(embedding, embedding)
    if options["miner"] == "batch_hard":
        return _batch_hard(distance, positive, negative)
    return _margin(distance, positive, negative, options["triplet_margin"], options["miner"])


def _batch_hard(distance: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The farthest positive and the nearest negative of every anchor that has both (Hermans et al. 2017, arXiv:1703.07737)."""
    (anchor,) = torch.where(positive.any(1) & negative.any(1))
    farthest = distance.masked_fill(~positive, -torch.inf).argmax(1)
    nearest = distance.masked_fill(~negative, torch.inf).argmin(1)
    return anchor, farthest[anchor], nearest[anchor]


def _margin(
    distance: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, margin: float, rule: str
) -> tuple[torch.Tensor, ...]:
    """Triplets whose negative is nearer than the positive (hard), or farther by at most `margin` (semihard)."""
    anchor, near = torch.where(positive)
    gap = distance[anchor] - distance[anchor, near][:, None]  # [pairs, B]
    wanted = gap <= 0 if rule == "hard" else (gap > 0) & (gap <= margin)
    pair, far = torch.where(negative[anchor] & wanted)
    return anchor[pair], near[pair], far


def _multi_similarity(
    cosine: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, ...]:
    """Positives less like the anchor than its likest negative, and negatives liker than its unlikest positive, within `epsilon` (Wang et al. 2019)."""
    likest = cosine.masked_fill(~negative, -torch.inf).amax(1, keepdim=True)
    unlikest = cosine.masked_fill(~positive, torch.inf).amin(1, keepdim=True)
    return (*torch.where(positive & (cosine - epsilon < likest)), *torch.where(negative & (cosine + epsilon > unlikest)))
