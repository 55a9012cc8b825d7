"""The components with which a person corrects a mask: a picture that takes clicks, and what stands below it."""

from types import SimpleNamespace

from ..extras import needing
from .marks import words_of
from .markup import data_url, render

with needing("app", __name__):
    import gradio as gr
    from gradio.data_classes import ImageData

KINDS = ("lesion", "skin", "box")  # what a click can mark


class Picture(gr.Image):
    """An image that is shown without becoming a file on the server."""

    def postprocess(self, value):
        return None if value is None else ImageData(url=data_url(value), orig_name="lesion.jpg")

    def get_block_name(self):
        return "image"

    def get_block_class(self):
        return "image"


def add_corrector(name: str) -> SimpleNamespace:
    """The components of a class of this `name`; `shown` are those that [`show_marks`] fills, in its order."""
    words = words_of(name)
    picture = Picture(
        alt_text=f"The photo with the {name} outlined. Click to correct; or move the cross with the arrow keys and "
        "press Enter.",
        interactive=False,
        show_label=False,
        buttons=[],
        elem_id="picture",
        elem_classes="efp-picture",  # of script.js and style.css
    )
    gr.Markdown(render("correct.md", **words))
    with gr.Row(elem_classes="efp-tools"):
        choices = [(words.get(kind, kind), kind) for kind in KINDS]
        kind = gr.Radio(choices, value=KINDS[0], label="A click marks", elem_id="kind", scale=3, min_width=300)
        undo, redo, reset = (
            gr.Button(name, size="md", interactive=False, min_width=70, elem_id=name.lower())
            for name in ("Undo", "Redo", "Reset")
        )
    marks = gr.CheckboxGroup([], label="Points and box; untick one to take it away", visible=False, elem_id="marks")
    return SimpleNamespace(
        picture=picture, kind=kind, undo=undo, redo=redo, reset=reset, marks=marks, shown=[marks, undo, redo, reset]
    )


def show_marks(names: list[str], can_undo: bool, can_redo: bool) -> tuple:
    """Values of the components `shown`."""
    return (
        gr.CheckboxGroup(choices=names, value=names, visible=bool(names)),
        gr.Button(interactive=can_undo),
        gr.Button(interactive=can_redo),
        gr.Button(interactive=bool(names)),
    )
