"""Pairs that make stain no shortcut: positives from other slides, negatives from the anchor's own slide where it has any."""

import torch


def slide_pairs(labels: torch.Tensor, slides: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Anchor-positive and anchor-negative indices (a1, p, a2, n) in a batch of `labels` `[B]` and `slides` (codes) `[B]`.

    A positive has the anchor's label and another slide. A negative has another label, and the anchor's slide if the batch
    holds such a patch; an anchor whose slide holds none takes the negatives of all slides.
    """
    same_label = labels[:, None] == labels[None]
    same_slide = slides[:, None] == slides[None]
    positive = same_label & ~same_slide
    near = ~same_label & same_slide
    negative = torch.where(near.any(1, keepdim=True), near, ~same_label)
    return (*torch.where(positive), *torch.where(negative))


def keep_slide_pairs(mined: tuple, pairs: tuple, n: int) -> tuple:
    """The mined pairs or triplets that `pairs` of a batch of `n` allow too; pairs stay pairs and triplets stay triplets."""
    positive, negative = (_matrix(a, b, n) for a, b in (pairs[:2], pairs[2:]))
    if len(mined) == 3:
        anchor, pos, neg = mined
        kept = positive[anchor, pos] & negative[anchor, neg]
        return anchor[kept], pos[kept], neg[kept]
    a1, pos, a2, neg = mined
    kept_pos, kept_neg = positive[a1, pos], negative[a2, neg]
    return a1[kept_pos], pos[kept_pos], a2[kept_neg], neg[kept_neg]


def _matrix(rows: torch.Tensor, columns: torch.Tensor, n: int) -> torch.Tensor:
    allowed = torch.zeros(n, n, dtype=torch.bool, device=rows.device)
    allowed[rows, columns] = True
    return allowed
