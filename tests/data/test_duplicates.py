import numpy as np
import pytest

from efp_hf.data import duplicates
from efp_hf.data.duplicates import (
    HASH_BITS_APART,
    bits_between,
    compare_all,
    compare_samples,
    hash_bits,
    near_duplicates,
    sample_of_bits,
)


def planted_hashes(count: int, copies: int) -> np.ndarray:
    """
    Words of random hashes, about 128 bits apart; each of the last `copies` is at most `HASH_BITS_APART` bits from one
    of the first.
    """
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2, (count, 256)).astype(np.uint8)
    for copy in range(copies):
        bits[-1 - copy] = bits[copy]
        bits[-1 - copy, generator.choice(256, generator.integers(1, HASH_BITS_APART + 1), replace=False)] ^= 1
    return np.packbits(bits, axis=1).view(np.uint64)


def as_text(words: np.ndarray) -> list[str]:
    return [row.tobytes().hex() for row in words]


def brute_force_pairs(words: np.ndarray, bits_apart: int) -> set[tuple[int, int]]:
    return {
        (row, int(other))
        for row in range(len(words))
        for other in np.flatnonzero(bits_between(words, words[row]) <= bits_apart)
        if other > row
    }


@pytest.mark.parametrize("compare", [compare_all, compare_samples])
def test_planted_copies_are_found_and_nothing_else(compare):
    words = planted_hashes(2000, 300)
    groups = compare(words, HASH_BITS_APART)
    assert len(set(groups.tolist())) == 1700
    assert all(groups[copy] == groups[-1 - copy] for copy in range(300))
    assert brute_force_pairs(words, HASH_BITS_APART) == {(copy, 1999 - copy) for copy in range(300)}


def test_distance_counts_to_the_bit():
    bits = hash_bits(planted_hashes(40, 0))
    for copy in range(10):
        bits[-1 - copy] = bits[copy]
        bits[-1 - copy, : 56 + copy % 2] ^= 1
    groups = compare_all(np.packbits(bits, axis=1).view(np.uint64), 56)
    assert [groups[copy] == groups[-1 - copy] for copy in range(10)] == [True, False] * 5


@pytest.mark.parametrize("in_full", [0, 20_000])
def test_alike_by_way_of_others_are_connected_by_few_pairs(monkeypatch, in_full):
    monkeypatch.setattr(duplicates, "COMPARED_IN_FULL", in_full)
    bits = hash_bits(planted_hashes(300, 0))
    for step in range(1, 100):  # a chain: each 40 bits from the one before, the ends far apart
        bits[step] = bits[step - 1]
        bits[step, (np.arange(40) + 40 * step) % 256] ^= 1
    bits[200:] = bits[150]  # one image a hundred times
    pairs = near_duplicates(as_text(np.packbits(bits, axis=1).view(np.uint64)))
    assert sorted(pairs) == [(0, other) for other in range(1, 100)] + [(150, other) for other in range(200, 300)]


def test_no_hashes_and_one_are_no_pairs():
    assert near_duplicates([]) == near_duplicates(["5" * 64]) == []


def test_sampled_bits_are_different_and_the_same_everywhere():
    assert sample_of_bits(0, 256, 5) == [87, 46, 15, 44, 192]
    assert len(set(sample_of_bits(3, 256, 17))) == 17


@pytest.mark.slow
def test_samples_find_what_a_full_comparison_finds():
    words = planted_hashes(10_000, 3000)
    full, sampled = (compare(words, HASH_BITS_APART) for compare in (compare_all, compare_samples))
    found = np.mean([sampled[copy] == sampled[-1 - copy] for copy in range(3000)])
    assert all(full[copy] == full[-1 - copy] for copy in range(3000)) and found >= 0.999
