"""`pcam-ssl export RUN --onnx FILE`: networks of a run as one ONNX file, checked against torch on patches of its dataset."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pcam_ssl import __version__
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.errors import UserError
from pcam_ssl.export.exported import Exported, Member
from pcam_ssl.export.onnx_file import largest_differences, require_onnx, write_onnx
from pcam_ssl.files import atomic_write, check_target
from pcam_ssl.models.artefact import load_network
from pcam_ssl.pseudo_labels.columns import CLASSES
from pcam_ssl.recipe.schema import Predict
from pcam_ssl.runs.calibration import mean_calibrator, own_calibrator
from pcam_ssl.runs.embedder import unit_digest
from pcam_ssl.runs.networks import Networks, open_networks
from pcam_ssl.runs.run import run_in_use
from pcam_ssl.terminal import say

TOLERANCE = 1e-4
CHECKED = 32
NOTICE = "For research. Not a medical device: not for diagnosis."


def export_onnx(
    path: Path | str,
    out: Path | str,
    *,
    fold: int | None = None,
    all_folds: bool = False,
    d4: bool = False,
    round: int | None = None,
    data: Path | str | None = None,
) -> dict[str, Any]:
    """Write the network of `fold` (default: the refit, else the first), or with `all_folds` the folds' mean, as the ONNX file `out`.

    Float32 on the CPU. The file takes its name only when onnxruntime and torch agree on real patches within 1e-4 in every output;
    returns what was exported and how far they are apart. Raises UserError where they do not agree, the run has no such network,
    torch cannot export it, or the extra `pcam-ssl[export]` is absent.
    """
    out = Path(out)
    check_target("--onnx", out, ".onnx")
    require_onnx()
    networks = open_networks(run_in_use(path, round).path, data)
    networks.require_head("--onnx")
    options = networks.run.load_recipe().predict
    folders = _folders(networks, fold, all_folds)
    members = [_member(folder) for folder in folders]
    _tell_views(d4, options)
    exported = Exported(members, _temperature(networks, folders), d4, options.mean).eval()
    dataset = networks.dataset
    notes = _notes(networks, members, exported.temperature, d4)
    with atomic_write(out) as temporary:
        say(f"{out}: exporting, then checking; this takes a minute or so")
        write_onnx(temporary, exported, dataset.size_px, notes, _doc(dataset.size_px, exported, notes))
        patches = _some_patches(dataset)
        differences = largest_differences(temporary, exported, patches)
        _refuse_different(differences, len(patches), dataset)
    return {
        "file": str(out),
        "units": [member.unit for member in members],
        "views": "d4" if d4 else "plain",
        "outputs": list(exported.outputs),
        "dimension": members[0].network.embedding_size if len(members) == 1 else None,
        "size_px": dataset.size_px,
        "checked": {"n": len(patches), "dataset": str(dataset.path), "largest_difference": differences, "limit": TOLERANCE},
    }


def _folders(networks: Networks, fold: int | None, all_folds: bool) -> list[Path]:
    if not all_folds:
        return [networks.one(fold, "export")]
    if not networks.finished:
        raise UserError(
            f"--all-folds: {networks.run.path} has no finished fold; run its command again, it goes on where it stopped"
        )
    if len(networks.finished) < networks.folds.n_folds:
        say(f"export: the mean of {len(networks.finished)} of {networks.folds.n_folds} folds, since only these are finished")
    return [networks.fold(k) for k in networks.finished]


def _member(folder: Path) -> Member:
    network, _ = load_network(folder, torch.device("cpu"))
    return Member(folder.name, network, unit_digest(folder))


def _temperature(networks: Networks, folders: list[Path]) -> float:
    """Of the one network's logits, or of the mean logit of several folds."""
    if len(folders) > 1:
        return mean_calibrator(networks.run, networks.finished).temperature
    return own_calibrator(folders[0]).temperature


def _tell_views(d4: bool, options: Predict) -> None:
    """How the file's scores differ from those of `predict`, which are what the temperature was fitted on."""
    if options.d4 and not d4:
        say("export: one view of a patch; `predict` means the eight D4 views, on which prob was calibrated: --d4 exports that")
    if options.random_views:
        say(f"export: without the {options.random_views} random views of `predict`, which a graph cannot draw")


def _some_patches(dataset: Dataset) -> np.ndarray:
    """uint8 [N, H, W, 3], spread evenly over the dataset."""
    rows = np.unique(np.linspace(0, len(dataset) - 1, CHECKED).round().astype(int))
    return np.asarray(dataset.pixels[rows])


def _refuse_different(differences: dict[str, float], n: int, dataset: Dataset) -> None:
    name = max(differences, key=lambda each: differences[each])
    if not differences[name] <= TOLERANCE:
        raise UserError(
            f"--onnx: onnxruntime and torch differ by {differences[name]:.2g} in {name} on {n} patches of {dataset.path}, more than "
            f"{TOLERANCE:g}, so nothing was written; install the versions of constraints.txt, or score with `pcam-ssl predict`"
        )


def _notes(networks: Networks, members: list[Member], temperature: float, d4: bool) -> dict[str, str]:
    """The file's metadata: strings."""
    config, size = members[0].network.config, networks.dataset.size_px
    resized = f"resized to {config.image_size} px, " if config.image_size not in (None, size) else ""
    told = {
        "notice": NOTICE,
        "classes": CLASSES,
        "positive_class": CLASSES[1],
        "preprocessing": f"none before: RGB uint8 [batch, {size}, {size}, 3]; inside, {resized}/ 255, minus mean, by std",
        "mean": config.mean,
        "std": config.std,
        "views": "mean of the eight D4 views" if d4 else "the patch as it is",
        "model": config.name,
        "units": [member.unit for member in members],
        "temperature": temperature,
        "network_digest": [member.digest for member in members],
        "recipe_digest": networks.info["recipe_digest"],
        "dataset_digest": networks.info["dataset_digest"],
        "package_version": __version__,
    }
    return {f"pcam_ssl.{key}": value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}


def _doc(size_px: int, exported: Exported, notes: dict[str, str]) -> str:
    return (
        f"Scores histopathology patches of {size_px} px: `pixels` uint8 RGB [batch, {size_px}, {size_px}, 3] in; "
        f"{', '.join(exported.outputs)} out; logit and calibrated prob are of class tumor. {notes['pcam_ssl.notice']}"
    )
