"""FixMatch: a confident prediction on a weak view is the pseudo-label of a strong view of the same patch."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pcam_ssl.models.network import Network


class FixMatch(nn.Module):
    """FixMatch (Sohn et al. 2020, arXiv:2001.07685) for one logit.

    Loss = BCE on labels + `weight` x ramp x consistency. The prob of the weak view, without gradient, gives a hard
    pseudo-label where it is at least `threshold` (tumor) or at most 1 - `threshold` (normal). The consistency loss is the BCE of the
    strong view to that label, averaged over all unlabelled patches of the step, so a few confident patches have little weight.

    The batch holds `pixels` uint8 `[B, H, W, 3]`, `label` float `[B]`, `weak` and `strong` uint8 `[U, H, W, 3]`, `ramp` (scalar), and
    with weighted patches `weight` float `[B]`. The result holds `loss` (scalar) and `logit` `[B]`.
    """

    def __init__(self, network: Network, weight: float = 1.0, threshold: float = 0.95):
        super().__init__()
        self.network, self.weight, self.threshold = network, weight, threshold

    @classmethod
    def build(cls, network: Network, labels: np.ndarray, *, weight: float, threshold: float, **stream: Any) -> "FixMatch":
        """The method from the keys of the recipe's method section; the keys in `stream` only affect the batches."""
        return cls(network, weight, threshold)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        n_labelled, n_unlabelled = len(batch["pixels"]), len(batch["weak"])
        # One pass, as in the reference implementations: batch norm must see labelled, weak and strong patches as one distribution.
        logits = self.network(torch.cat([batch["pixels"], batch["weak"], batch["strong"]]))["logit"]
        logit, weak, strong = logits.split([n_labelled, n_unlabelled, n_unlabelled])
        supervised = functional.binary_cross_entropy_with_logits(logit, batch["label"], batch.get("weight"))
        return {"loss": supervised + self.weight * batch["ramp"] * self.consistency(weak, strong), "logit": logit}

    def consistency(self, weak: torch.Tensor, strong: torch.Tensor) -> torch.Tensor:
        """The consistency loss (scalar) from the logits `[U]` of both views."""
        prob = weak.detach().sigmoid()
        confident = (prob >= self.threshold) | (prob <= 1 - self.threshold)
        losses = functional.binary_cross_entropy_with_logits(strong, (prob > 0.5).float(), reduction="none")
        return (losses * confident).mean()
