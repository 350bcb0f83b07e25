"""The patches of a gallery without their vectors: what `exclusion` needs, wherever the vectors are."""

from functools import cached_property

import numpy as np
import pandas as pd


class GalleryTable:
    """N patches. A row is a position in `table`; a slide code is a position in `slides`."""

    table: pd.DataFrame
    """Columns of `index.COLUMNS`, by row."""

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def ids(self) -> pd.Index:
        """The id of each row, as a pandas Index for fast lookup."""
        return pd.Index(self.table["id"])

    @cached_property
    def slides(self) -> pd.Index:
        """Names of the gallery's slides. A slide code is a position in it; -1 is an unknown slide."""
        return pd.Index(pd.unique(self.table["wsi"].dropna()))

    @cached_property
    def slide_codes(self) -> np.ndarray:
        """int64 [N]: the slide code of each row."""
        return self.codes_of(self.table["wsi"])

    def codes_of(self, slides) -> np.ndarray:
        """int64 [Q]: slide codes of the names in `slides`; -1 where unknown, or where the gallery has no such slide."""
        return self.slides.get_indexer(pd.Index(slides)).astype(np.int64)
