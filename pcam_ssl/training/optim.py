"""Optimizers and learning-rate schedules from the options of a recipe."""

import math
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

NAMES = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def build_optimizer(module: nn.Module, options: dict[str, Any], device: torch.device) -> torch.optim.Optimizer:
    """The optimizer `options['name']` for the parameters of a module.

    Biases and norms (parameters of one dimension) and the parameters of timm's `no_weight_decay()` get no weight decay. Plain Adam
    decays all parameters, as published.
    """
    options = dict(options)
    name = options.pop("name")
    if name != "sgd":
        options["betas"] = (options.pop("beta1"), options.pop("beta2"))
    decay = options.pop("weight_decay")
    patterns = _without_decay(module)
    groups = [{"params": [], "weight_decay": decay}, {"params": [], "weight_decay": 0.0}]
    for place, parameter in module.named_parameters():
        undecayed = name != "adam" and (parameter.ndim <= 1 or any(fnmatchcase(place, pattern) for pattern in patterns))
        groups[undecayed]["params"].append(parameter)
    # torch's fused SGD needs momentum for all parameters or for none, so it fails where some join later (head_first_epochs).
    fused = True if name != "sgd" and device.type in ("cuda", "cpu") else None
    return NAMES[name]([group for group in groups if group["params"]], fused=fused, **options)


def _without_decay(module: nn.Module) -> list[str]:
    """Names, or name patterns, of the parameters (position embeddings, tokens) that the backbones in `module` exempt from weight decay."""
    inside = [(place, part.no_weight_decay()) for place, part in module.named_modules() if hasattr(part, "no_weight_decay")]
    return [f"{place}.{name}".lstrip(".") for place, names in inside for name in names]


class Schedule:
    """Learning rate by step. It is a pure function of the step, except for `plateau`, which also depends on the inner losses.

    `one_cycle` is Smith and Topin 2018 (arXiv:1708.07120) with cosine arcs and without the momentum cycle;
    `cyclic` is the triangular policy of Smith 2017 (arXiv:1506.01186).
    """

    def __init__(self, options: dict[str, Any], lr: float, epochs: int, steps_per_epoch: int):
        self.options, self.lr = options, lr
        self.steps_per_epoch, self.total = steps_per_epoch, epochs * steps_per_epoch
        self.scale, self.best, self.waited = 1.0, math.inf, 0

    def at(self, step: int) -> float:
        """Learning rate of step 0 .. total - 1."""
        warmup = self.options.get("warmup_epochs", 0) * self.steps_per_epoch
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        return self.lr * rise * getattr(self, f"_{self.options['name']}")(step)

    def epoch_end(self, inner_loss: float) -> None:
        """Pass the inner loss after an epoch; only `plateau` uses it."""
        if self.options["name"] != "plateau":
            return
        if inner_loss < self.best:
            self.best, self.waited = inner_loss, 0
            return
        self.waited += 1
        if self.waited > self.options["patience"]:
            self.scale, self.waited = max(self.scale * self.options["factor"], self.options["min_factor"]), 0

    def state_dict(self) -> dict[str, float]:
        return {"scale": self.scale, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale, self.best, self.waited = state["scale"], state["best"], state["waited"]

    def _constant(self, step: int) -> float:
        return 1.0

    def _plateau(self, step: int) -> float:
        return self.scale

    def _one_cycle(self, step: int) -> float:
        peak = self.options["rise_share"] * (self.total - 1)
        if step <= peak and peak > 0:
            return _arc(self.options["start_factor"], 1.0, step / peak)
        return _arc(1.0, self.options["final_factor"], (step - peak) / max(self.total - 1 - peak, 1))

    def _cosine(self, step: int) -> float:
        return _arc(1.0, self.options["final_factor"], step / max(self.total - 1, 1))

    def _cyclic(self, step: int) -> float:
        half = self.options["cycle_epochs"] * self.steps_per_epoch / 2
        height = 1 - abs((step / half) % 2 - 1)
        return self.options["low_factor"] + (1 - self.options["low_factor"]) * height


def _arc(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
