"""The dataset that a run or an embeddings folder was made from, found again. No torch."""

from pathlib import Path

from pcam_ssl.data.dataset import Dataset, open_dataset
from pcam_ssl.errors import UserError


def recorded_dataset(folder: Path, recorded: str, digest: str, data: Path | str | None) -> Dataset:
    """The dataset that what lies in `folder` was made from, or the same one at `data`. Raises UserError where it is gone or another one."""
    path = Path(recorded if data is None else data)
    if data is None and not path.exists():
        raise UserError(f"{folder}: its dataset {path} is not there any more; say where it is with --data DATASET")
    dataset = open_dataset(path)
    if dataset.digest != digest:
        raise UserError(
            f"{folder}: made from another dataset (digest {digest[:12]}, {path} has {dataset.digest[:12]}); name that one with --data DATASET"
        )
    return dataset
