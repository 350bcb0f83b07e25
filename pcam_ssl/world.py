"""Processes that train together (`torchrun`): rank, size, device, wrap, mean, gather. The only place that knows."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed.nn.functional
from torch import nn

from pcam_ssl.errors import UserError


@dataclass(frozen=True)
class World:
    """One process among `size`; alone, every method is the identity."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """True in the one process that writes and talks."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over processes; its batch norms must see the whole batch (`models.batchnorm`)."""
        if self.size == 1 or not any(parameter.requires_grad for parameter in module.parameters()):
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Mean of a tensor over processes."""
        if self.size == 1:
            return value
        value = value.detach().clone()
        torch.distributed.all_reduce(value)
        return value / self.size

    def gather(self, value: Any) -> list[Any]:
        """The picklable values of all processes, in rank order, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def lead(self, work: Callable[[], Any]) -> Any:
        """Do `work` in the leader alone; its picklable result, or its UserError, reaches every process. Also a barrier."""
        if self.size == 1:
            return work()
        outcome = [None, None]
        if self.leads:
            try:
                outcome[0] = work()
            except UserError as error:
                outcome[1] = error
        torch.distributed.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise self.agreed(outcome[1])
        return outcome[0]

    def agreed(self, error: UserError) -> UserError:
        """An error that every process raises at the same place: the leader tells it for all."""
        error.told = not self.leads
        return error

    def share(self, total: int, what: str) -> int:
        """`total` over the processes. Raises UserError where it does not divide."""
        if total % self.size:
            raise self.agreed(
                UserError(f"{what} is {total}, which {self.size} processes cannot share evenly; make it a multiple of {self.size}")
            )
        return total // self.size


def join_world(device: str = "auto") -> World:
    """The world that `torchrun` set up in the environment, or a world of one. Raises UserError for a device that is not here."""
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    chosen = choose_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(chosen)
    if size > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return World(rank, size, chosen)


def choose_device(device: str = "auto") -> torch.device:
    """CUDA, then Apple MPS, then CPU; or the one named."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, present in here.items() if present))
    if not here[device]:
        raise UserError(f"train.device: {device} is not available here; set train.device=auto (`pcam-ssl doctor` shows what is)")
    return torch.device(device)


def gather_with_gradient(value: torch.Tensor) -> torch.Tensor:
    """The equal shares `[b, ...]` of all processes as one `[B, ...]`, on every process; gradients flow back to their shares.

    Each process then computes the same loss of the whole batch, and the mean of gradients over processes is its gradient.
    """
    if not (torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1):
        return value
    if not value.is_floating_point():
        parts = [torch.empty_like(value) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, value.contiguous())
        return torch.cat(parts)
    return torch.cat(torch.distributed.nn.functional.all_gather(value))
