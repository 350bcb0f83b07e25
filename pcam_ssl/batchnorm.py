"""Batch norm over the whole batch of several processes, so that the number of processes changes no number."""

import torch
from torch import nn
from torch.nn import functional

from pcam_ssl.distributed import sum_over_processes


class WorldBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose training statistics are those of all processes' equal shares; works on CPU, where torch's SyncBatchNorm does not.

    Also stands in for timm's `BatchNormAct2d`, whose dropout and activation it keeps.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.training:
            normed = functional.batch_norm(
                images, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        else:
            normed = self._normalise(images.float()).to(images.dtype)
        return self.act(self.drop(normed)) if hasattr(self, "act") else normed

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        size = torch.distributed.get_world_size()
        # Two passes: E[x^2] - E[x]^2 would lose the digits that world-size invariance asks for.
        mean = sum_over_processes(images.mean((0, 2, 3))) / size
        centred = images - mean[:, None, None]
        variance = sum_over_processes(centred.square().mean((0, 2, 3))) / size
        with torch.no_grad():
            count = images.numel() / images.shape[1] * size
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = (variance + self.eps).rsqrt() * self.weight
        return centred * scale[:, None, None] + self.bias[:, None, None]


def share_batch_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """The module with its batch norms made to see every process's patches; parameter names stay as they are."""
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(module)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.__class__ = WorldBatchNorm2d
    return module
