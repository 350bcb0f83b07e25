import numpy as np
import pytest

from pcam_ssl.data.duplicates import near_pairs, view_bits


def pairs(bits, within_bits):
    """{(i, j): distance} of all pairs, having checked that none is told twice."""
    found = [pair for chunk in near_pairs(bits, within_bits) for pair in zip(*(part.tolist() for part in chunk), strict=True)]
    assert len(found) == len({pair[:2] for pair in found})
    return {(i, j): distance for i, j, distance in found}


def test_view_bits_reads_hexadecimal_hashes():
    assert view_bits(["0000000000000000", "00000000000000ff", "8000000000000001"]).tolist() == [0, 255, 2**63 + 1]


def test_pairs_by_hand():
    bits = np.array([0b0000, 0b0001, 0b0111, 0b1111, 1 << 63], dtype=np.uint64)
    assert pairs(bits, 0) == {}
    assert pairs(bits, 1) == {(0, 1): 1, (2, 3): 1, (0, 4): 1}
    assert pairs(bits, 2) == {(0, 1): 1, (2, 3): 1, (0, 4): 1, (1, 2): 2, (1, 4): 2}
    assert pairs(bits, 3) == pairs(bits, 2) | {(0, 2): 3, (1, 3): 3}


def test_equal_hashes_are_pairs_of_distance_0():
    assert pairs(np.array([7, 9, 7, 7], dtype=np.uint64), 0) == {(0, 2): 0, (0, 3): 0, (2, 3): 0}


@pytest.mark.parametrize("differing", [(0, 16, 32), (15, 31, 47), (61, 62, 63), (21, 42, 63)])
def test_a_pair_is_found_wherever_its_bits_differ(differing):
    one = np.uint64(0x0123456789ABCDEF)
    other = one ^ np.uint64(sum(1 << place for place in differing))
    assert pairs(np.array([one, other]), 3) == {(0, 1): 3}


@pytest.mark.parametrize("within_bits", range(7))
def test_pairs_equal_a_comparison_of_all_with_all(within_bits):
    rng = np.random.default_rng(within_bits)
    bits = rng.integers(0, 2**64, 300, dtype=np.uint64)[rng.integers(0, 300, 900)]
    for _ in range(5):  # some equal, others up to 5 bits from a third
        bits ^= np.uint64(1) << rng.integers(0, 64, 900, dtype=np.uint64) * rng.integers(0, 2, 900, dtype=np.uint64)
    distance = np.bitwise_count(bits[:, None] ^ bits[None])
    expected = {(i, j): distance[i, j] for i, j in np.argwhere(np.triu(distance <= within_bits, 1)).tolist()}
    assert expected
    assert pairs(bits, within_bits) == expected


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_hashes_make_no_pair(n):
    assert pairs(np.zeros(n, dtype=np.uint64), 3) == {}
