"""A network as one ONNX file, and how far what onnxruntime makes of it lies from torch. Needs the extra `pcam-ssl[export]`."""

import logging
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.export.exported import Exported

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
