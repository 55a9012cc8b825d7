"""A photo's mask after a person's clicks and box: each is one more [`SegmentedPhoto`], and can be undone."""

from dataclasses import replace

from transformers.exporters.base import ExportedModel

from ..inference.task import has_structures
from ..modeling_efp import EFPForSegmentation
from .marks import MAX_POINTS, Marks
from .photo import SegmentedPhoto

MAX_UNDO = 2 * MAX_POINTS
NOT_TAUGHT = "This checkpoint takes no points and no box. Serve one that was trained with `efp train --prompts`."
OF_STRUCTURES = (
    "This checkpoint takes no points and no box: a click does not say which structure it means. "
    "Serve one for lesions that was trained with `efp train --prompts`."
)
NOT_EXPORTED = (
    "This exported folder makes the automatic mask alone, and takes no points and no box. "
    "Serve its checkpoint, or one exported to onnx or openvino without `--int8`."
)


def why_uncorrected(model: EFPForSegmentation | ExportedModel) -> str:
    """Why the masks of a model without prompts cannot be corrected, and what to do."""
    if has_structures(model.config):
        return OF_STRUCTURES
    return NOT_EXPORTED if model.config.prompt_size else NOT_TAUGHT


def correct_photo(photo: SegmentedPhoto, marks: Marks) -> SegmentedPhoto:
    """
    The photo with the mask of these marks in place of those that it has. The encoder is not run.

    Raises:
        ValueError: as [`Marks.check`]; a checkpoint that takes no prompts.
    """
    return replace(segment_marks(photo, marks), past=(*photo.past, photo.marks)[-MAX_UNDO:], future=())


def undo(photo: SegmentedPhoto) -> SegmentedPhoto:
    """The photo as it was before the last correction."""
    if not photo.past:
        return photo
    *past, marks = photo.past
    return replace(segment_marks(photo, marks), past=tuple(past), future=(photo.marks, *photo.future))


def redo(photo: SegmentedPhoto) -> SegmentedPhoto:
    """The photo as it was before [`undo`]."""
    if not photo.future:
        return photo
    marks, *future = photo.future
    return replace(segment_marks(photo, marks), past=(*photo.past, photo.marks), future=tuple(future))


def segment_marks(photo: SegmentedPhoto, marks: Marks) -> SegmentedPhoto:
    correction = photo.correction
    if correction is None:
        raise ValueError(NOT_TAUGHT)
    marks.check(photo.size)
    logits = correction.step(marks.points, marks.box).logits.float().cpu()
    # what an undo needs; all that was ever asked for would fill the memory
    wanted = {(marks.points[:count], marks.box) for count in range(len(marks.points) + 1)}
    correction.steps = {key: step for key, step in correction.steps.items() if key in wanted}
    return replace(photo, marks=marks, logits=logits)
