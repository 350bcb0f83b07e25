"""timm backbones by name: timm's own architectures, short names of foundation models, `hf-hub:OWNER/NAME`, and `local-dir:PATH`."""

import os
from dataclasses import dataclass, replace
from typing import Any

import timm
from timm.models import get_pretrained_cfg
from torch import nn

from pcam_ssl.errors import UserError, nearest
from pcam_ssl.models import dinov2
from pcam_ssl.models.foundation import FOUNDATION_MODELS, FoundationModel, foundation_model
from pcam_ssl.models.weights import EXTRA, PACKAGES, WeightPackage, installed_package, load_package

PROBE_S = 5.0
NOT_OF_THE_BACKBONE = ("num_classes", "in_chans", "drop_rate", "drop_path_rate")
"""Arguments that a checkpoint may be saved with: there is no classifier, patches have 3 channels, and the recipe sets dropout."""


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
    tokens: str | None = None
    """The rule that makes an embedding of tokens (`models.network.pool_tokens`); None where the backbone pools by itself."""
    address: str | None = None
    """Where the weights are; None where `name` says it."""
    transformers: bool = False
    """Whether the weights have the names of the package transformers."""

    @property
    def source(self) -> str:
        """What the weights are loaded by."""
        return self.address or self.name


def resolve_backbone(name: str, pretrained: bool) -> Resolved:
    """Look up a backbone name. Raises UserError with the nearest names, or with the reason why its configuration cannot be reached."""
    if (model := foundation_model(name)) is not None:
        return _resolve_foundation(name, model)
    if name.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
        return _resolve_address(name)
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise UserError(
            f"model.name: timm has no backbone {name}.{nearest(architecture, [*FOUNDATION_MODELS, *timm.list_models()])} `python -c 'import timm; print(timm.list_models())'` names all"
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
    """The backbone without a classifier, `[B, 3, S, S]` to `[B, D]`, or to tokens `[B, T, D]` where `resolved` has a rule for them.

    Raises UserError where its weights cannot be reached.
    """
    if not pretrained:
        return _create(resolved.architecture, resolved.name, False, arguments)
    if resolved.package is not None:
        backbone = _create(resolved.architecture, resolved.name, False, arguments)
        load_package(resolved.package, backbone)
        return backbone
    if not resolved.source.startswith("local-dir:"):
        _go_offline_without_hub()
    try:
        if resolved.transformers:
            return dinov2.load_backbone(resolved.source, lambda: _create(resolved.architecture, resolved.name, False, arguments))
        return _create(resolved.source, resolved.name, True, arguments)
    except UserError:
        raise
    except Exception as error:
        # Failures of hub, cache and network have a dozen types from four libraries.
        raise UserError(_unreachable(resolved.name, error)) from None


def build_backbone(architecture: str, arguments: dict[str, Any], pretrained: bool = False) -> nn.Module:
    """timm's model without a classifier. Arguments are plain values, because artefacts hold them as JSON; layers are given by name."""
    layers = {key: getattr(timm.layers, arguments[key]) for key in ("mlp_layer",) if isinstance(arguments.get(key), str)}
    return timm.create_model(architecture, pretrained=pretrained, num_classes=0, **{**arguments, **layers})


def _create(name: str, shown: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    try:
        return build_backbone(name, arguments, pretrained)
    except TypeError as error:
        raise UserError(
            f"model.name: {shown} does not take {sorted(arguments)} ({error}); leave model.drop_path_rate and model.image_size unset"
        ) from None


def _resolve_foundation(name: str, model: FoundationModel) -> Resolved:
    """The table holds all that builds the network, so that random weights need no hub."""
    defaults = {
        "input_size": (3, model.size_px, model.size_px),
        "fixed_input_size": True,
        "mean": model.mean,
        "std": model.std,
        "interpolation": model.interpolation,
    }
    return Resolved(
        name, model.architecture, dict(model.arguments), defaults, None, model.tokens, model.address, model.transformers
    )


def _resolve_address(name: str) -> Resolved:
    from timm.models._hub import load_model_config_from_hf, load_model_config_from_path

    kind, _, address = name.partition(":")
    if kind != "local-dir":
        _go_offline_without_hub()
    try:
        if (found := dinov2.describe(name)) is not None:
            return Resolved(name, *found, tokens="cls", transformers=True)
        if kind == "local-dir":
            defaults, architecture, arguments = load_model_config_from_path(address)
        else:
            defaults, architecture, arguments = load_model_config_from_hf(address)
    except UserError:
        raise
    except Exception as error:
        raise UserError(_unreachable(name, error)) from None
    arguments = dict(arguments or {})
    if arguments.get("in_chans", 3) != 3:
        raise UserError(f"model.name: {name} takes {arguments['in_chans']} channels and patches have 3; take another backbone")
    return Resolved(
        name, architecture, {key: value for key, value in arguments.items() if key not in NOT_OF_THE_BACKBONE}, defaults
    )


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
    from huggingface_hub.errors import GatedRepoError

    model = foundation_model(name)
    address = model.address if model else name
    if isinstance(error, GatedRepoError):
        return _gated(name, address, error.response.status_code)
    fetch = f"import timm; timm.create_model('{name}', pretrained=True)"
    if address.startswith(("hf-hub:", "hf_hub:")):
        fetch = f"from huggingface_hub import snapshot_download; snapshot_download('{address.partition(':')[2]}')"
    first = (str(error).splitlines() or [type(error).__name__])[0][:120]
    architecture = name.partition(".")[0]
    install = ""
    if architecture in PACKAGES:
        install = f"run `{EXTRA}`{f' and set model.name={architecture}' if architecture != name else ''}, which needs no hub, or "
    return (
        f"model.name: weights of {name} cannot be reached ({first}); {install}set model.pretrained=false to train from scratch, "
        f'or give a file as model.weights, or where there is a network run `python -c "{fetch}"` and copy its cache ($HF_HOME) here'
    )


def _gated(name: str, address: str, status: int) -> str:
    """The hub answers 401 without a valid token, and 403 where the account of the token has no access."""
    page = f"https://huggingface.co/{address.partition(':')[2].partition('@')[0]}"
    why = "the account of this token has no access" if status == 403 else "no valid token was sent"
    return (
        f"model.name: {name} is gated and {why}; ask for access at {page}, then set HF_TOKEN or run `hf auth login` "
        "(`huggingface-cli login` in older versions)"
    )
