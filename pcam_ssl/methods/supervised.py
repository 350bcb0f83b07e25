"""Supervised training: binary cross-entropy or focal loss on the logit."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from pcam_ssl.models.network import Network


class Supervised(nn.Module):
    """Binary cross-entropy with optional `pos_weight` and label smoothing, or focal loss (Lin et al. 2017, arXiv:1708.02002, without its alpha).

    The batch holds `pixels` uint8 `[B, H, W, 3]`, `label` float `[B]`, and with weighted patches `weight` float `[B]`.
    The result holds `loss` (scalar) and `logit` `[B]`.
    """

    def __init__(
        self,
        network: Network,
        loss: str = "bce",
        pos_weight: float | None = None,
        label_smoothing: float = 0.0,
        focal_gamma: float = 2.0,
    ):
        super().__init__()
        self.network = network
        self.loss, self.label_smoothing, self.focal_gamma = loss, label_smoothing, focal_gamma
        self.register_buffer("pos_weight", torch.tensor(1.0 if pos_weight is None else pos_weight))

    @classmethod
    def build(cls, network: Network, labels: np.ndarray, pos_weight: float | str | None = None, **options) -> "Supervised":
        """The method from the keys of the recipe's method section. `pos_weight` "auto" is negatives / positives of the training labels."""
        if pos_weight == "auto":
            pos_weight = float((labels == 0).sum() / (labels == 1).sum())
        return cls(network, pos_weight=pos_weight, **options)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        logit = self.network(batch["pixels"])["logit"]
        # Weighting tumor patches shifts the optimal logits by log(pos_weight). The loss is computed on shifted logits, so that the
        # network's own logits match the true share.
        shifted = logit + self.pos_weight.log()
        target = batch["label"] * (1 - self.label_smoothing) + self.label_smoothing / 2
        if self.loss == "focal":
            weight = torch.where(batch["label"] > 0.5, self.pos_weight, 1.0) * batch.get("weight", 1.0)
            return {"loss": (weight * sigmoid_focal_loss(shifted, target, alpha=-1, gamma=self.focal_gamma)).mean(), "logit": logit}
        loss = functional.binary_cross_entropy_with_logits(shifted, target, batch.get("weight"), pos_weight=self.pos_weight)
        return {"loss": loss, "logit": logit}
