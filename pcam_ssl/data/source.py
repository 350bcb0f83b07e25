"""SOURCE of a command: a DATASET as it is, or anything `data import` reads, packed for as long as it is needed."""

import tempfile
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from pcam_ssl.data.dataset import Dataset, is_dataset, open_dataset
from pcam_ssl.data.importing import import_source
from pcam_ssl.errors import UserError


@contextmanager
def open_source(source: Path | str, skip_bad: bool = False):
    """Yield a Dataset of the source. Raises the UserErrors of `import_source`."""
    if is_dataset(source):
        yield open_dataset(source)
        return
    with tempfile.TemporaryDirectory(prefix="pcam-ssl-") as folder:
        yield import_source(source, Path(folder) / "patches", skip_bad=skip_bad)


def split_rows(dataset: Dataset, source: Path | str, split: str | None) -> pd.DataFrame:
    """The patches of a split, all where it is None. Raises UserError where the split has none."""
    patches = dataset.patches if split is None else dataset.patches[dataset.patches.split == split]
    if not len(patches):
        raise UserError(f"{source}: no patches in split {split}; it has {', '.join(sorted(dataset.patches.split.unique()))}")
    return patches
