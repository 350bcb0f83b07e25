"""Queries of a search: patches of the dataset by id, image files, or all patches of another source."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import PATCHES, PIXELS, Dataset, nearest_ids
from pcam_ssl.data.images import BadImage, decode, view_hashes
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.errors import UserError, nearest
from pcam_ssl.neighbors.search import QUERY_COLUMNS
from pcam_ssl.tables import conform
from pcam_ssl.terminal import say


@dataclass(frozen=True)
class Loaded:
    """Patches in memory, uint8 [N, H, W, 3]; the other queries use memory-mapped `Pixels`."""

    array: np.ndarray


@dataclass(frozen=True)
class Queries:
    """Queries of one kind: `table` (`QUERY_COLUMNS`), and their pixels: `rows` of `pixels`."""

    table: pd.DataFrame
    pixels: Pixels | Loaded
    rows: np.ndarray
    digest: str | None = None
    """That of the dataset all of whose patches these are; else None."""

    def patch(self, n: int) -> np.ndarray:
        """Pixels uint8 [H, W, 3] of query `n`."""
        return np.asarray(self.pixels.array[self.rows[n]])


def by_id(ids: Iterable[str], dataset: Dataset, gallery: pd.DataFrame) -> Queries:
    """Patches of the dataset, with the prob of the gallery. Raises UserError for unknown ids, with the nearest id."""
    all_ids = pd.Index(dataset.patches.id)
    rows = all_ids.get_indexer(pd.Index(ids))
    unknown = [id for id, row in zip(ids, rows, strict=True) if row < 0]
    if unknown:
        listed = f" Its ids are in {dataset.path / PATCHES}"
        raise UserError(*[f"--id {id}: {dataset.path} has no such patch.{nearest_ids(id, all_ids) or listed}" for id in unknown])
    table = dataset.patches.iloc[rows].reset_index(drop=True)
    return Queries(_table(table.assign(prob=table.id.map(gallery.set_index("id").prob))), _pixels(dataset), rows)


def at_place(slide: str, x: float, y: float, dataset: Dataset) -> str:
    """The id of the patch of a slide that lies nearest to `x`, `y`, px as in the dataset. Raises UserError where slide or places are unknown."""
    patches = dataset.patches
    of_slide = patches[patches.wsi == slide]
    if of_slide.empty:
        known = sorted(patches.wsi.dropna().unique())
        more = nearest(slide, known) or f" Its {len(known):,} slides are in {dataset.path / PATCHES}"
        raise UserError(f"--slide {slide}: {dataset.path} has no such slide.{more}")
    placed = of_slide.dropna(subset=["x", "y"])
    if placed.empty:
        raise UserError(f"--slide {slide}: its patches have no coordinates in {dataset.path}; name a patch with --id")
    far = np.hypot(placed.x.astype(float) - x, placed.y.astype(float) - y)
    found = placed.loc[far.idxmin()]
    say(f"slide {slide}: the patch nearest to {x:g}, {y:g} is {found.id} at {found.x}, {found.y}, {far.min():.0f} px away")
    return found.id


def by_image(files: Iterable[Path], size_px: int) -> Queries:
    """Image files; label, slide and prob are unknown. Raises UserError for each file that is no patch of `size_px`."""
    patches, problems = [], []
    for file in files:
        try:
            patches.append(_read(file, size_px))
        except BadImage as reason:
            problems.append(f"--image {file}: {reason}")
    if problems:
        raise UserError(*problems)
    pixels = np.stack(patches)
    table = pd.DataFrame({"image": [str(file) for file in files], "view_hash": view_hashes(pixels)})
    return Queries(_table(table), Loaded(pixels), np.arange(len(pixels)))


def by_source(source: Dataset, name: Any, size_px: int) -> Queries:
    """All patches of a dataset. Raises UserError where their size is not `size_px`."""
    if source.size_px != size_px:
        raise UserError(
            f"--source {name}: its patches are {source.size_px} px, those of the gallery {size_px} px; give patches of that size"
        )
    return Queries(_table(source.patches), _pixels(source), np.arange(len(source)), source.digest)


def _read(file: Path, size_px: int) -> np.ndarray:
    try:
        patch = decode(Path(file).read_bytes())
    except BadImage as reason:
        raise BadImage(f"{reason}; give an RGB image of {size_px} x {size_px} px") from None
    except OSError as error:
        raise BadImage(f"cannot be read ({error.strerror}); name an image file") from None
    if len(patch) != size_px:
        raise BadImage(f"is {len(patch)} px, the gallery's patches are {size_px} px; give a patch of that size and magnification")
    return patch


def _pixels(dataset: Dataset) -> Pixels:
    return Pixels(dataset.path / PIXELS)


def _table(patches: pd.DataFrame) -> pd.DataFrame:
    return conform(patches.reindex(columns=list(QUERY_COLUMNS)), QUERY_COLUMNS)
