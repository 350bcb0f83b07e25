"""Patch tables of slides with chosen sizes, without pixels."""

import numpy as np
import pandas as pd

from pcam_ssl.data.splits import PATCH_STATISTICS
from pcam_ssl.tables import PATCH_COLUMNS, conform

SIZES = (30, 10, 25, 40, 12, 33, 9, 28, 17, 22, 31, 14, 19, 26)


def make_patches(sizes, *, seed=0, split="train", tumor=0.4, named=True):
    """Patches of slides with the given sizes; stain and tumor share differ by slide."""
    generator = np.random.default_rng(seed)
    slides = np.repeat(np.arange(len(sizes)), sizes)
    n = len(slides)
    share = generator.uniform(tumor / 2, min(1.5 * tumor, 1), len(sizes))[slides]
    look = generator.normal(size=(len(sizes), len(PATCH_STATISTICS)))[slides] + 0.3 * generator.normal(
        size=(n, len(PATCH_STATISTICS))
    )
    order = generator.permutation(n)
    frame = pd.DataFrame(look, columns=PATCH_STATISTICS).assign(
        id=[f"{split}-{n:05d}" for n in range(n)],
        split=split,
        label=(generator.random(n) < share).astype(int),
        wsi=[f"{split}-slide-{s:02d}" for s in slides] if named else None,
        x=None,
        y=None,
        pixel_hash=[f"{split}-{n}" for n in range(n)],
        view_hash="",
    )
    frame = frame.iloc[order].reset_index(drop=True)
    return conform(frame.assign(row=np.arange(n)), PATCH_COLUMNS)


def join(*parts):
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(row=np.arange(len(frame)))
