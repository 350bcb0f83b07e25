"""Mean teacher: the student must agree with the moving average of its own weights."""

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pcam_ssl.models.network import Network


class MeanTeacher(nn.Module):
    """Mean teacher (Tarvainen and Valpola 2017, arXiv:1703.01780) for one logit.

    Loss = BCE on labels + `weight` x ramp x mean squared difference of the student's prob of the strong view and the teacher's
    of the weak one. As in the paper the teacher trains no weight, runs with dropout and batch statistics of its own, and is
    what is evaluated and kept, unless the loop keeps an average of its own (`train.ema_decay`): then that one is. Deviations:
    only unlabelled patches must agree, and the teacher follows at the start of a step, so it ends one step behind the student.

    The batch holds `pixels` uint8 `[B, H, W, 3]`, `label` float `[B]`, where patches count unequally `weight` float
    `[B]`, `weak` and `strong` uint8 `[U, H, W, 3]`, and `ramp` (scalar); the result holds `loss` (scalar) and `logit` `[B]`.
    """

    def __init__(self, network: Network, weight: float = 1.0, decay: float = 0.99):
        super().__init__()
        self.network, self.weight, self.decay = network, weight, decay
        self.teacher = deepcopy(network).requires_grad_(False)
        self.register_buffer("updates", torch.tensor(0))

    @classmethod
    def build(cls, network: Network, labels: np.ndarray, *, weight: float, decay: float, **stream: Any) -> "MeanTeacher":
        """From the keys of the recipe's method section; those of `stream` have shaped the batches."""
        return cls(network, weight, decay)

    @property
    def evaluated(self) -> Network:
        """The weights to evaluate and keep where the loop averages none."""
        return self.teacher

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        n_labelled, n_unlabelled = len(batch["pixels"]), len(batch["weak"])
        with torch.no_grad():
            self._follow()
            # Labelled patches too: the teacher's batch norms must know what the student's know.
            taught = self.teacher(torch.cat([batch["pixels"], batch["weak"]]))["logit"][n_labelled:].sigmoid()
        logits = self.network(torch.cat([batch["pixels"], batch["strong"]]))["logit"]
        logit, strong = logits.split([n_labelled, n_unlabelled])
        supervised = functional.binary_cross_entropy_with_logits(logit, batch["label"], batch.get("weight"))
        consistency = functional.mse_loss(strong.sigmoid(), taught)
        return {"loss": supervised + self.weight * batch["ramp"] * consistency, "logit": logit}

    def _follow(self) -> None:
        """Move the teacher towards the student: by 1, 1/2, 1/3, ... (a plain mean) until that is less than 1 - `decay`."""
        share = (1 / (self.updates + 1)).clamp(min=1 - self.decay)
        for mine, theirs in zip(self.teacher.parameters(), self.network.parameters(), strict=True):
            mine.lerp_(theirs, share)
        self.updates += 1
