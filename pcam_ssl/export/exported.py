"""What an ONNX file of a run computes: uint8 patches in; logit, calibrated prob and, of one network, embedding out."""

from dataclasses import dataclass

import torch
from torch import nn

from pcam_ssl.models.inference import dihedral
from pcam_ssl.models.network import Network

VIEWS = 8


@dataclass(frozen=True)
class Member:
    """A network of a run, in float32 on the CPU."""

    unit: str
    network: Network
    digest: str
    """Of its weights."""


class Exported(nn.Module):
    """One network, or the mean of several, with calibration inside; `d4` scores all eight D4 views, `space` says where they are averaged.

    The mean of several is that of `predict`: of logits, and `temperature` makes a prob of it. Several networks have no embedding in
    common, so none is given. The embedding is that of the patch as it is, whatever the views: what `embed` writes.
    """

    def __init__(self, members: list[Member], temperature: float, d4: bool = False, space: str = "logit"):
        super().__init__()
        self.networks = nn.ModuleList(member.network for member in members)
        self.temperature, self.d4, self.space = temperature, d4, space

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `forward` returns."""
        return ("logit", "prob", "embedding") if len(self.networks) == 1 else ("logit", "prob")

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """uint8 `[B, H, W, 3]` to logit `[B]` and calibrated prob `[B]` of class 1, and of one network the embedding `[B, D]`."""
        views = torch.cat([dihedral(pixels, element) for element in range(VIEWS)]) if self.d4 else pixels
        said = [network(views) for network in self.networks]
        logits = [self._over_views(each["logit"]) for each in said]
        logit = torch.stack(logits).mean(0)
        scores = logit, torch.sigmoid(logit / self.temperature)
        return (*scores, said[0]["embedding"][: pixels.shape[0]]) if len(said) == 1 else scores

    def _over_views(self, logits: torch.Tensor) -> torch.Tensor:
        if not self.d4:
            return logits
        logits = logits.view(VIEWS, -1)
        if self.space == "logit":
            return logits.mean(0)
        return torch.special.logit(torch.sigmoid(logits).mean(0), eps=1e-7)
