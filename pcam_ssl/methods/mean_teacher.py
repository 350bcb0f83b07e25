"""Mean teacher: the student is trained to agree with a teacher, the moving average of its own weights."""

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pcam_ssl.models.network import Network


class MeanTeacher(nn.Module):
    """Mean teacher (Tarvainen and Valpola 2017, arXiv:1703.01780) for one logit.

    Loss = BCE on labels + `weight` x ramp x mean squared difference between the student's prob of the strong view and the teacher's
    prob of the weak view. As in the paper, the teacher gets no gradient, runs with its own dropout and batch statistics, and is
    the network that is evaluated and kept. With `train.ema_decay` the loop's own average is kept instead. Deviations:
    the consistency loss is on unlabelled patches only, and the teacher is updated at the start of a step, one step behind the student.

    The batch holds `pixels` uint8 `[B, H, W, 3]`, `label` float `[B]`, `weak` and `strong` uint8 `[U, H, W, 3]`, `ramp` (scalar), and
    with weighted patches `weight` float `[B]`. The result holds `loss` (scalar) and `logit` `[B]`.
    """

    def __init__(self, network: Network, weight: float = 1.0, decay: float = 0.99):
        super().__init__()
        self.network, self.weight, self.decay = network, weight, decay
        self.teacher = deepcopy(network).requires_grad_(False)
        self.register_buffer("updates", torch.tensor(0))

    @classmethod
    def build(cls, network: Network, labels: np.ndarray, *, weight: float, decay: float, **stream: Any) -> "MeanTeacher":
        """The method from the keys of the recipe's method section; the keys in `stream` only affect the batches."""
        return cls(network, weight, decay)

    @property
    def evaluated(self) -> Network:
        """The network to evaluate and keep, unless the loop keeps its own average."""
        return self.teacher

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        n_labelled, n_unlabelled = len(batch["pixels"]), len(batch["weak"])
        with torch.no_grad():
            self._follow()
            # Labelled patches too: the teacher's batch norms must see what the student's see.
            target = self.teacher(torch.cat([batch["pixels"], batch["weak"]]))["logit"][n_labelled:].sigmoid()
        logits = self.network(torch.cat([batch["pixels"], batch["strong"]]))["logit"]
        logit, strong = logits.split([n_labelled, n_unlabelled])
        supervised = functional.binary_cross_entropy_with_logits(logit, batch["label"], batch.get("weight"))
        consistency = functional.mse_loss(strong.sigmoid(), target)
        return {"loss": supervised + self.weight * batch["ramp"] * consistency, "logit": logit}

    def _follow(self) -> None:
        """Move the teacher towards the student by a share of 1, 1/2, 1/3, ... (a plain mean), but at least 1 - `decay`."""
        share = (1 / (self.updates + 1)).clamp(min=1 - self.decay)
        for mine, theirs in zip(self.teacher.parameters(), self.network.parameters(), strict=True):
            mine.lerp_(theirs, share)
        self.updates += 1
