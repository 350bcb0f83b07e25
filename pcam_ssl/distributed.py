"""Several processes (`torchrun`): rank, size, device, gather, errors on all of them, and batch norm over the batch of all processes."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pcam_ssl.errors import UserError


@dataclass(frozen=True)
class World:
    """One process among `size`. With one process every method returns its input."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files and messages."""
        return self.rank == 0

    @property
    def loader_workers(self) -> int:
        """Number of loader processes: the process's share of the cores beside a GPU, 0 on CPU, where loaders would compete with training."""
        return min(12, max(1, (os.cpu_count() or 1) // self.size - 1)) if self.device.type == "cuda" else 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over processes. Its batch norms must already be shared (`share_batch_norms`)."""
        if self.size == 1 or not any(parameter.requires_grad for parameter in module.parameters()):
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        with warnings.catch_warnings():
            # torch 2.15 renames broadcast_buffers; older versions do not have the new name.
            warnings.simplefilter("ignore", FutureWarning)
            return nn.parallel.DistributedDataParallel(
                module, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Mean of a tensor over processes."""
        if self.size == 1:
            return value
        value = value.detach().clone()
        torch.distributed.all_reduce(value)
        return value / self.size

    def gather(self, value: Any) -> list[Any]:
        """The values (picklable) of all processes, in rank order, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def run_on_main(self, work: Callable[[], Any]) -> Any:
        """Call `work` in rank 0 only and return its picklable result on every process; its UserError is raised on every process. A barrier."""
        if self.size == 1:
            return work()
        outcome = [None, None]
        if self.is_main:
            try:
                outcome[0] = work()
            except UserError as error:
                outcome[1] = error
        torch.distributed.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise self.agreed(outcome[1])
        return outcome[0]

    def run_on_all(self, work: Callable[[], Any]) -> Any:
        """Call `work` on every process and return its result. Where it raises UserErrors, all processes raise the first. A barrier."""
        if self.size == 1:
            return work()
        result, error = None, None
        try:
            result = work()
        except UserError as problem:
            error = problem
        first = next((each for each in self.gather(error) if each is not None), None)
        if first is not None:
            raise self.agreed(first)
        return result

    def agreed(self, error: UserError) -> UserError:
        """Mark an error that every process raises at the same place, so that only rank 0 prints it."""
        error.told = not self.is_main
        return error

    def share(self, total: int, what: str) -> int:
        """`total` divided by the number of processes; `what` names it in the error. Raises UserError where it does not divide."""
        if total % self.size:
            raise self.agreed(
                UserError(f"{what} is {total}, which {self.size} processes cannot share evenly; make it a multiple of {self.size}")
            )
        return total // self.size


def join_world(device: str = "auto") -> World:
    """The World that `torchrun` describes in the environment, or a world of one process. Raises UserError for an absent device."""
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), own_rank()
    chosen = choose_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(chosen)
    if size > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return World(rank, size, chosen)


def alone(device: str = "auto") -> World:
    """This process as a world of its own, also under `torchrun`. Raises UserError for an absent device."""
    return World(0, 1, choose_device(device))


def own_rank() -> int:
    """The rank of this process under `torchrun`, else 0."""
    return int(os.environ.get("RANK", 0))


def choose_device(device: str = "auto") -> torch.device:
    """The named device; for `auto` the first available of CUDA, Apple MPS and CPU. Raises UserError where the device is absent."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, present in available.items() if present))
    if not available[device]:
        raise UserError(f"train.device: {device} is not available here; set train.device=auto (`pcam-ssl doctor` shows what is)")
    return torch.device(device)


def gather_with_gradient(value: torch.Tensor) -> torch.Tensor:
    """The equal shares `[b, ...]` of all processes as one `[B, ...]`, on every process; gradients flow back to the shares.

    Each process then computes the loss of the whole batch. The mean of the gradients over processes is the gradient of that loss.
    """
    if not (torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1):
        return value
    parts = [torch.zeros_like(value) for _ in range(torch.distributed.get_world_size())]
    parts[torch.distributed.get_rank()] = value
    return sum_over_processes(torch.cat(parts))


def all_shares(value: torch.Tensor) -> list[torch.Tensor]:
    """The equal shares `[b, ...]` of all processes, in rank order, on every process, without gradient."""
    if not (torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1):
        return [value.detach()]
    value = value.detach().contiguous()
    parts = [torch.empty_like(value) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, value)
    return parts


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over processes, on every process; the backward pass sums gradients too."""
    return _Sum.apply(value)


class _Sum(torch.autograd.Function):
    """`torch.distributed.nn.functional.all_reduce`. torch 2.15 deprecates that one, and torch 2.6 lacks its replacement."""

    @staticmethod
    def forward(ctx, value: torch.Tensor) -> torch.Tensor:
        total = value.detach().clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total


class WorldBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with training statistics over the batches of all processes. Unlike torch's SyncBatchNorm it runs on CPU.

    It also replaces timm's `BatchNormAct2d` and keeps its dropout and activation.
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
        # Two passes: E[x^2] - E[x]^2 loses digits that world-size invariance needs.
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
    """The module with batch norms that use the patches of all processes. Parameter names do not change."""
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(module)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.__class__ = WorldBatchNorm2d
    return module
