"""`model.weights`: a user's own file of weights for a backbone, safetensors or a torch state dict. Loading never runs its code."""

import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.files import digest_file
from pcam_ssl.models.network import Network

WRAPPERS = ("state_dict", "model", "teacher")
"""Keys under which training scripts save a state dict among other things."""
PREFIXES = ("module.", "backbone.", "encoder.")
"""What wrapping modules put before the names of a backbone: DataParallel, this package, self-supervised methods."""
HEADS = ("head", "fc", "classifier")
OWN = ("mean", "std", "head.", "backbone.")
"""Beginnings of the keys of `model.safetensors` of this package; its normalisation is taken too."""
OWN_EXTRAS = ("mean", "std", "feature_mean", "feature_std", "projection", "metric_loss")
SHOWN_KEYS = 5
SAVE = "save it with safetensors.torch.save_file(network.state_dict(), FILE)"


@dataclass(frozen=True)
class LoadedFile:
    """What was loaded: `path`, its SHA-256 `digest`, the names `left_out` (classifier, other heads), and whether a run of this package made it."""

    path: Path
    digest: str
    left_out: tuple[str, ...]
    own: bool

    def line(self, name: str) -> str:
        """What to tell the user, in one line."""
        left = f"; left out its head ({_some(self.left_out)})" if self.left_out else ""
        seen = "; pcam-ssl trained it on labels, so scores are too high if it saw slides of this dataset" if self.own else ""
        return f"model.weights: {name} starts from {self.path} (SHA-256 {self.digest[:12]}), published weights are not looked for{left}{seen}"


def load_weights_file(network: Network, path: Path, digest: str | None = None) -> LoadedFile:
    """Load a file into the backbone of `network`. The head of the file is left out; every other tensor must fit.

    Raises UserError where the file is absent or damaged, would run code, has another SHA-256 than `digest`, or does not fit: missing and
    unexpected names and other shapes in one line.
    """
    content = _read(path, digest)
    tensors = _unwrapped(path, content.tensors)
    own = all(any(name.startswith(key) for name in tensors) for key in OWN)
    heads = (*HEADS, *_names_of_classifier(network.backbone), *(OWN_EXTRAS if own else ()))
    fitted, left_out = _fit(path, tensors, network, heads)
    network.backbone.load_state_dict(fitted)
    if own:
        _take_normalisation(network, tensors)
    return LoadedFile(path, content.digest, tuple(left_out), own)


@dataclass(frozen=True)
class _Content:
    tensors: Any
    digest: str


def _read(path: Path, digest: str | None) -> _Content:
    try:
        found = digest_file(path)
        if digest not in (None, found):
            raise UserError(
                f"model.weights: {path} has changed (model.weights_digest: {digest} -> {found}); put the file back, or choose another --out"
            )
        if path.suffix == ".safetensors":
            return _Content(load_file(path), found)
        return _Content(torch.load(path, map_location="cpu", weights_only=True), found)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"model.weights: {path}: cannot be read ({error.strerror or first_line(error)}); name a file") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"model.weights: {path}: a pickle of more than tensors, which could run code, or no file of torch; nothing of it was run, {SAVE}"
        ) from None
    except SafetensorError as error:
        raise UserError(f"model.weights: {path}: damaged ({first_line(error)}); copy it again") from None
    except Exception as error:  # torch's readers raise a dozen types for files that torch did not write
        raise UserError(f"model.weights: {path}: torch cannot read it ({first_line(error)[:120]}); {SAVE}") from None


def _unwrapped(path: Path, content: Any) -> dict[str, Any]:
    """The state dict in what a training script saved."""
    while isinstance(content, Mapping) and (inner := [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]):
        if len(inner) > 1:
            raise UserError(f"model.weights: {path}: holds {' and '.join(inner)}; save the one that you mean")
        content = content[inner[0]]
    if not isinstance(content, Mapping) or not any(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"model.weights: {path}: holds no state dict; {SAVE}")
    return {str(name): value for name, value in content.items()}


def _names_of_classifier(backbone: torch.nn.Module) -> tuple[str, ...]:
    named = getattr(backbone, "pretrained_cfg", {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def _fit(path: Path, given: dict[str, Any], network: Network, heads: Iterable[str]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors under the names of the backbone, and the names of the file's head. Raises UserError where anything does not fit."""
    wanted = network.backbone.state_dict()
    prefixes = _prefixes(given)
    # The first of several that fit as well is the shortest.
    prefix = max(prefixes, key=lambda each: sum(each + name in given for name in wanted))
    fitted = {name: given[prefix + name] for name in wanted if prefix + name in given}
    rest = [name for name in given if not (name.startswith(prefix) and name[len(prefix) :] in wanted)]
    left_out = [name for name in rest if _is_head(name, prefixes, heads)]
    missing = [name for name in wanted if name not in fitted]
    unexpected = [name for name in rest if name not in left_out]
    other = [
        f"{name} {_kind(value)} for {_kind(wanted[name])}" for name, value in fitted.items() if _kind(value) != _kind(wanted[name])
    ]
    problems = [
        f"{len(names)} {what} ({_some(names)})"
        for names, what in ((missing, "missing"), (unexpected, "unexpected"), (other, "of another shape"))
        if names
    ]
    if problems:
        raise UserError(
            f"model.weights: {path} does not fit {network.config.name}: {', '.join(problems)};"
            f" set model.name to its architecture, or save it under the names of timm's {network.config.architecture}"
        )
    return fitted, left_out


def _prefixes(names: Iterable[str]) -> list[str]:
    """Every chain of PREFIXES that some name begins with, shortest first."""
    found = {""}
    for name in names:
        prefix = ""
        while (part := next((each for each in PREFIXES if name.startswith(each, len(prefix))), None)) is not None:
            prefix += part
            found.add(prefix)
    return sorted(found, key=lambda each: (len(each), each))


def _is_head(name: str, prefixes: list[str], heads: Iterable[str]) -> bool:
    bare = name.removeprefix(next(each for each in reversed(prefixes) if name.startswith(each)))
    return any(bare == head or bare.startswith(f"{head}.") for head in heads)


def _kind(value: Any) -> str:
    """Shape of a tensor, with its type where that is no float: load_state_dict would convert integers silently."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    shape = str(list(value.shape))
    return shape if value.is_floating_point() else f"{shape} {str(value.dtype).removeprefix('torch.')}"


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = [f"and {len(names) - SHOWN_KEYS} more"] if len(names) > SHOWN_KEYS else []
    return ", ".join([*names[:SHOWN_KEYS], *more])


def _take_normalisation(network: Network, tensors: dict[str, Any]) -> None:
    for name in ("mean", "std"):
        getattr(network, name).copy_(tensors[name])
    mean, std = (tuple((getattr(network, name).flatten() / 255).tolist()) for name in ("mean", "std"))
    network.config = replace(network.config, mean=mean, std=std)
