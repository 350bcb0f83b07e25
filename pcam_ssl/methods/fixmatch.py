"""FixMatch: what the network is sure of in a weak view, it must also see in a strong one."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pcam_ssl.models.network import Network


class FixMatch(nn.Module):
    """FixMatch (Sohn et al. 2020, arXiv:2001.07685) for one logit.

    Loss = BCE on labels + `weight` x ramp x consistency. The weak view's prob of class 1, without gradient, makes a hard
    pseudo-label where it is at least `threshold` (tumor) or at most 1 - `threshold` (normal); the strong view learns it by
    BCE, averaged over all unlabelled patches of the step, so that few sure ones weigh little.

    The batch holds `pixels` uint8 `[B, H, W, 3]`, `label` float `[B]`, where patches count unequally `weight` float
    `[B]`, `weak` and `strong` uint8 `[U, H, W, 3]`, and `ramp` (scalar); the result holds `loss` (scalar) and `logit` `[B]`.
    """

    def __init__(self, network: Network, weight: float = 1.0, threshold: float = 0.95):
        super().__init__()
        self.network, self.weight, self.threshold = network, weight, threshold

    @classmethod
    def build(cls, network: Network, labels: np.ndarray, *, weight: float, threshold: float, **stream: Any) -> "FixMatch":
        """From the keys of the recipe's method section; those of `stream` have shaped the batches."""
        return cls(network, weight, threshold)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        n_labelled, n_unlabelled = len(batch["pixels"]), len(batch["weak"])
        # One pass, as the reference implementations do: batch norm must see labelled, weak and strong as one distribution.
        logits = self.network(torch.cat([batch["pixels"], batch["weak"], batch["strong"]]))["logit"]
        logit, weak, strong = logits.split([n_labelled, n_unlabelled, n_unlabelled])
        supervised = functional.binary_cross_entropy_with_logits(logit, batch["label"], batch.get("weight"))
        return {"loss": supervised + self.weight * batch["ramp"] * self.consistency(weak, strong), "logit": logit}

    def consistency(self, weak: torch.Tensor, strong: torch.Tensor) -> torch.Tensor:
        """The unlabelled loss (scalar) from the logits `[U]` of both views."""
        prob = weak.detach().sigmoid()
        sure = (prob >= self.threshold) | (prob <= 1 - self.threshold)
        losses = functional.binary_cross_entropy_with_logits(strong, (prob > 0.5).float(), reduction="none")
        return (losses * sure).mean()
