"""MixMatch: guessed labels of unlabelled patches, and MixUp of all patches with each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pcam_ssl.distributed import all_shares
from pcam_ssl.models.network import Network


class MixMatch(nn.Module):
    """MixMatch (Berthelot et al. 2019, arXiv:1905.02249) for one logit.

    The guess for an unlabelled patch is the mean prob of its K = `views` views, without gradient, sharpened by `temperature`. Each patch
    of the batch is then mixed with another, labelled or not: share x own + (1 - share) x partner, pixels and targets alike. With a
    frozen backbone, features are mixed in place of pixels. Loss = BCE of mixed labelled patches + `weight` x ramp x mean squared difference between prob and target of mixed unlabelled
    patches. As in the reference implementation, guesses use the statistics of their own batch and leave the running ones of batch norms
    alone. Deviation: all mixed patches share one pass, so that batch norms see one distribution without interleaving.

    The batch holds `pixels` uint8 `[B, H, W, 3]`, `label` float `[B]`, `weak` uint8 `[K x U, H, W, 3]` (all first views, then all second
    ones), `ramp` (scalar), and for the B + K x U patches, labelled first, `share` float (0.5 to 1) and `partner` int, a place in
    the whole batch of all processes. With weighted patches it holds `weight` float `[B]`. The result holds `loss` (scalar) and
    `logit` `[B]`, of the mixed labelled patches.
    """

    def __init__(self, network: Network, weight: float = 1.0, temperature: float = 0.5, views: int = 2):
        super().__init__()
        self.network, self.weight, self.temperature, self.views = network, weight, temperature, views

    @classmethod
    def build(
        cls, network: Network, labels: np.ndarray, *, weight: float, temperature: float, views: int, **stream: Any
    ) -> "MixMatch":
        """The method from the keys of the recipe's method section; the keys in `stream` only affect the batches."""
        return cls(network, weight, temperature, views)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        n_labelled = len(batch["pixels"])
        patches = torch.cat([batch["pixels"], batch["weak"]])
        if self.network.backbone_frozen and patches.ndim == 4:
            # As with a cache of features: what is mixed is what is trained on.
            patches = self.network.features(patches)
        targets = torch.cat([batch["label"], self.guess(patches, n_labelled).repeat(self.views)])

        logits = self.network(self._mix(patches, batch))["logit"]
        targets = self._mix(targets, batch)

        supervised = functional.binary_cross_entropy_with_logits(logits[:n_labelled], targets[:n_labelled], batch.get("weight"))
        unlabelled = functional.mse_loss(logits[n_labelled:].sigmoid(), targets[n_labelled:])
        return {"loss": supervised + self.weight * batch["ramp"] * unlabelled, "logit": logits[:n_labelled]}

    @torch.no_grad()
    def guess(self, patches: torch.Tensor, n_labelled: int) -> torch.Tensor:
        """Sharpened probs `[U]` of the unlabelled among the patches. Labelled patches are shown too: batch norms must see what the mixed pass shows."""
        with _kept_statistics(self.network):
            logits = self.network(patches)["logit"][n_labelled:]
        prob = logits.view(self.views, -1).sigmoid().mean(0)
        # p^(1/T) / (p^(1/T) + (1 - p)^(1/T)) is the sigmoid of the logit divided by T.
        return (prob.logit(eps=1e-6) / self.temperature).sigmoid()

    def _mix(self, values: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """`values` `[B + K x U, ...]` of this process, each mixed with its partner of any process."""
        n_labelled = len(batch["label"])
        n_unlabelled = (len(values) - n_labelled) // self.views
        # A process holds its share of the labelled patches, of the first views, and so on; the whole batch is ordered by kind.
        parts = [part.split([n_labelled, *[n_unlabelled] * self.views]) for part in all_shares(values)]
        whole = torch.cat([piece for kind in zip(*parts, strict=True) for piece in kind])
        share = batch["share"].view(-1, *[1] * (values.ndim - 1))
        return share * values.float() + (1 - share) * whole[batch["partner"]].float()


@contextmanager
def _kept_statistics(network: nn.Module) -> Iterator[None]:
    """Batch norms normalise by their batch as in training, and their running statistics stay."""
    norms = [part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
