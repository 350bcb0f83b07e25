"""Exact duplicates, in any of the eight dihedral views, and pairs of patches whose view hashes differ in a few bits."""

import hashlib
from collections.abc import Iterator
from itertools import pairwise

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


NEAR_BITS = 3
"""View hashes this close are one patch saved twice: 99 % of patches saved again as JPEG of quality 75, see `data.statistics`."""
MOST_BITS = 6
"""99 % of patches saved again as JPEG of quality 50 are within it. Beyond, bands grow short and the search slow: 84 s for 8 bits."""


def view_bits(hashes) -> np.ndarray:
    """uint64 [N] from view hashes of 16 hex digits."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=">u8").astype(np.uint64)


def near_pairs(bits: np.ndarray, within_bits: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """All pairs of `bits` uint64 [N] at most `within_bits` apart, each once: places i < j and distance, in arrays of at most N.

    Multi-index hashing (Norouzi et al. 2012): the 64 bits are cut into one band more than bits may differ, so near hashes agree in a
    whole band. Sorted by a band, those stand together and are compared with the next one, the one after that, and so on, until all
    runs of equal bands have ended. Memory grows with N alone; 277,000 hashes take 0.3 s within 3 bits and
    9 s within 6, in 100 MB (one core of a desktop CPU).
    """
    edges = np.linspace(0, 64, within_bits + 2).round().astype(int)
    masks = [np.uint64(((1 << int(stop - start)) - 1) << int(start)) for start, stop in pairwise(edges)]
    for number, mask in enumerate(masks):
        order = np.argsort(bits & mask, kind="stable")
        ordered = bits[order]
        band = ordered & mask
        first = np.arange(len(bits))
        for step in range(1, len(bits)):
            first = first[: np.searchsorted(first, len(bits) - step)]
            first = first[band[first] == band[first + step]]
            if not len(first):
                break
            differing = ordered[first] ^ ordered[first + step]
            distance = np.bitwise_count(differing)
            found = distance <= within_bits
            for earlier in masks[:number]:
                found &= (differing & earlier) != 0  # a pair that agrees there has been found there
            if found.any():
                i, j = order[first[found]], order[first[found] + step]
                yield np.minimum(i, j), np.maximum(i, j), distance[found]
