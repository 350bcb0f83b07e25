"""Metric learning: an embedding in which patches of a class are close, together with the classifier or without it.

Slide-aware pairs take positives from other slides, and negatives from the anchor's own slide where it has any, so that stain is not
a shortcut.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning import losses, miners
from torch import nn
from torch.nn import functional

from pcam_ssl.distributed import gather_with_gradient
from pcam_ssl.models.network import Network

CLASSES = 2
Builder = Callable[[dict[str, Any], int], nn.Module]
"""Builds a loss from the keys of the recipe's method section, with every hyper-parameter given, and the size of the embedding."""


def _classes(embedding_size: int) -> dict[str, int]:
    return {"num_classes": CLASSES, "embedding_size": embedding_size}


def _angular(options: dict[str, Any], embedding_size: int) -> dict[str, Any]:
    return {**_classes(embedding_size), "margin": options["margin_deg"], "scale": options["scale"]}


EMBEDDING_LOSSES: dict[str, Builder] = {
    # Deng et al. 2019, arXiv:1801.07698
    "arcface": lambda options, size: losses.ArcFaceLoss(**_angular(options, size)),
    # Deng et al. 2020
    "subcenter_arcface": lambda options, size: losses.SubCenterArcFaceLoss(
        **_angular(options, size), sub_centers=options["sub_centers"]
    ),
    # Schroff et al. 2015, arXiv:1503.03832
    "triplet": lambda options, size: losses.TripletMarginLoss(margin=options["triplet_margin"]),
    # Khosla et al. 2020, arXiv:2004.11362
    "supcon": lambda options, size: losses.SupConLoss(temperature=options["temperature"]),
    # Wang et al. 2019, arXiv:1904.06627
    "multi_similarity": lambda options, size: losses.MultiSimilarityLoss(
        alpha=options["ms_alpha"], beta=options["ms_beta"], base=options["ms_base"]
    ),
    # Kim et al. 2020, arXiv:2003.13911
    "proxy_anchor": lambda options, size: losses.ProxyAnchorLoss(
        **_classes(size), margin=options["proxy_margin"], alpha=options["proxy_alpha"]
    ),
}
"""To add a loss, add an entry here and its name to `EMBEDDING_LOSSES` in `recipe/schema.py`, which says what the loss compares."""


class Metric(nn.Module):
    """Classification loss + `weight` x metric loss on the unit-length embedding. With `classify=False`, the metric loss only.

    The batch holds `pixels` uint8 `[B, H, W, 3]`, `label` float `[B]`, and `slide` int `[B]`. An optional `weight` float
    `[B]` applies to the classification loss only; soft labels are rounded for the metric loss. The result holds `loss` (scalar)
    and `logit` `[B]`. Batches hold both classes equally often, whatever the true share. So the classifier is trained on
    logits shifted by the log odds of the training labels, and its own logits match the true share (Menon et al. 2021, arXiv:2007.07314).
    With several processes the embeddings are gathered, and the metric loss is that of the whole batch.
    """

    def __init__(
        self,
        network: Network,
        loss: nn.Module,
        miner: Callable | None = None,
        weight: float = 1.0,
        classify: bool = True,
        log_odds: float = 0.0,
    ):
        super().__init__()
        self.network, self.metric_loss, self.miner = network, loss, miner
        self.weight, self.classify = weight, classify
        self.register_buffer("log_odds", torch.tensor(log_odds))
        if not classify:
            # With several processes, DDP waits for the gradient of every parameter that requires one.
            network.head.requires_grad_(False)

    @classmethod
    def build(cls, network: Network, labels: np.ndarray, **options: Any) -> "Metric":
        """The method from the keys of the recipe's method section; `labels` `[n]` are the fold's training labels."""
        share = float(labels.mean())
        return cls(
            network,
            EMBEDDING_LOSSES[options["loss"]](options, network.embedding_size),
            build_miner(options),
            options["weight"],
            options["classify"],
            float(np.log(share / (1 - share))),
        )

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        out = self.network(batch["pixels"])
        # The library casts its class vectors to the embedding's dtype, and bf16 would round them at every step.
        with torch.autocast(batch["pixels"].device.type, enabled=False):
            loss = self.weight * self._metric(out["embedding"].float(), (batch["label"] > 0.5).long(), batch["slide"])
            if self.classify:
                loss = loss + functional.binary_cross_entropy_with_logits(
                    out["logit"] - self.log_odds, batch["label"], batch.get("weight")
                )
        return {"loss": loss, "logit": out["logit"]}

    def _metric(self, embedding: torch.Tensor, label: torch.Tensor, slide: torch.Tensor) -> torch.Tensor:
        embedding, label, slide = (gather_with_gradient(value) for value in (embedding, label, slide))
        chosen = self.miner(embedding, label, slide) if self.miner is not None else None
        return self.metric_loss(embedding, label, chosen)


def build_miner(options: dict[str, Any]) -> Callable | None:
    """A function that chooses pairs or triplets from (embedding, label, slide); None where every pair of a batch counts.

    It is the library's miner `options['miner']`, or with `slide_aware` the same rule restricted to the pairs that slides allow.
    """
    if options["slide_aware"]:
        return lambda embedding, label, slide: mine(embedding, *slide_masks(label, slide), options)
    builders = {
        "multi_similarity": lambda: miners.MultiSimilarityMiner(epsilon=options["miner_epsilon"]),
        "batch_hard": lambda: miners.BatchHardMiner(),
        "semihard": lambda: miners.TripletMarginMiner(margin=options["triplet_margin"], type_of_triplets="semihard"),
        "hard": lambda: miners.TripletMarginMiner(margin=options["triplet_margin"], type_of_triplets="hard"),
    }
    if options["miner"] == "none":
        return None
    miner = builders[options["miner"]]()
    return lambda embedding, label, slide: miner(embedding, label)


def slide_masks(labels: torch.Tensor, slides: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The allowed positives and negatives of each anchor, bool `[B, B]` each (row: anchor), from `labels` `[B]` and `slides` (codes) `[B]`.

    A positive has the anchor's label and another slide. A negative has the other label and the anchor's slide; where the anchor's
    slide has no negative in the batch, those of all slides are allowed.
    """
    same_label = labels[:, None] == labels[None]
    same_slide = slides[:, None] == slides[None]
    own_negative = ~same_label & same_slide
    return same_label & ~same_slide, torch.where(own_negative.any(1, keepdim=True), own_negative, ~same_label)


@torch.no_grad()
def mine(
    embedding: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, options: dict[str, Any]
) -> tuple[torch.Tensor, ...]:
    """Indices chosen by `options['miner']` among the allowed pairs: (anchor, positive, negative), or (a1, positive, a2, negative) for pair miners.

    The rules are those of pytorch-metric-learning's miners, on embeddings of unit length `[B, D]`. The library's miners know labels
    only. The pairs they choose are seldom allowed here, so filtering their choice would leave most anchors without a triplet.
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
    anchor, chosen_positive = torch.where(positive)
    gap = distance[anchor] - distance[anchor, chosen_positive][:, None]  # [pairs, B]
    wanted = gap <= 0 if rule == "hard" else (gap > 0) & (gap <= margin)
    pair, chosen_negative = torch.where(negative[anchor] & wanted)
    return anchor[pair], chosen_positive[pair], chosen_negative


def _multi_similarity(
    cosine: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, ...]:
    """Pairs of the multi-similarity miner (Wang et al. 2019), with slack `epsilon`: positives less similar to the anchor than its
    hardest (most similar) negative, and negatives more similar than its hardest (least similar) positive."""
    hardest_negative = cosine.masked_fill(~negative, -torch.inf).amax(1, keepdim=True)
    hardest_positive = cosine.masked_fill(~positive, torch.inf).amin(1, keepdim=True)
    return (
        *torch.where(positive & (cosine - epsilon < hardest_negative)),
        *torch.where(negative & (cosine + epsilon > hardest_positive)),
    )
