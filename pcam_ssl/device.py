"""The number format and memory layout in which a device computes fastest, and why it was chosen; how much memory it has."""

import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import torch

from pcam_ssl.errors import UserError


@dataclass(frozen=True)
class Precision:
    """`name` is fp32, bf16 or fp16; `channels_last` is the memory layout; `why` gives the reason in words."""

    name: str
    channels_last: bool
    why: str

    def autocast(self, device: torch.device):
        """A context manager; the network runs inside it."""
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[self.name])

    def to_dict(self) -> dict:
        return asdict(self)


def choose_precision(device: torch.device, name: str = "auto", channels_last: bool | str = "auto") -> Precision:
    """The Precision of a device, with `auto` resolved. Raises UserError for fp16 on a device other than CUDA."""
    chosen, why = _fast_format(device) if name == "auto" else (name, "asked for")
    if chosen == "fp16" and device.type != "cuda":
        raise UserError(f"train.precision: fp16 needs a CUDA device, this is {device.type}; use bf16, fp32 or auto")
    # Measured on a 2-core CPU (resnet34, 96 px): channels_last alone 1.37 x, with bf16 2.5 x the images/s. bf16 also was the faster
    # format for ten other backbones (BENCHMARKS.md), so that no run has to try first.
    layout = device.type in ("cuda", "cpu") if channels_last == "auto" else bool(channels_last)
    return Precision(chosen, layout, why)


def device_memory(device: torch.device) -> int:
    """Bytes of memory that the device has in all; of a CPU that of the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _fast_format(device: torch.device) -> tuple[str, str]:
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return "bf16", "the GPU has bf16 units"
        return "fp16", "the GPU has fp16 units but none for bf16"
    if device.type == "cpu":
        if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
            return "bf16", "the CPU has bf16 instructions"
        return "fp32", "the CPU has no bf16 instructions"
    return "fp32", f"nothing else is tested on {device.type}"
