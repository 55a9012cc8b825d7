"""Images that look alike: perceptual hashes, and which of them are near."""

import numpy as np
from PIL import Image

from ..extras import needing

with needing("train", __name__):
    import imagehash

# Of 256. In ISIC 2018 the same photo in other colours or another crop is up to about 56 bits away; unrelated images of
# small lesions begin at 40. Keeping too many images together costs nothing, a copy on two sides does.
HASH_BITS_APART = 56
HASHED_SIDE = 256


def perceptual_hash(image: Image.Image) -> str:
    """256-bit perceptual hash (pHash of a 16×16 grid) as hexadecimal; alike for images that look alike."""
    return str(
        imagehash.phash(image.convert("L").resize((HASHED_SIDE, HASHED_SIDE), Image.Resampling.BILINEAR), hash_size=16)
    )


def hash_words(hashes: list[str]) -> np.ndarray:
    """Hexadecimal hashes as `(count, 4)` words of 64 bits."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint64).reshape(-1, 4)


def bits_between(words: np.ndarray, other: np.ndarray) -> np.ndarray:
    """In how many bits each of the hashes differs from the other one."""
    return np.bitwise_count(words ^ other).sum(-1)


def near_duplicates(hashes: list[str], bits_apart: int = HASH_BITS_APART) -> list[tuple[int, int]]:
    """Pairs of positions whose hashes differ in at most `bits_apart` bits."""
    bits = np.array([np.frombuffer(bytes.fromhex(value), dtype=np.uint8) for value in hashes])
    pairs = []
    for row in range(len(bits) - 1):
        distances = np.bitwise_count(bits[row + 1 :] ^ bits[row]).sum(1)
        pairs += [(row, row + 1 + int(other)) for other in np.flatnonzero(distances <= bits_apart)]
    return pairs
