"""Pairs of patches whose view hashes differ in a few bits. No torch."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

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
