"""Images that look alike: perceptual hashes, and which of them are near."""

import hashlib
import math

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..extras import needing

with needing("train", __name__):
    import imagehash

# Of 256. In ISIC 2018 the same photo in other colours or another crop is up to about 56 bits away; unrelated images of
# small lesions begin at 40. Keeping too many images together costs nothing, a copy on two sides does.
HASH_BITS_APART = 56
# Of 256. Copies of the 139 ISIC 2018 images at native size are at most 14 bits away: at 256×256 or 64 pixels, saved as
# JPEG of quality 30; of quality 10, at most 26. Different images begin at 40 bits: there a test set would be refused
# for nothing. Not found: copies that are turned, mirrored, cropped by more than 1 %, or much brighter.
SAME_IMAGE_BITS = 26
HASHED_SIDE = 256
COMPARED_IN_FULL = 20_000  # different hashes: some seconds
MISSED = 1e-3
BLOCK = 256  # hashes that are compared with all others at once
NEIGHBOURS = 8  # with the same sample of bits; more than these are alike, and meet in other samples


def perceptual_hash(image: Image.Image) -> str:
    """256-bit perceptual hash (pHash of a 16×16 grid) as hexadecimal; alike for images that look alike."""
    return str(
        imagehash.phash(image.convert("L").resize((HASHED_SIDE, HASHED_SIDE), Image.Resampling.BILINEAR), hash_size=16)
    )


def hash_words(hashes: list[str]) -> np.ndarray:
    """Hexadecimal hashes as `(count, 4)` words of 64 bits."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint64).reshape(-1, 4)


def hash_bits(words: np.ndarray) -> np.ndarray:
    """`(count, 256)` of 0 and 1."""
    return np.unpackbits(words.view(np.uint8), axis=1)


def bits_between(words: np.ndarray, other: np.ndarray) -> np.ndarray:
    """In how many bits each of the hashes differs from the other one."""
    return np.bitwise_count(words ^ other).sum(-1)


def near_duplicates(hashes: list[str], bits_apart: int = HASH_BITS_APART) -> list[tuple[int, int]]:
    """
    Pairs of positions that connect all images whose hashes differ in at most `bits_apart` bits, directly or by way of
    others: the first of each group with each other one, so that there are never more pairs than images.

    Up to `COMPARED_IN_FULL` different hashes, all are compared. Of more, a pair that is `bits_apart` bits apart and
    connected by no others is missed with the probability `MISSED`, a nearer one much less often; the time then grows
    with the power 1.4 of their number.
    """
    words, inverse = np.unique(hash_words(hashes), axis=0, return_inverse=True)
    group = compare_all if len(words) <= COMPARED_IN_FULL else compare_samples
    groups = group(words, bits_apart)[inverse.ravel()]
    first = np.unique(groups, return_index=True)[1][groups]
    return [(int(first[position]), int(position)) for position in np.flatnonzero(first != np.arange(len(hashes)))]


def compare_all(words: np.ndarray, bits_apart: int) -> np.ndarray:
    """The number of the group of each hash."""
    signs = hash_bits(words).astype(np.float32) * 2 - 1
    groups = np.arange(len(words))
    for start in range(0, len(words), BLOCK):
        agreement = signs[start : start + BLOCK] @ signs[start:].T  # equal bits - different bits, exact in float32
        rows, columns = np.nonzero(agreement >= signs.shape[1] - 2 * bits_apart)
        groups = merge_groups(groups, rows + start, columns + start)
    return groups


def compare_samples(words: np.ndarray, bits_apart: int) -> np.ndarray:
    """
    As [`compare_all`], by locality-sensitive hashing: compared are hashes that agree in a sample of bits, of which
    there are about as many values as hashes, and that for as many samples as `MISSED` asks for (Indyk and Motwani,
    1998, "Approximate nearest neighbors").
    """
    columns_of_bits = np.ascontiguousarray(hash_bits(words).T)
    num_bits = len(columns_of_bits)
    sampled = math.ceil(math.log2(len(words)))
    agreement = math.comb(num_bits - bits_apart, sampled) / math.comb(num_bits, sampled)
    groups = np.arange(len(words))
    for number in range(math.ceil(math.log(MISSED) / math.log1p(-agreement))):
        keys = np.zeros(len(words), np.uint64)
        for bit in sample_of_bits(number, num_bits, sampled):
            keys = keys << 1 | columns_of_bits[bit]
        keys = np.sort(keys << 32 | np.arange(len(words), dtype=np.uint64))
        order, keys = (keys & 0xFFFFFFFF).astype(int), keys >> 32
        for step in range(1, NEIGHBOURS + 1):
            at = np.flatnonzero(keys[step:] == keys[:-step])
            rows, columns = order[at], order[at + step]
            apart = groups[rows] != groups[columns]
            rows, columns = rows[apart], columns[apart]
            near = bits_between(words[rows], words[columns]) <= bits_apart
            groups = merge_groups(groups, rows[near], columns[near])
    return groups


def sample_of_bits(number: int, num_bits: int, sampled: int) -> list[int]:
    """Drawn by SHA-256, as no generator of random numbers is the same in all versions of its library."""
    ranks = [hashlib.sha256(f"{number}:{bit}".encode()).digest() for bit in range(num_bits)]
    return sorted(range(num_bits), key=ranks.__getitem__)[:sampled]


def merge_groups(groups: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The groups with those of the positions `rows` and `columns` united."""
    if np.array_equal(groups[rows], groups[columns]):
        return groups
    united = coo_array((np.ones(len(rows), bool), (groups[rows], groups[columns])), shape=(len(groups), len(groups)))
    return connected_components(united, directed=False)[1][groups]
