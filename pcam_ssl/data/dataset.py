"""A DATASET folder, read: memory-mapped pixels, the table of patches, the manifest. `writer` makes one."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import numpy as np
import pandas as pd

from pcam_ssl.errors import UserError, first_line, nearest
from pcam_ssl.files import StrPath, read_json
from pcam_ssl.tables import PATCH_COLUMNS, conform, read_table

PIXELS, PATCHES, MANIFEST, SAMPLE_SUBMISSION = "pixels.npy", "patches.parquet", "manifest.json", "sample_submission.csv"


@dataclass(frozen=True, repr=False)
class Dataset:
    """A packed dataset: row i of `patches` describes `pixels[i]`. It stands for its folder wherever a path is taken."""

    path: Path
    manifest: dict
    patches: pd.DataFrame
    """Columns of `tables.PATCH_COLUMNS`, sorted by `row`."""
    pixels: np.ndarray
    """uint8 [N, H, W, 3], memory-mapped and read-only."""

    def __len__(self) -> int:
        return len(self.patches)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        n = self.manifest["n_slides"]
        slides = f"{n:,} slides" if n else "no slide ids"
        return f"Dataset({str(self.path)!r}): {len(self):,} patches of {self.size_px} px, {slides}"

    def _repr_html_(self) -> str:
        from pcam_ssl.results import dataset_html

        return dataset_html(self)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def size_px(self) -> int:
        """Edge of a patch."""
        return self.pixels.shape[1]

    @property
    def digest(self) -> str:
        """SHA-256 over the pixels and the columns id, split, label, wsi, x, y."""
        return self.manifest["digest"]

    @property
    def sample_submission(self) -> list[str] | None:
        """Ids in the order Kaggle wants them, where the source had a sample submission."""
        path = self.path / SAMPLE_SUBMISSION
        if not path.is_file():
            return None
        try:
            return pd.read_csv(path, dtype=str, keep_default_na=False)["id"].tolist()
        except (ValueError, KeyError) as error:
            raise _damaged(self.path, f"{SAMPLE_SUBMISSION}: {first_line(error)}") from None


def is_dataset(path: StrPath) -> bool:
    """Whether `path` is a folder that looks like a DATASET."""
    return all((Path(path) / name).is_file() for name in (PIXELS, PATCHES, MANIFEST))


def open_dataset(path: StrPath) -> Dataset:
    """Open a DATASET folder. Raises UserError where it is absent, something else, or damaged."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such dataset; make it with `pcam-ssl data import SOURCE {quote(str(path))}`")
    if not is_dataset(path):
        if (path / "run.json").is_file():
            raise UserError(f"{path}: is a run, and a dataset is needed; name the folder that `pcam-ssl data import` made")
        wanted = f"it lacks {' or '.join(name for name in (PIXELS, PATCHES, MANIFEST) if not (path / name).is_file())}"
        raise UserError(f"{path}: not a dataset ({wanted}); make one with `pcam-ssl data import {quote(str(path))} DATASET`")
    again = f"delete {path} and import it again"
    try:
        manifest = read_json(path / MANIFEST, {"digest": str, "n_slides": int, "counts": {str: {str: int}}, "notes": dict}, again)
        pixels = np.load(path / PIXELS, mmap_mode="r")
        patches = conform(read_table(path / PATCHES)[0], PATCH_COLUMNS)
    except (ValueError, EOFError) as error:
        raise _damaged(path, first_line(error)) from None
    if pixels.ndim != 4 or pixels.dtype != np.uint8 or pixels.shape[1:] != (pixels.shape[1], pixels.shape[1], 3):
        raise _damaged(path, f"{PIXELS} holds {pixels.dtype} {list(pixels.shape)}, not uint8 [N, H, H, 3]")
    if len(patches) != len(pixels) or not np.array_equal(patches["row"], np.arange(len(pixels))):
        raise _damaged(path, f"{PATCHES} lists {len(patches):,} patches, {PIXELS} holds {len(pixels):,}")
    return Dataset(path, manifest, patches, pixels)


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: the dataset is damaged ({reason}); delete the folder and import it again")


def find_dataset(folder: Path, recorded: str, digest: str, data: StrPath | None) -> Dataset:
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


def split_rows(dataset: Dataset, source: StrPath, split: str | None) -> pd.DataFrame:
    """The patches of a split, all where it is None. Raises UserError where the split has none."""
    patches = dataset.patches if split is None else dataset.patches[dataset.patches.split == split]
    if not len(patches):
        raise UserError(f"{source}: no patches in split {split}; it has {', '.join(sorted(dataset.patches.split.unique()))}")
    return patches


WINDOW, NAMED = 50, 3


def nearest_ids(wanted: str, known: pd.Index) -> str:
    """' Did you mean a, b?' among many ids, or ''.

    First those that `wanted` is the beginning of; else the closest among those that begin or end as it does, since comparing it
    with a quarter of a million ids takes minutes.
    """
    alike = _neighbourhood(wanted, known)
    longer = [word for word in alike if word.startswith(wanted)]
    if wanted and longer:
        return f" Did you mean {', '.join(longer[:NAMED])}?"
    alike += [word[::-1] for word in _neighbourhood(wanted[::-1], known.str[::-1])]
    return nearest(wanted, sorted(set(alike)))


def _neighbourhood(word: str, known: pd.Index) -> list[str]:
    """The words beside `word` in dictionary order: none shares a longer beginning with it."""
    ordered = np.sort(known.to_numpy(dtype=str))
    place = int(np.searchsorted(ordered, word))
    return ordered[max(0, place - WINDOW) : place + WINDOW].tolist()
