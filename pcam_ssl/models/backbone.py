"""timm backbones by name: timm's own architectures, `hf-hub:OWNER/NAME`, and `local-dir:PATH`."""

import os
from dataclasses import dataclass, replace
from typing import Any

import timm
from timm.models import get_pretrained_cfg
from torch import nn

from pcam_ssl.errors import UserError, nearest
from pcam_ssl.models.weights import EXTRA, PACKAGES, WeightPackage, installed_package, load_package

PROBE_S = 5.0


@dataclass(frozen=True)
class Resolved:
    """A backbone name after lookup. `architecture` and `arguments` rebuild it without a hub; `defaults` is the input configuration.

    `package` holds the weights where an installed package does; `defaults` then has its normalisation, not timm's.
    """

    name: str
    architecture: str
    arguments: dict[str, Any]
    defaults: dict[str, Any]
    package: WeightPackage | None = None


def resolve_backbone(name: str, pretrained: bool) -> Resolved:
    """Look up a backbone name. Raises UserError with the nearest names, or with the reason why its configuration cannot be reached."""
    if name.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
        return _resolve_address(name)
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise UserError(
            f"model.name: timm has no backbone {name}.{nearest(architecture, timm.list_models())} `python -c 'import timm; print(timm.list_models())'` names all"
        )
    try:
        defaults = get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        tags = timm.list_pretrained(architecture)
        raise UserError(f"model.name: {architecture} has no weights tagged {tag}; there are {', '.join(tags) or 'none'}") from None
    if pretrained and not (defaults and defaults.has_weights):
        raise UserError(
            f"model.name: timm knows no published weights for {name}; set model.pretrained=false, or take another backbone"
        )
    resolved = Resolved(name, architecture, {}, defaults.to_dict() if defaults else {})
    package = package_for(name) if pretrained else None
    if package is None:
        return resolved
    trained = {"mean": package.mean, "std": package.std, "interpolation": package.interpolation}
    return replace(resolved, package=package, defaults={**resolved.defaults, **trained})


def package_for(name: str) -> WeightPackage | None:
    """The installed package that `model.pretrained` loads for a backbone name; None where the hub, its cache or a folder provides the weights."""
    return installed_package(name, get_pretrained_cfg(name).hf_hub_id) if name in PACKAGES else None


def create_backbone(resolved: Resolved, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    """The backbone without a classifier, `[B, 3, S, S]` to `[B, D]`. Raises UserError where its weights cannot be reached."""
    if not pretrained:
        return _create(resolved.architecture, resolved.name, False, arguments)
    if resolved.package is not None:
        backbone = _create(resolved.architecture, resolved.name, False, arguments)
        load_package(resolved.package, backbone)
        return backbone
    if not resolved.name.startswith("local-dir:"):
        _go_offline_without_hub()
    try:
        return _create(resolved.name, resolved.name, True, arguments)
    except UserError:
        raise
    except Exception as error:
        # Failures of hub, cache and network have a dozen types from four libraries.
        raise UserError(_unreachable(resolved.name, error)) from None


def _create(name: str, shown: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments)
    except TypeError as error:
        raise UserError(
            f"model.name: {shown} does not take {sorted(arguments)} ({error}); leave model.drop_path_rate and model.image_size unset"
        ) from None


def _resolve_address(name: str) -> Resolved:
    from timm.models._hub import load_model_config_from_hf, load_model_config_from_path

    kind, _, address = name.partition(":")
    try:
        if kind == "local-dir":
            defaults, architecture, arguments = load_model_config_from_path(address)
        else:
            _go_offline_without_hub()
            defaults, architecture, arguments = load_model_config_from_hf(address)
    except Exception as error:
        raise UserError(_unreachable(name, error)) from None
    return Resolved(name, architecture, dict(arguments or {}), defaults)


def _go_offline_without_hub() -> None:
    """Use the cache only where the hub does not answer. Otherwise a machine without internet waits most of a minute for retries."""
    import requests
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    try:
        requests.head(os.environ.get("HF_ENDPOINT", constants.ENDPOINT), timeout=PROBE_S)
    except requests.RequestException:
        constants.HF_HUB_OFFLINE = True


def _unreachable(name: str, error: Exception) -> str:
    first = (str(error).splitlines() or [type(error).__name__])[0][:120]
    architecture = name.partition(".")[0]
    install = ""
    if architecture in PACKAGES:
        install = f"run `{EXTRA}`{f' and set model.name={architecture}' if architecture != name else ''}, which needs no hub, or "
    return (
        f"model.name: weights of {name} cannot be reached ({first}); {install}set model.pretrained=false to train from scratch, "
        "or give a file as model.weights, or where there is a network run "
        f"`python -c \"import timm; timm.create_model('{name}', pretrained=True)\"` and copy its cache ($HF_HOME) here"
    )
