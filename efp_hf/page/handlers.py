"""What a click on the page does: each method is wired to an event in `layout.py`."""

import shutil
from collections.abc import Callable
from functools import wraps
from html import escape
from pathlib import Path

from ..extras import needing
from ..image_processing_efp import EFPImageProcessor
from ..modeling_efp import EFPForSegmentation
from .batch import segment_batch
from .correction import correct_photo, redo, undo
from .corrector import show_marks
from .marks import Marks
from .markup import (
    batch_html,
    comparison_html,
    grid_html,
    measures_html,
    probability_html,
    status_html,
    trust_html,
    view_html,
)
from .photo import SegmentedPhoto, lesion_of, segment_photo, with_shown
from .photo_results import compare_photo, draw_probabilities, draw_view, measure_photo, trust_photo
from .pictures import draw_maps
from .temporary_files import SessionFiles, new_answer_folder

with needing("app", __name__):
    import gradio as gr

NO_MAPS = "<p>This checkpoint is exported: it returns no maps.</p>"


def with_messages(function: Callable) -> Callable:
    """What a handler says of the user's input becomes a message in the page, not a stack trace."""

    @wraps(function)
    def handler(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except (ValueError, OSError, TypeError, ArithmeticError) as error:
            # the system's own errors name files of the server
            words = getattr(error, "strerror", None) or str(error)
            raise gr.Error(escape(words), duration=20, print_exception=False) from error
        except gr.Error:
            raise
        except Exception as error:  # of the program itself: Gradio writes it to the server's log
            raise gr.Error("The server failed at this. Its log says why.", duration=20) from error

    return handler


class Handlers:
    """
    Around one loaded model. `photo` is the [`SegmentedPhoto`] that the page holds, or `None` before there is one;
    `evidence` the sentence of [`trust_evidence`].
    """

    def __init__(
        self, model: EFPForSegmentation, processor: EFPImageProcessor, evidence: str, examples: list[Path] = ()
    ):
        self.model = model
        self.own_processor = processor  # of all labels
        self.processor = lesion_of(processor)
        self.evidence = evidence
        self.examples = examples
        self.session_files = SessionFiles()

    def remember(self, uploads, request: gr.Request):
        """Files are the session's from their upload on, whether a handler takes them or not."""
        self.session_files.add(
            request.session_hash, *(uploads if isinstance(uploads, list) else [uploads] if uploads else [])
        )

    def close_session(self, request: gr.Request):
        self.session_files.delete(request.session_hash)

    @with_messages
    def choose_example(self, event: gr.SelectData, request: gr.Request):
        """The session's own copy of the example, as if it had been uploaded."""
        return shutil.copy(self.examples[event.index], self.session_folder(request))

    @with_messages
    def segment_upload(self, upload, threshold, largest_region, shown=None):
        """The photo and its pictures in place of the welcome; the welcome again where the photo was taken away."""
        if upload is None:
            return self.clear()
        photo = with_shown(segment_photo(upload, self.model, self.own_processor), shown)
        return (
            photo,
            gr.Column(visible=False),
            gr.Column(visible=True),
            *self.redraw(photo, threshold, largest_region),
        )

    def clear(self):
        return None, gr.Column(visible=True), gr.Column(visible=False), *self.redraw(None, None, None)

    @with_messages
    def redraw(self, photo, threshold, largest_region):
        """Words and picture, and where the model takes prompts the corrector's parts."""
        takes_prompts = self.model.prompt_encoder is not None
        if photo is None:
            return "", *((None, *show_marks([], False, False)) if takes_prompts else ())
        view = draw_view(photo, self.processor, threshold, largest_region)
        if not takes_prompts:
            return (view_html(view),)
        marks = show_marks(photo.marks.names(photo.name), bool(photo.past), bool(photo.future))
        return status_html(view), view.after, *marks

    @with_messages
    def show_layers(self, photo, shown, threshold, largest_region):
        """The labels that are switched on, of a model with structures."""
        photo = with_shown(photo, shown)
        return photo, *self.redraw(photo, threshold, largest_region)

    def corrector(self, correct: Callable[..., SegmentedPhoto]) -> Callable:
        """The handler of one way to correct: `correct` takes the photo and the value of a component."""

        @with_messages
        def handler(photo, value, threshold, largest_region):
            if photo is None:
                raise ValueError("The server has deleted the photo by now. Upload it again.")
            photo = correct(photo, value)
            return photo, *self.redraw(photo, threshold, largest_region)

        return handler

    @with_messages
    def click(self, photo, kind, threshold, largest_region, event: gr.SelectData):
        """A click on the picture, whose pixels are larger than those of the photo."""

        def add(photo: SegmentedPhoto, kind: str) -> SegmentedPhoto:
            x, y = (
                float(int((place + 0.5) * side / shown))
                for place, side, shown in zip(event.index, photo.size[::-1], photo.preview.size, strict=True)
            )
            return correct_photo(photo, photo.marks.with_click(x, y, kind))

        return self.corrector(add)(photo, kind, threshold, largest_region)

    @with_messages
    def update_tab(self, tab, photo, threshold, largest_region, pixels_per_mm, truth):
        """Results of the open tab; those of the others are made when they are opened."""
        results = {
            "Segment": gr.skip(),
            "Measure": gr.skip(),
            "Trust": gr.skip(),
            "Compare": gr.skip(),
            "Look inside": gr.skip(),
        }
        settings = (self.processor, threshold, largest_region)
        if photo is not None:
            if tab == "Segment" and not photo.classes:
                results[tab] = probability_html(draw_probabilities(photo, *settings), threshold)
            elif tab == "Measure":
                results[tab] = measures_html(measure_photo(photo, *settings, pixels_per_mm=pixels_per_mm or None))
            elif tab == "Trust":
                results[tab] = trust_html(trust_photo(photo, *settings), self.evidence)
            elif tab == "Compare" and truth is not None:
                results[tab] = self.compare_upload(photo, truth, threshold, largest_region)
            elif tab == "Look inside":
                results[tab] = grid_html(draw_maps(photo), "Network map") if photo.maps else NO_MAPS
        return tuple(results.values())

    @with_messages
    def compare_upload(self, photo, truth, threshold, largest_region):
        if photo is None:
            raise ValueError("There is no mask yet. Choose a photo, then compare.")
        return comparison_html(compare_photo(photo, self.processor, truth, threshold, largest_region))

    @with_messages
    def segment_uploads(
        self,
        uploads,
        threshold,
        largest_region,
        request: gr.Request,
        progress=gr.Progress(),  # noqa: B008 - how Gradio knows it
    ):
        progress(0, desc="Reading the files")
        folder = self.session_folder(request)

        def show(done: int, total: int):
            progress((done, total), unit="images")

        batch = segment_batch(uploads, self.model, self.own_processor, folder, threshold, largest_region, progress=show)
        return batch_html(batch), gr.DownloadButton(value=str(batch.archive), interactive=True)

    def corrections(self) -> dict[str, Callable]:
        """The handlers of [`corrector`] by the component that calls them."""
        return {
            "undo": self.corrector(lambda photo, _: undo(photo)),
            "redo": self.corrector(lambda photo, _: redo(photo)),
            "reset": self.corrector(lambda photo, _: correct_photo(photo, Marks())),
            "marks": self.corrector(lambda photo, names: correct_photo(photo, photo.marks.only(names, photo.name))),
        }

    def writer(self, write_file: Callable[..., Path]) -> Callable:
        """The handler that writes one of the photo's files."""

        @with_messages
        def write(photo, threshold, largest_region, request: gr.Request):
            if photo is None:
                raise ValueError("There is nothing to download yet. Choose a photo.")
            return str(write_file(photo, self.processor, self.session_folder(request), threshold, largest_region))

        return write

    def session_folder(self, request: gr.Request) -> Path:
        """A new folder that is deleted with the session."""
        folder = new_answer_folder()
        self.session_files.add(request.session_hash, folder)
        return folder


def name_of_tab(event: gr.SelectData) -> str:
    return event.value
