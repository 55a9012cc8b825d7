"""One person at one browser: the image that is shown, its clicks, and what becomes of it."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from transformers.exporters.base import ExportedModel

from ..image_processing_efp import EFPImageProcessor
from ..inference.correction import Correction
from ..inference.drawing import outline_lesion
from ..inference.folder import predict_one, read_for_model, segment_read
from ..inference.prediction_table import table_text
from ..modeling_efp import EFPForSegmentation
from ..page.marks import Marks
from ..page.photo import make_preview
from ..page.pictures import draw_marks
from .decisions import digest, read_box, read_points
from .queue import Queue


def takes_clicks(model: EFPForSegmentation | ExportedModel) -> bool:
    return getattr(model, "prompt_encoder", None) is not None


class Photo:
    """
    An image file, decoded as `efp predict` decodes it, and its masks.

    Args:
        path: raises a `ValueError` where it cannot be read.
    """

    def __init__(self, path: Path, model: EFPForSegmentation | ExportedModel, processor: EFPImageProcessor):
        read = read_for_model(path, processor)
        if isinstance(read, str):
            raise ValueError(read)
        self.image, self.size = read
        self.preview = make_preview(self.image, path, self.size)
        self.path, self.processor, self.correction = path, processor, None
        if takes_clicks(model):
            self.correction = Correction(self.image, model, processor, self.size)
        else:
            (self.logits,) = segment_read([read], model, processor)

    def mask(self, marks: Marks = Marks(), size: tuple[int, int] | None = None) -> tuple[np.ndarray, float]:  # noqa: B008
        """
        The mask after these clicks and in this box, in pixels of the file's upright image, at `size`, by default the
        image's own; and its expected Jaccard.

        Raises:
            ValueError: logits that are not finite.
        """
        size = size or self.size
        if self.correction is None:
            prediction = predict_one(self.path, self.image, size, self.logits, self.processor)
            if prediction.error is not None:
                raise ValueError(prediction.error)
            return prediction.mask, prediction.expected_jaccard
        result = self.correction.segment(marks.points, marks.box, size)
        return result["segmentation"].numpy(force=True), result["expected_jaccard"]


class Reviewer:
    """
    Args:
        browser: its name in the queue.
    """

    def __init__(self, browser: str, queue: Queue):
        self.browser, self.queue, self.decisions = browser, queue, queue.decisions
        decided = queue.decided()
        self.history = sorted(decided, key=lambda image: decided[image]["time"])  # to go back to
        self.left: list[Path] = []  # of these by another [`go_back`]
        self.photo: Photo | None = None
        self.marks = Marks()
        self.past: list[Marks] = []  # what [`undo`] goes back to
        self.decision, self.seen, self.started = "", 0, 0.0
        self.checksum = ""
        self.expected_jaccard = 0.0  # of the last [`picture`]
        self.view = 0  # a number of what is shown: a key that was pressed before is not of the image that came after
        self.go_on()

    def go_on(self) -> None:
        """Shows the queue's next image; none where none waits."""
        self.history += reversed(self.left)
        self.left = []
        while (image := self.queue.next(self.browser)) is not None and not self.open(image):
            pass
        if image is None:
            self.photo, self.marks, self.past, self.decision = None, Marks(), [], ""
            self.view += 1

    def open(self, image: Path) -> bool:
        """Shows an image, with the marks of its decision; `False` where it cannot be read, or be in the set."""
        with self.decisions.locked() as (_, rows):
            refused = self.decisions.refusals([image], rows)
        try:
            if refused:
                raise FileExistsError(refused[image])
            checksum = digest(image) if image.exists() else ""  # before its pixels, which may be of another file then
            photo = Photo(image, self.queue.model, self.queue.processor)
        except (OSError, ValueError) as error:
            self.queue.fail(image, str(error))
            return False
        self.photo, self.checksum = photo, checksum
        of_image = rows.get(table_text(image.name), [])
        self.seen = len(of_image)
        self.decision = of_image[-1]["decision"] if of_image and of_image[-1]["photo"] == checksum else ""
        self.marks, self.past, self.started = Marks(), [], time.monotonic()
        if self.decision == "corrected" and photo.correction is not None:
            self.marks = Marks(tuple(read_points(of_image[-1]["points"])), read_box(of_image[-1]["box"]))
            counts = range(len(self.marks.points))
            self.past = [replace(self.marks, points=self.marks.points[:count]) for count in counts]
            if self.marks.box is not None:
                self.past.insert(0, Marks())
        self.view += 1
        self.queue.show(self.browser, image)
        return True

    def go_back(self) -> None:
        """Shows the image that was decided before; the one that is shown waits again, or is one to go back to again."""
        left = [self.photo.path] if self.photo is not None and self.photo.path in self.queue.decided() else []
        while self.history:
            if self.open(self.history.pop()):
                self.left += left
                break

    def click(self, x: float, y: float, kind: str) -> None:
        """
        A click at a pixel of the preview, as of [`Marks.with_click`].

        Raises:
            ValueError: a box without area.
        """
        across = self.photo.size[1] / self.photo.preview.width
        down = self.photo.size[0] / self.photo.preview.height
        # as the table has it
        marks = self.marks.with_click(round((x + 0.5) * across, 1), round((y + 0.5) * down, 1), kind)
        Marks(box=marks.box).check(self.photo.size)
        self.past.append(self.marks)
        self.marks = marks

    def undo(self) -> None:
        if self.past:
            self.marks = self.past.pop()

    def decide(self, verdict: str) -> None:
        """
        Keeps the decision and shows the next image.

        Args:
            verdict: "accept", the mask as it is shown; "no lesion" or "unusable".

        Raises:
            OtherDecision, OSError, ValueError: as [`Decisions.decide`]; the same image stays, but one whose place is
                taken will not come again.
        """
        image = self.photo.path
        found, expected_jaccard = self.photo.mask()
        mask, marks = None, Marks()
        if verdict == "accept":
            marks = self.marks
            mask = self.photo.mask(marks)[0] if marks else found
            verdict = "corrected" if marks else "accepted"
        elif verdict == "no lesion":
            mask = np.zeros_like(found)
        try:
            self.decisions.decide(
                image,
                verdict,
                mask,
                self.seen,
                found=found,
                points=marks.points,
                box=marks.box,
                seconds=time.monotonic() - self.started,
                expected_jaccard=expected_jaccard,
                photo=self.checksum,
            )
        except FileExistsError as error:
            self.queue.fail(image, str(error))
            raise
        except OSError:  # perhaps it has its row, and not its files: the same key tries again
            self.seen = len(self.decisions.rows().get(table_text(image.name), []))
            raise
        self.go_on()
        self.history.append(image)

    def picture(self) -> Image.Image:
        """The preview with the mask's outline and the marks."""
        preview = self.photo.preview
        mask, self.expected_jaccard = self.photo.mask(self.marks, preview.size[::-1])
        return draw_marks(outline_lesion(preview, mask), self.marks.scaled(self.photo.size, mask.shape))
