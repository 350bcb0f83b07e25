"""Centre shares of many patches, streamed: one plain view each."""

from collections.abc import Callable

import numpy as np
import torch

from pcam_ssl.data.batches import EvalStream, Pixels, load
from pcam_ssl.explain.centre import centre_share
from pcam_ssl.explain.explanation import toward
from pcam_ssl.explain.gradcam import GradCam


def centre_shares(
    cam: GradCam,
    pixels: Pixels,
    rows: np.ndarray,
    *,
    size_px: int,
    batch_size: int,
    device: torch.device,
    workers: int = 0,
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[np.ndarray, np.ndarray]:
    """For the patches `rows`, `[N]` each: the logit of class 1, and the centre share of what speaks for the call (NaN for a flat map)."""
    stream = EvalStream(pixels, np.asarray(rows), np.zeros(len(rows), np.uint64), batch_size, None, 0, 0)
    logits, shares = np.empty(len(rows)), np.empty(len(rows))
    for batch in load(stream, range(len(stream)), workers, device):
        place = batch["place"].numpy()
        found, maps = (values.cpu().double().numpy() for values in cam(batch["pixels"].to(device, non_blocking=True)))
        logits[place] = found
        shares[place] = centre_share(toward(maps, found >= 0), size_px)
        advance(len(place))
    return logits, shares
