"""Pixels of a dataset, from the file or a copy on the device, as one view of each patch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pcam_ssl.data.features import Features
from pcam_ssl.data.fixed_views import FixedViews
from pcam_ssl.data.tensor_views import DrawnViews, pack, render
from pcam_ssl.data.views import Views

COPIED_AT_ONCE = 4096
"""Patches read from the file at once when pixels are copied to the device: 113 MB at 96 px."""


class Pixels:
    """Memory-mapped uint8 `[N, H, W, 3]`. It is pickled as a path, so loader processes get no copy."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._array: np.ndarray | None = None

    @property
    def array(self) -> np.ndarray:
        if self._array is None:
            self._array = np.load(self.path, mmap_mode="r")
        return self._array

    def __getstate__(self):
        return {"path": self.path, "_array": None}

    def draw(self, rows: np.ndarray, views: Sequence[Views | FixedViews], keys: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """One view of each patch, uint8 `[n, H, W, 3]`; `views` and `keys` `[n]` choose it."""
        patches = self.array[rows]
        for i, (row, each, key) in enumerate(zip(rows, views, keys, strict=True)):
            patches[i] = each(patches[i], key, row)
        return torch.from_numpy(patches)


class DevicePixels:
    """Pixels whose training views are computed on the device. Loader processes draw the views, and `render` in the training process
    computes them. The patches themselves are sent with each batch, or lie on the device after `copy`."""

    def __init__(self, pixels: Pixels, device: torch.device):
        self.pixels, self.device = pixels, device
        self.rows: np.ndarray | None = None
        self._copied: torch.Tensor | None = None

    def __getstate__(self):
        # Loader processes need the rows that were copied, not the copy.
        return {"pixels": self.pixels, "device": self.device, "rows": self.rows, "_copied": None}

    def copy(self, rows: np.ndarray) -> None:
        """Copy the patches of these rows to the device, once; only they can then be drawn."""
        rows, size_px = np.unique(rows), self.pixels.array.shape[1]
        copied = torch.empty((len(rows), 3, size_px, size_px), dtype=torch.uint8, device=self.device)
        for begin in range(0, len(rows), COPIED_AT_ONCE):
            part = torch.from_numpy(self.pixels.array[rows[begin : begin + COPIED_AT_ONCE]])
            copied[begin : begin + len(part)] = part.to(self.device).permute(0, 3, 1, 2)
        self.rows, self._copied = rows, copied

    def draw(self, rows: np.ndarray, views: Sequence[Views], keys: Sequence[tuple[int, ...]]) -> DrawnViews:
        """One view of each patch, not rendered yet; `views` and `keys` `[n]` choose it, and those of `Pixels.draw` are the same."""
        drawn = [each.parameters(key, self.pixels.array.shape[1]) for each, key in zip(views, keys, strict=True)]
        patches = self.pixels.array[rows] if self.rows is None else np.searchsorted(self.rows, rows)
        return pack(torch.from_numpy(patches), drawn)

    def render(self, batch: dict[str, torch.Tensor | DrawnViews]) -> dict[str, torch.Tensor]:
        """The batch with its drawn views as patches uint8 `[n, H, W, 3]` on the device."""
        return {name: self._rendered(value) if isinstance(value, DrawnViews) else value for name, value in batch.items()}

    def _rendered(self, drawn: DrawnViews) -> torch.Tensor:
        patches = drawn.patches.to(self.device, non_blocking=True)
        return render(patches.permute(0, 3, 1, 2) if self._copied is None else self._copied[patches], drawn)


Inputs = Pixels | DevicePixels | Features
"""What networks are fed with: pixels, or the features of a frozen backbone."""
