"""What a person has marked on a photo: clicks and a box, in pixels of the upright photo."""

import math
from dataclasses import dataclass

from ..inference.correction import check_prompts
from ..lesion.structures import LESION

MAX_POINTS = 20  # each holds the logits of the step before it in memory
KINDS = ("skin", "lesion")  # by label


def words_of(name: str) -> dict[str, str]:
    """What each of `KINDS` is called where the class has this name."""
    return {"lesion": name, "skin": "skin" if name == LESION else "background"}


@dataclass(frozen=True)
class Marks:
    """
    `points` are (x, y, label) in the order in which they were clicked, label 1 lesion and 0 skin, `box` is (left, top,
    right, bottom), `corner` the (x, y) of a box whose opposite corner is not known yet.
    """

    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    corner: tuple[float, float] | None = None

    def __bool__(self) -> bool:
        return bool(self.points or self.box)

    def names(self, name: str = LESION) -> list[str]:
        """A line for each of them, as a person reads it; `name` is that of the class."""
        words = [words_of(name)[KINDS[label]] for *_, label in self.points]
        names = [f"{k}: {words[k - 1]} ({x:.0f}, {y:.0f})" for k, (x, y, _) in enumerate(self.points, start=1)]
        if self.box is not None:
            left, top, right, bottom = self.box
            names.append(f"box ({left:.0f}, {top:.0f}) to ({right:.0f}, {bottom:.0f})")
        if self.corner is not None:
            names.append(f"corner of a box ({self.corner[0]:.0f}, {self.corner[1]:.0f})")
        return names

    def only(self, names: list[str], of_class: str = LESION) -> "Marks":
        """Those of them whose names are given."""
        kept = [name in names for name in self.names(of_class)]
        points = tuple(point for point, is_kept in zip(self.points, kept, strict=False) if is_kept)
        others = iter(kept[len(self.points) :])
        box = self.box if self.box is not None and next(others) else None
        corner = self.corner if self.corner is not None and next(others) else None
        return Marks(points, box, corner)

    def with_click(self, x: float, y: float, kind: str) -> "Marks":
        """One click more: on the "lesion", on "skin", or on a corner of the "box", of which there is one."""
        if kind != "box":
            return Marks((*self.points, (x, y, KINDS.index(kind))), self.box)
        if self.corner is None:
            return Marks(self.points, self.box, (x, y))
        (left, right), (top, bottom) = sorted((self.corner[0], x)), sorted((self.corner[1], y))
        return Marks(self.points, (left, top, right, bottom))

    def scaled(self, size: tuple[int, int], to: tuple[int, int]) -> "Marks":
        """The same in pixels of a picture of another (height, width)."""

        def scale(x: float, y: float) -> tuple[float, float]:
            return x * to[1] / size[1], y * to[0] / size[0]  # in this order, so that the border stays the border

        return Marks(
            tuple((*scale(x, y), label) for x, y, label in self.points),
            self.box and (*scale(*self.box[:2]), *scale(*self.box[2:])),
            self.corner and scale(*self.corner),
        )

    def data(self) -> dict:
        """As the API takes them."""
        points = [[x, y] for x, y, _ in self.points]
        return {"points": points, "labels": [label for *_, label in self.points], "box": self.box and list(self.box)}

    def check(self, size: tuple[int, int]) -> None:
        """
        Raises:
            ValueError: too many points, one outside the photo of this (height, width), a label that is not 0 or 1, a
                box outside of it or without area.
        """
        if len(self.points) > MAX_POINTS:
            raise ValueError(f"There must be at most {MAX_POINTS} points, got {len(self.points)}. Take some away.")
        for *_, label in self.points:
            if label not in (0, 1):
                raise ValueError(f"`labels` must be 1 (lesion) or 0 (skin), got {label}.")
        check_prompts(self.points, self.box, size)


def read_marks(points, labels, box) -> Marks:
    """
    What a program sends: a list of [x, y], a list of 1 or 0 (without it all are lesion), [left, top, right, bottom].

    Raises:
        ValueError: anything else.
    """
    points = [numbers(point, 2, "points", "a list of [x, y]") for point in listed(points, "points", "a list of [x, y]")]
    labels = [1] * len(points) if labels is None else listed(labels, "labels", "a list of 1 (lesion) or 0 (skin)")
    if len(labels) != len(points):
        raise ValueError(f"`labels` must be one a point, got {len(labels)} for {len(points)} points.")
    for label in labels:
        if isinstance(label, bool) or label not in (0, 1):
            raise ValueError(f"`labels` must be 1 (lesion) or 0 (skin), got {str(label)[:50]!r}.")
    marked = tuple((x, y, int(label)) for (x, y), label in zip(points, labels, strict=True))
    return Marks(marked, None if not box else numbers(box, 4, "box", "[left, top, right, bottom]"))


def listed(value, name: str, rule: str) -> list:
    if value is not None and not isinstance(value, list | tuple):
        raise ValueError(f"`{name}` must be {rule}, got {str(value)[:50]!r}.")
    return list(value or ())


def numbers(value, count: int, name: str, rule: str) -> tuple[float, ...]:
    """`count` finite numbers."""
    values = listed(value, name, rule)
    is_number = [isinstance(part, int | float) and not isinstance(part, bool) for part in values]
    if len(values) != count or not all(is_number) or not all(math.isfinite(part) for part in values):
        raise ValueError(f"`{name}` must be {rule} in pixels of the photo, got {str(value)[:50]!r}.")
    return tuple(float(part) for part in values)
