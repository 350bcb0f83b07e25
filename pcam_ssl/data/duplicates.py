"""Exact duplicates: patches with the same pixels in one of the eight dihedral views. No torch."""

import hashlib

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import Dataset

FLAT_HASH = "0" * 16
"""The view hash of every patch of one flat colour."""


def is_flat(patches: pd.DataFrame) -> pd.Series:
    """Bool [N]: patches of one flat colour, which repeat without being copies of anything."""
    return patches["view_hash"] == FLAT_HASH


def duplicate_keys(dataset: Dataset) -> pd.Series:
    """A text for each row of the dataset, equal for exact duplicates, mirrored and turned ones too.

    It is the `pixel_hash`. Only patches that share a view hash but not their pixels are looked at again: duplicates in another
    view have equal view hashes, to the bit.
    """
    patches = dataset.patches
    hashes, views = pd.factorize(patches["pixel_hash"])[0], pd.factorize(patches["view_hash"])[0]
    distinct = pd.DataFrame({"view": views, "hash": hashes}).drop_duplicates()
    n_hashes = np.bincount(distinct["view"], minlength=views.max() + 1)
    unsure = (n_hashes[views] > 1) & ~is_flat(patches).to_numpy()
    keys = patches["pixel_hash"].to_numpy(dtype=object)
    for row in np.flatnonzero(unsure):
        keys[row] = view_free_digest(dataset.pixels[row])
    return pd.Series(keys, index=patches["row"], dtype="str")


def view_free_digest(patch: np.ndarray) -> str:
    """Hex digest of the pixels uint8 [H, H, 3], the same for all eight dihedral views: the least of their digests."""
    turned = [np.rot90(side, turns) for side in (patch, patch[:, ::-1]) for turns in range(4)]
    return min(hashlib.blake2b(np.ascontiguousarray(view).data, digest_size=16).hexdigest() for view in turned)


def conflicting_duplicates(rows: pd.DataFrame, keys: pd.Series) -> pd.DataFrame:
    """Those patches of `rows` (columns `row`, `label`) that have an exact duplicate among them with the other label.

    `keys` is what `duplicate_keys` made. Flat patches count too: one picture cannot have two labels.
    """
    labelled = rows[rows["label"].notna()]
    key = keys.loc[labelled["row"]].to_numpy()
    n_labels = labelled["label"].groupby(key).transform("nunique")
    return labelled.assign(key=key)[(n_labels > 1).to_numpy()]
