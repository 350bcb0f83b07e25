"""`pcam-ssl export --onnx`: networks of a run as one ONNX file, checked against torch on patches of its dataset. Needs the extra `pcam-ssl[export]`.

The file takes uint8 patches and gives logit, calibrated prob and, of one network, the embedding.
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
from pcam_ssl.runs.calibration import mean_calibrator, own_calibrator
from pcam_ssl.runs.embedder import unit_digest
from pcam_ssl.runs.networks import Networks, open_networks
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
    options = networks.run.recipe.predict
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


@dataclass(frozen=True)
class Member:
    """A network of a run, in float32 on the CPU."""

    unit: str
    network: Network
    digest: str
    """Of its weights."""


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


class Exported(nn.Module):
    """One network, or the mean of several, with calibration inside; `d4` scores all eight D4 views, `space` says where they are averaged.

    The mean of several is that of `predict`: of logits, and `temperature` makes a prob of it. Several networks have no embedding in
    common, so none is given. The embedding is that of the patch as it is, whatever the views: what `embed` writes.
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
        said = [network(views) for network in self.networks]
        logits = [self._over_views(each["logit"]) for each in said]
        logit = torch.stack(logits).mean(0)
        scores = logit, torch.sigmoid(logit / self.temperature)
        return (*scores, said[0]["embedding"][: pixels.shape[0]]) if len(said) == 1 else scores

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
"""Protocol buffers hold no more in one file."""
SOME = 3
"""Patches in the batch that the exporter traces. Checked is with batches of other sizes too, so that the batch is seen to be free."""


def require_onnx() -> None:
    """Raises UserError where what writes and checks ONNX files is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--onnx: {error.name} is not installed; pip install 'pcam-ssl[export]'") from None


def write_onnx(path: Path, exported: Exported, size_px: int, notes: dict[str, str], doc: str) -> None:
    """Write the graph and its weights: `pixels` uint8 [batch, size_px, size_px, 3] in, `exported.outputs` out, any batch.

    `notes` become the file's metadata, `doc` its description. Raises UserError where torch cannot export the backbone, or the
    file would pass 2 GB.
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
    """The exporter warns of its own insides."""
    loud = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loud]
    try:
        for logger in loud:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loud, levels, strict=True):
            logger.setLevel(level)


def largest_differences(path: Path, exported: Exported, patches: np.ndarray) -> dict[str, float]:
    """For each output, the largest absolute difference between the file in onnxruntime and torch, over patches uint8 [N, H, W, 3]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    largest = dict.fromkeys(exported.outputs, 0.0)
    for part in (part for part in (patches[:1], patches[1:SOME], patches[SOME:]) if len(part)):
        with torch.inference_mode():
            expected = exported(torch.from_numpy(np.ascontiguousarray(part)))
        found = session.run(list(largest), {"pixels": part})
        for name, ours, theirs in zip(largest, expected, found, strict=True):
            difference = np.abs(ours.numpy() - theirs).max()
            # NaN is a difference too, and no comparison would find it.
            largest[name] = max(largest[name], float(np.nan_to_num(difference, nan=np.inf)))
    return largest


VIEWS = 8
