"""Small datasets without faults to audit; tests add the faults."""

from pathlib import Path

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import Dataset, open_dataset
from pcam_ssl.data.writer import DatasetWriter

SIZE_PX = 24
PER_SLIDE = 6


def clean_patches(slides=("a", "b", "c", "d", "test-a", "test-b")) -> tuple[pd.DataFrame, np.ndarray]:
    """A table of 6 patches a slide, `id` such as a0, and noise; slides named test-* are of split test, labels alternate."""
    wsi = np.repeat(slides, PER_SLIDE)
    table = pd.DataFrame({"wsi": wsi, "id": [f"{slide}{place % PER_SLIDE}" for place, slide in enumerate(wsi)]})
    table["split"] = np.where(table["wsi"].str.startswith("test"), "test", "train")
    table["label"] = pd.array(np.arange(len(table)) % 2, dtype="Int8")
    # Coarse noise survives JPEG, as tissue does. Grey slides, each a little brighter than the one before, make no slide an outlier.
    coarse = np.random.default_rng(0).integers(30, 150, (len(table), 8, 8, 1), dtype=np.uint8).repeat(3, axis=3)
    coarse += (12 * (np.arange(len(table)) // PER_SLIDE)).astype(np.uint8)[:, None, None, None]
    return table.set_index("id", drop=False), coarse.repeat(SIZE_PX // 8, axis=1).repeat(SIZE_PX // 8, axis=2)


def write(path: Path, table: pd.DataFrame, pixels: np.ndarray, notes: dict | None = None) -> Dataset:
    """The dataset of such a table and pixels."""
    with DatasetWriter(path, None, source="planted", source_format="test") as writer:
        columns = {"split": table["split"].array, "labels": table["label"].array, "wsi": table["wsi"].array}
        writer.append(pixels, ids=table["id"].array, **columns)
        writer.notes = notes or {}
    return open_dataset(path)


def row(table: pd.DataFrame, name: str) -> int:
    """The row of a patch."""
    return table.index.get_loc(name)
