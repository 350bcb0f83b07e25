"""The features of a dataset's patches by one frozen backbone, kept as float16 files, one a view.

They lie in DATASET/features, or in $PCAM_SSL_CACHE/features. Each set of files has a folder of its own, named by what decides its numbers:
dataset, weights, image size, number format. `models.features` fills it.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.files import digest_text, read_json, write_json

if TYPE_CHECKING:
    import torch

    from pcam_ssl.data.fixed_views import FixedViews

FORMAT = 1
FACTS = "features.json"
FOLDER = "features"
BLOCK = 256
"""Patches whose features are read at once. A block stays in the processor's cache while it is converted and multiplied; 4,096 patches do
not, and take four times as long a patch."""
CACHE = "PCAM_SSL_CACHE"
"""Environment variable: the folder of all caches, where datasets should not hold them."""


def features_root(dataset_path: Path, dataset_digest: str) -> Path:
    """The folder of all features of a dataset."""
    if cache := os.environ.get(CACHE):
        return Path(cache) / FOLDER / dataset_digest[:16]
    return Path(dataset_path) / FOLDER


class Features:
    """What one frozen backbone says of each patch of a dataset, float16 `[N, D]` a view. A network is fed with it in place of pixels.

    It is pickled as a path, so loader processes get no copy.
    """

    def __init__(self, folder: Path, n: int, dimension: int):
        self.folder, self.n, self.dimension = Path(folder), n, dimension
        self._arrays: dict[str, np.ndarray] = {}

    def __getstate__(self):
        return {"folder": self.folder, "n": self.n, "dimension": self.dimension, "_arrays": {}}

    def path(self, view: str) -> Path:
        """The file of a view."""
        return self.folder / f"{view}.npy"

    def array(self, view: str) -> np.ndarray:
        """Features of a view, float16 `[N, D]`, memory-mapped."""
        if view not in self._arrays:
            try:
                self._arrays[view] = np.load(self.path(view), mmap_mode="r")
            except (OSError, ValueError, EOFError) as error:
                # `data features --prune`, while a command runs.
                raise UserError(
                    f"{self.path(view)}: cannot be read any more ({first_line(error)}); run the same command again, it computes it anew"
                ) from None
        return self._arrays[view]

    def of(self, rows: np.ndarray, view: str) -> "torch.Tensor":
        """Features of one view, float16 `[n, D]`. torch converts them to float32 several times faster than numpy."""
        import torch

        return torch.from_numpy(self.array(view)[rows])

    def mean_of(self, rows: np.ndarray, views: Sequence[str]) -> "torch.Tensor":
        """Mean over views, float32 `[n, D]`."""
        import torch

        means = torch.empty(len(rows), self.dimension)
        for begin in range(0, len(rows), BLOCK):
            block = rows[begin : begin + BLOCK]
            total = self.of(block, views[0]).float()
            for view in views[1:]:
                total += self.of(block, view).float()
            means[begin : begin + len(block)] = total.div_(len(views))
        return means

    def draw(self, rows: np.ndarray, views: Sequence["FixedViews"], keys: Sequence[tuple[int, ...]]) -> "torch.Tensor":
        """One view of each patch, float32 `[n, D]`; `views` and `keys` `[n]` choose it, as they do for pixels."""
        import torch

        names = [each.names[each.number(key)] for each, key in zip(views, keys, strict=True)]
        drawn = np.empty((len(rows), self.dimension), np.float32)
        for name in dict.fromkeys(names):
            at = np.array([each == name for each in names])
            drawn[at] = self.array(name)[rows[at]]
        return torch.from_numpy(drawn)

    def whole(self, view: str) -> bool:
        """Whether the file of a view is there and has the right shape. A file cut short, or of another shape, is removed."""
        path = self.path(view)
        if not path.exists():
            return False
        try:
            array = np.load(path, mmap_mode="r")
        except (ValueError, OSError, EOFError):
            array = None
        if array is not None and array.shape == (self.n, self.dimension) and array.dtype == np.float16:
            return True
        path.unlink()
        return False


@dataclass(frozen=True)
class Stored:
    """One set of features on the disk: its folder, the backbone's name, what decides its numbers, its finished views, and its size."""

    folder: Path
    name: str
    identity: dict[str, Any]
    views: tuple[str, ...]
    n_bytes: int


def stored_features(root: Path) -> list[Stored]:
    """The sets of features in a folder of `features_root`, in order of name. Damaged ones have an empty identity."""
    sets = []
    for folder in sorted(path for path in root.glob("*") if path.is_dir()):
        try:
            facts = read_json(folder / FACTS, {"identity": dict, "name": str})
        except UserError:
            facts = {"identity": {}, "name": f"{folder.name} (damaged)"}
        files = [path for path in folder.iterdir() if path.is_file()]
        views = tuple(sorted(path.stem for path in files if path.suffix == ".npy" and not path.name.startswith(".")))
        # Blocks, not lengths: a file that is being filled is allocated in full.
        sets.append(Stored(folder, facts["name"], facts["identity"], views, sum(path.stat().st_blocks * 512 for path in files)))
    return sets


def remove_features(root: Path) -> None:
    """Remove all features of a dataset. Raises UserError where they cannot be removed."""
    try:
        if root.exists():
            shutil.rmtree(root)
    except OSError as error:
        raise UserError(f"{root}: cannot be removed ({error.strerror}); remove it by hand") from None


def open_folder(root: Path, name: str, identity: dict[str, Any], facts: dict[str, Any]) -> Path:
    """The folder of one set of features, made where it is not there. `facts` are written beside the identity.

    A folder whose facts are damaged or tell of other features is emptied first. Raises UserError where it cannot be written.
    """
    digest = digest_text(json.dumps(identity, sort_keys=True))[:16]
    folder = root / f"{name}-{digest}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Another command may be making the same folder, and have written no facts yet.
        with FileLock(root / ".lock"):
            if folder.exists() and not _told_by(folder, identity):
                shutil.rmtree(folder)
            folder.mkdir(exist_ok=True)
            if not (folder / FACTS).exists():
                write_json(folder / FACTS, {"identity": identity, **facts})
    except OSError as error:
        raise UserError(
            f"{folder}: features cannot be written ({first_line(error)}); set {CACHE} to a folder with room, or features.cache=false"
        ) from None
    return folder


def _told_by(folder: Path, identity: dict[str, Any]) -> bool:
    try:
        return read_json(folder / FACTS, {"identity": dict})["identity"] == identity
    except UserError:
        return False
