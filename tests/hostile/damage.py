"""
The generator of damage: each kind is a function `(rng, place) -> Case` that writes something damaged, or strange and
right, into a place. The kinds themselves are in `hostile/kinds`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np

from efp_hf.data.synthetic import draw_lesion


class Outcome(Enum):
    """What may come of a case. An error always names the file or the field, and never stops what is good."""

    READ = "it is read, without a note, and right"
    REFUSED = "an error"
    NOTED = "an error, or a result with a note: what is missing was made up"
    JUDGED = "an error, a note, or exactly what an independent reader makes of it"
    UNSEEN = "it is none of the files that are looked for"


@dataclass
class Place:
    """Where a kind writes: a folder, the name that the damaged file should have there, and what it should show."""

    folder: Path
    image_id: str
    photo: np.ndarray  # RGB, (height, width, 3)
    truth: np.ndarray  # boolean, (height, width): the mask of the photo
    seed: int  # kinds that walk through a list of values take the one of this number
    outside: Path  # another folder, for the targets of links

    @classmethod
    def drawn(cls, rng: np.random.Generator, folder: Path, image_id: str, seed: int, outside: Path) -> "Place":
        height, width = (int(side) for side in rng.integers(40, 90, 2))
        photo, truth = draw_lesion(int(rng.integers(1000)), height, width)
        return cls(folder, image_id, np.asarray(photo), np.asarray(truth) > 0, seed, outside)


@dataclass
class Case:
    """
    What was written, and what may come of it: `pixels` (RGB) or `truth` (boolean) are what a right reader makes of
    it, where that is known; otherwise Pillow is asked. An error names `path` and each of `words`.
    """

    path: Path
    outcome: Outcome
    pixels: np.ndarray | None = None
    truth: np.ndarray | None = None
    words: tuple[str, ...] = ()
    inputs: list = field(default_factory=list)  # what is passed to a door that takes no file


@dataclass
class Kind:
    name: str
    subject: str
    write: Callable[[np.random.Generator, Place], Case]
    doors: tuple[str, ...] | None  # None: all those of the subject


KINDS: dict[str, Kind] = {}


def kind(subject: str, name: str | None = None, doors: tuple[str, ...] | None = None) -> Callable:
    """Registers a function as a kind of damage to a subject: an image, a mask, a table …"""

    def register(write: Callable) -> Callable:
        full = f"{subject}: {name or write.__name__.replace('_', ' ')}"
        assert full not in KINDS, full
        KINDS[full] = Kind(full, subject, write, doors)
        return write

    return register


def rng_of(*parts) -> np.random.Generator:
    """The same numbers for the same parts, in every process."""
    return np.random.default_rng(list("/".join(map(str, parts)).encode()))


def cut(content: bytes, rng: np.random.Generator, low: float, high: float) -> bytes:
    """The beginning of the bytes: a share between `low` and `high` of them."""
    return content[: int(len(content) * rng.uniform(low, high))]


def flip_bits(
    content: bytes, rng: np.random.Generator, start: int = 0, stop: int | None = None, count: int = 3
) -> bytes:
    flipped = bytearray(content)
    for position in rng.integers(start, stop or len(content), count):
        flipped[position] ^= 1 << int(rng.integers(8))
    return bytes(flipped)
