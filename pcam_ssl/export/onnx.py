"""`pcam-ssl export --onnx`: one or several networks of a run as an ONNX file, checked against torch. Needs the extra `pcam-ssl[export]`.

The file takes uint8 patches and returns logit, calibrated prob and, for a single network, the embedding.
"""

import json
import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pcam_ssl import __version__
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.errors import UserError, first_line
from pcam_ssl.files import atomic_write, check_target
from pcam_ssl.models.artefact import load_network
from pcam_ssl.models.inference import dihedral
from pcam_ssl.models.network import Network
from pcam_ssl.recipe.schema import Predict
from pcam_ssl.runs.embedder import unit_digest
from pcam_ssl.runs.networks import Networks, mean_calibrator, open_networks, own_calibrator
from pcam_ssl.runs.run import run_in_use
from pcam_ssl.tables import CLASSES
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
    """Write the network of `fold` (default: the refit, else the first fold), or with `all_folds` the mean of the folds, as the ONNX file `out`.

    The export is float32 on the CPU. The file is written only if onnxruntime and torch agree within 1e-4 in every output on patches of
    the dataset. Returns what was exported and the largest differences. Raises UserError where they do not agree, the run has no such
    network, torch cannot export it, or the extra `pcam-ssl[export]` is not installed.
    """
    out = Path(out)
    check_target("--onnx", out, ".onnx")
    require_onnx()
    networks = open_networks(run_in_use(path, round).path, data)
    networks.require_head("--onnx")
    options = networks.run.recipe.predict
    folders = _folders(networks, fold, all_folds)
    members = [_member(folder) for folder in folders]
    _say_views(d4, options)
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


@dataclass(frozen=True)
class Member:
    """One network of a run, in float32 on the CPU."""

    unit: str
    network: Network
    digest: str
    """SHA-256 of its weights."""


def _member(folder: Path) -> Member:
    network, _ = load_network(folder, torch.device("cpu"))
    return Member(folder.name, network, unit_digest(folder))


def _temperature(networks: Networks, folders: list[Path]) -> float:
    """The calibration temperature for the logits of one network, or for the mean logit of several folds."""
    if len(folders) > 1:
        return mean_calibrator(networks.run, networks.finished).temperature
    return own_calibrator(folders[0]).temperature


def _say_views(d4: bool, options: Predict) -> None:
    """Print how the views differ from those of `predict`, on which the temperature was fitted."""
    if options.d4 and not d4:
        say("export: one view per patch; `predict` averages the eight D4 views, on which prob was calibrated: --d4 exports these")
    if options.random_views:
        say(f"export: without the {options.random_views} random views of `predict`, which an ONNX graph cannot draw")


def _some_patches(dataset: Dataset) -> np.ndarray:
    """Up to 32 patches, uint8 [N, H, W, 3], evenly spaced over the dataset."""
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
    """The metadata of the file, as strings."""
    config, size = members[0].network.config, networks.dataset.size_px
    resized = f"resized to {config.image_size} px, " if config.image_size not in (None, size) else ""
    facts = {
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
    return {f"pcam_ssl.{key}": value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


class Exported(nn.Module):
    """One network, or the mean of several, with its calibration. `d4` averages the eight D4 views in `space` ("logit" or "prob").

    Several networks are combined as in `predict`: the mean logit, then `temperature`. They have no common embedding, so none is
    returned. The embedding of a single network is that of the plain view, as `embed` writes it.
    """

    def __init__(self, members: list[Member], temperature: float, d4: bool = False, space: str = "logit"):
        super().__init__()
        self.networks = nn.ModuleList(member.network for member in members)
        self.temperature, self.d4, self.space = temperature, d4, space

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `forward` returns."""
        return ("logit", "prob", "embedding") if len(self.networks) == 1 else ("logit", "prob")

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """uint8 `[B, H, W, 3]` to logit `[B]` and calibrated prob `[B]` of class 1, and of one network the embedding `[B, D]`."""
        views = torch.cat([dihedral(pixels, element) for element in range(VIEWS)]) if self.d4 else pixels
        results = [network(views) for network in self.networks]
        logits = [self._over_views(each["logit"]) for each in results]
        logit = torch.stack(logits).mean(0)
        scores = logit, torch.sigmoid(logit / self.temperature)
        return (*scores, results[0]["embedding"][: pixels.shape[0]]) if len(results) == 1 else scores

    def _over_views(self, logits: torch.Tensor) -> torch.Tensor:
        if not self.d4:
            return logits
        logits = logits.view(VIEWS, -1)
        if self.space == "logit":
            return logits.mean(0)
        return torch.special.logit(torch.sigmoid(logits).mean(0), eps=1e-7)


def _doc(size_px: int, exported: Exported, notes: dict[str, str]) -> str:
    return (
        f"Scores histopathology patches of {size_px} px: `pixels` uint8 RGB [batch, {size_px}, {size_px}, 3] in; "
        f"{', '.join(exported.outputs)} out; logit and calibrated prob are of class tumor. {notes['pcam_ssl.notice']}"
    )


LARGEST_BYTES = 2 * 10**9
"""Limit of a protocol buffer, and so of an ONNX file."""
SOME = 3
"""Batch size that the exporter traces. The check also uses other batch sizes, to test that the batch axis is dynamic."""


def require_onnx() -> None:
    """Raises UserError where a package of the extra `export` is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--onnx: {error.name} is not installed; pip install 'pcam-ssl[export]'") from None


def write_onnx(path: Path, exported: Exported, size_px: int, notes: dict[str, str], doc: str) -> None:
    """Write graph and weights: input `pixels` uint8 [batch, size_px, size_px, 3], outputs `exported.outputs`, any batch size.

    `notes` become the metadata of the file, `doc` its description. Raises UserError where torch cannot export the backbone, or the
    file would exceed 2 GB.
    """
    import onnx

    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in exported.state_dict().values())
    if n_bytes > LARGEST_BYTES:
        raise UserError(
            f"--onnx: {n_bytes / 1e9:.1f} GB of weights, one ONNX file holds 2 GB; export one fold of a smaller network"
        )
    model = _graph(exported, size_px)
    model.producer_name, model.doc_string = "pcam-ssl", doc
    onnx.helper.set_model_props(model, notes)
    onnx.save(model, path)


def _graph(exported: Exported, size_px: int):
    patches = torch.zeros((SOME, size_px, size_px, 3), dtype=torch.uint8)
    architecture = exported.networks[0].config.architecture
    try:
        with _quiet():
            program = torch.onnx.export(
                exported.eval(),
                (patches,),
                dynamo=True,
                input_names=["pixels"],
                output_names=list(exported.outputs),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = first_line(error.__cause__ or error)
        raise UserError(
            f"--onnx: torch cannot export {architecture} ({reason[:200]}); score patches with `pcam-ssl predict`"
        ) from None
    return program.model_proto


@contextmanager
def _quiet():
    """Hide the exporter's warnings about its internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def largest_differences(path: Path, exported: Exported, patches: np.ndarray) -> dict[str, float]:
    """The largest absolute difference between onnxruntime and torch in each output, over patches uint8 [N, H, W, 3]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    largest = dict.fromkeys(exported.outputs, 0.0)
    for part in (part for part in (patches[:1], patches[1:SOME], patches[SOME:]) if len(part)):
        with torch.inference_mode():
            expected = exported(torch.from_numpy(np.ascontiguousarray(part)))
        found = session.run(list(largest), {"pixels": part})
        for name, ours, theirs in zip(largest, expected, found, strict=True):
            difference = np.abs(ours.numpy() - theirs).max()
            # NaN counts as an infinite difference; a comparison with NaN would be False.
            largest[name] = max(largest[name], float(np.nan_to_num(difference, nan=np.inf)))
    return largest


VIEWS = 8
