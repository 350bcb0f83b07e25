"""Metric learning: an embedding in which patches of a class lie together, beside or instead of the classifier."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning import losses, miners
from torch import nn
from torch.nn import functional

from pcam_ssl.distributed import gather_with_gradient
from pcam_ssl.methods.slide_pairs import mine, slide_masks
from pcam_ssl.models.network import Network

CLASSES = 2
# Losses that compare patches with each other; the rest compare patches with learned class vectors.
PAIR_LOSSES = ("triplet", "supcon", "multi_similarity")


class Metric(nn.Module):
    """Classification loss + `weight` x metric loss on the unit-length embedding (or the metric loss alone, `classify=False`).

    The batch holds `pixels` uint8 `[B, H, W, 3]`, `label` float `[B]`, and `slide` int `[B]`; `weight` float
    `[B]`, where given, counts in the classification loss alone, and soft labels are rounded for the metric loss. The result holds `loss` (scalar)
    and `logit` `[B]`. Batches hold both classes equally often whatever the slides' true share, so the classifier learns on
    logits shifted by the training labels' log odds: its own logits then mean the true share (Menon et al. 2021, arXiv:2007.07314).
    Under several processes the embeddings are gathered, so that the metric loss is that of the whole batch.
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
            # Processes that train together wait for the gradient of every parameter that asks for one.
            network.head.requires_grad_(False)

    @classmethod
    def build(cls, network: Network, labels: np.ndarray, **options: Any) -> "Metric":
        """From the keys of the recipe's method section; `labels` `[n]` are the fold's training labels."""
        share = float(labels.mean())
        return cls(
            network,
            build_loss(options, network.embedding_size),
            build_miner(options),
            options["weight"],
            options["classify"],
            float(np.log(share / (1 - share))),
        )

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        out = self.network(batch["pixels"])
        # The library moves its class vectors to the embedding's dtype: bf16 would round them at every step.
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


def build_loss(options: dict[str, Any], embedding_size: int) -> nn.Module:
    """The loss `options['loss']`, every hyper-parameter given.

    arcface (Deng et al. 2019, arXiv:1801.07698), subcenter_arcface (Deng et al. 2020), triplet (Schroff et al. 2015,
    arXiv:1503.03832), supcon (Khosla et al. 2020, arXiv:2004.11362), multi_similarity (Wang et al. 2019, arXiv:1904.06627),
    proxy_anchor (Kim et al. 2020, arXiv:2003.13911).
    """
    classes = {"num_classes": CLASSES, "embedding_size": embedding_size}
    angular = {**classes, "margin": options["margin_deg"], "scale": options["scale"]}
    builders = {
        "arcface": lambda: losses.ArcFaceLoss(**angular),
        "subcenter_arcface": lambda: losses.SubCenterArcFaceLoss(**angular, sub_centers=options["sub_centers"]),
        "triplet": lambda: losses.TripletMarginLoss(margin=options["triplet_margin"]),
        "supcon": lambda: losses.SupConLoss(temperature=options["temperature"]),
        "multi_similarity": lambda: losses.MultiSimilarityLoss(
            alpha=options["ms_alpha"], beta=options["ms_beta"], base=options["ms_base"]
        ),
        "proxy_anchor": lambda: losses.ProxyAnchorLoss(**classes, margin=options["proxy_margin"], alpha=options["proxy_alpha"]),
    }
    return builders[options["loss"]]()


def build_miner(options: dict[str, Any]) -> Callable | None:
    """What chooses pairs or triplets from (embedding, label, slide): the library's miner `options['miner']`, or with `slide_aware` the
    same rule among the pairs that slides allow; None where every pair of a batch counts."""
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
