"""The page: its components, and which handler each of their events calls."""

from pathlib import Path
from types import SimpleNamespace

from ..extras import needing
from ..image_processing_efp import EFPImageProcessor
from ..inference.task import class_names_of, has_structures, is_lesion, shows_lesions
from ..lesion.structures import LABELS, title_of
from ..modeling_efp import EFPForSegmentation
from . import uploads
from .api import Endpoints, add_endpoints
from .correction import why_uncorrected
from .corrector import add_corrector
from .gate import MAX_MCP_BYTES
from .handlers import Handlers, name_of_tab
from .inputs import FilesInput, Page, PhotoInput
from .markup import render
from .photo import lesion_of
from .photo_results import write_contour_file, write_layers_file, write_mask_file, write_overlay_file
from .temporary_files import CLEAN_SECONDS, KEEP_SECONDS

with needing("app", __name__):
    import gradio as gr

EXAMPLE_LABELS = ("hairs", "ruler", "dark corners", "low contrast")  # of data.synthetic.EXAMPLE_SEEDS
DROP_HERE = "Drop an image file here to upload"  # the words that the area has for screen readers
SCRIPT = f"<script>{Path(__file__).with_name('script.js').read_text(encoding='utf-8')}</script>"
DOWNLOADS = {  # file → its name on the button and the function that writes it
    "mask": ("mask (PNG)", write_mask_file),
    "overlay": ("overlay (PNG)", write_overlay_file),
    "contour": ("contour (JSON)", write_contour_file),
    "layers": ("all masks (zip)", write_layers_file),
}

# Keyword arguments of events
MODEL = {"concurrency_id": "model", "concurrency_limit": 2}  # two requests at once keep two cores busy
CORRECTION = {"concurrency_id": "correction", "concurrency_limit": 1}  # each click starts from what the last one left
BATCH = {"concurrency_id": "batch", "concurrency_limit": 1}
PRIVATE = {"api_visibility": "private"}
SILENT = {"queue": False, "show_progress": "hidden", **PRIVATE}


def build_page(
    model: EFPForSegmentation, processor: EFPImageProcessor, url: str, evidence: str, examples: Path | None = None
) -> gr.Blocks:
    """
    The page and its API around one loaded model.

    Args:
        url: of the server, for the examples of the API.
        evidence: the sentence of [`trust_evidence`].
        examples: folder of [`write_examples`], served by Gradio as a static path.
    """
    examples = sorted(examples.glob("*.jpg")) if examples is not None else []
    takes_prompts, with_structures = model.prompt_encoder is not None, has_structures(model.config)
    of_lesion = is_lesion(model.config) or with_structures  # then structures are layers over it
    classes = () if shows_lesions(model.config) or with_structures else class_names_of(model.config)
    handlers = Handlers(model, processor, evidence, examples)
    with Page(
        title=f"Segmentation: {', '.join(classes)}" if classes else "Skin-lesion segmentation",
        analytics_enabled=False,
        delete_cache=(CLEAN_SECONDS, KEEP_SECONDS),
    ) as page:
        gr.Markdown(render("header.md", classes=classes, with_structures=with_structures))
        gr.HTML(render("research_use.html", minutes=KEEP_SECONDS // 60, of_lesion=not classes), head=SCRIPT)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                parts = add_photo_column(processor, takes_prompts, of_lesion)
            with gr.Column(scale=5, min_width=320):
                with gr.Tabs() as tabs:
                    add_photo_tabs(parts, examples, model, of_lesion)
                    add_batch_tab(parts)
                    with gr.Tab("API"):
                        words = {"takes_prompts": takes_prompts, "classes": () if of_lesion else classes, "url": url}
                        words |= {"name": class_names_of(model.config)[0], "with_structures": with_structures}
                        gr.Markdown(render("api.md", **words, max_mcp_bytes=MAX_MCP_BYTES))
        wire_photo(parts, tabs, handlers)
        wire_downloads(parts, handlers)
        parts.score.click(
            handlers.compare_upload, [parts.photo, parts.truth, *parts.settings], parts.compared, **PRIVATE, **MODEL
        )
        parts.run_batch.click(
            handlers.segment_uploads, [parts.files, *parts.settings], [parts.rows, parts.archive], **PRIVATE, **BATCH
        )
        for component in (parts.upload, parts.truth, parts.files):
            component.change(handlers.remember, component, None, **SILENT)
        page.load(None, js="() => efp.nameByText()", **PRIVATE)
        page.unload(handlers.close_session)
        add_endpoints(Endpoints(model, processor), MODEL, BATCH)
    return page


def add_photo_column(processor: EFPImageProcessor, takes_prompts: bool, of_lesion: bool) -> SimpleNamespace:
    """
    What is chosen → the page's parts by name, to which the tabs add theirs. Several classes have neither a threshold
    nor a largest region; with structures the threshold is the lesion's.
    """
    with_structures = processor.labels_overlap
    upload = PhotoInput(
        label="Photo",
        placeholder=DROP_HERE,
        sources=["upload", "clipboard", "webcam"],
        image_mode=None,
        type="filepath",
        height=300,
        buttons=["fullscreen"],
        alt_text="The photo that was chosen",
        elem_id="photo",
    )
    if takes_prompts:  # style.css shows it with a photo
        gr.Markdown("To correct the outline, click on the outlined picture, not on this one.", elem_id="where_to_click")
    threshold = gr.Slider(
        0.02,
        0.98,
        value=lesion_of(processor).threshold,
        step=0.01,
        label="Threshold",
        elem_id="threshold",
        info="Above this probability a pixel is in the mask." + " Structures have their own." * with_structures,
        visible=of_lesion,
    )
    region = gr.Checkbox(
        processor.largest_region,
        label="Largest region only, holes filled",
        elem_id="region",
        visible=of_lesion and not with_structures,
    )
    photo = gr.State(None, time_to_live=KEEP_SECONDS)
    return SimpleNamespace(upload=upload, settings=[threshold, region], photo=photo)


def add_photo_tabs(parts: SimpleNamespace, examples: list[Path], model: EFPForSegmentation, of_lesion: bool) -> None:
    """The tabs of one photo; before there is one, the first has examples. Those of a lesion are hidden for classes."""
    layers = LABELS if has_structures(model.config) else ()
    with gr.Tab("Segment"):
        with gr.Column() as parts.welcome:
            gr.Markdown(render("welcome.md", of_lesion=shows_lesions(model.config) or bool(layers)))
            parts.examples = gr.Gallery(
                [(str(path), label) for path, label in zip(examples, EXAMPLE_LABELS, strict=False)],
                label="Examples (drawings, not patients)",
                columns=len(EXAMPLE_LABELS),
                allow_preview=False,
                interactive=False,
                buttons=[],
                elem_id="examples",
                visible=of_lesion,
            )
        with gr.Column(visible=False) as parts.results:
            parts.layers = gr.CheckboxGroup(
                [(title_of(name), name) for name in layers],
                value=list(layers),
                label="Layers",
                visible=bool(layers),
                elem_id="layers",
            )
            parts.view = gr.HTML(js_on_load="efp.followCut(element, watch)", elem_id="view")
            parts.corrector = None if model.prompt_encoder is None else add_corrector(class_names_of(model.config)[0])
            if parts.corrector is None and of_lesion:
                gr.Markdown(why_uncorrected(model))
            with gr.Row():
                parts.downloads = {
                    id: gr.Button(
                        f"Download {name}",
                        size="sm",
                        elem_id=f"get_{id}",
                        visible={"contour": of_lesion, "layers": bool(layers)}.get(id, True),
                    )
                    for id, (name, _) in DOWNLOADS.items()
                }
            parts.probabilities = gr.HTML(elem_id="probabilities")
    with gr.Tab("Measure", visible=shows_lesions(model.config) or bool(layers)):
        parts.pixels_per_mm = gr.Number(
            None, label="Scale (pixels per mm)", info="For millimetres; 0 where it is not known.", elem_id="scale"
        )
        parts.measures = gr.HTML(elem_id="measures")
    with gr.Tab("Trust", visible=of_lesion):
        parts.trusted = gr.HTML(elem_id="trust")
    with gr.Tab("Compare", visible=of_lesion):
        gr.Markdown(render("compare.md"))
        parts.truth = PhotoInput(
            label="True mask",
            placeholder=DROP_HERE,
            sources=["upload", "clipboard"],
            image_mode=None,
            type="filepath",
            height=200,
            buttons=[],
            alt_text="The true mask that was chosen",
            elem_id="truth",
        )
        parts.score = gr.Button("Compare", variant="primary", elem_id="score")
        parts.compared = gr.HTML(elem_id="comparison")
    with gr.Tab("Look inside"):
        gr.Markdown(render("look_inside.md", with_structures=bool(layers)))
        parts.maps = gr.HTML(elem_id="maps")


def add_batch_tab(parts: SimpleNamespace) -> None:
    """The tab of many images."""
    with gr.Tab("Many images") as tab:
        gr.Markdown(render("many_images.md", limits=uploads))
        parts.files = FilesInput(
            label="Photos or zip",
            file_count="multiple",
            file_types=["image", ".zip"],
            height=160,
            elem_id="files",
        )
        parts.run_batch = gr.Button("Segment all", variant="primary", elem_id="run_many")
        parts.archive = gr.DownloadButton("Download masks and table (zip)", interactive=False, elem_id="archive")
        parts.rows = gr.HTML(elem_id="rows")
    tab.select(None, js="() => efp.nameByText()", **PRIVATE)


def wire_photo(parts: SimpleNamespace, tabs: gr.Tabs, handlers: Handlers) -> None:
    """The photo is run once; settings redraw what is shown, and a tab is filled when it is opened."""
    open_tab = gr.State("Segment")
    segmented = [parts.view]
    if parts.corrector is not None:
        segmented += [parts.corrector.picture, *parts.corrector.shown]
    in_tabs = [parts.probabilities, parts.measures, parts.trusted, parts.compared, parts.maps]
    update = {
        "fn": handlers.update_tab,
        "inputs": [open_tab, parts.photo, *parts.settings, parts.pixels_per_mm, parts.truth],
        "outputs": in_tabs,
        **PRIVATE,
        **MODEL,
    }
    parts.examples.select(handlers.choose_example, None, parts.upload, **SILENT)
    shown = [parts.photo, parts.welcome, parts.results, *segmented]
    chosen = parts.upload.change(
        handlers.segment_upload,
        [parts.upload, *parts.settings, parts.layers],
        shown,
        show_progress_on=[parts.upload],
        **PRIVATE,
        **MODEL,
    )
    chosen.success(**update).success(None, js="() => efp.showResult()", **PRIVATE)
    # the results of the photo before are not those of one that cannot be read
    chosen.failure(handlers.clear, None, shown, **SILENT).success(lambda: [""] * len(in_tabs), None, in_tabs, **SILENT)
    gr.on(
        [setting.change for setting in parts.settings],
        handlers.redraw,
        [parts.photo, *parts.settings],
        segmented,
        trigger_mode="always_last",
        show_progress="hidden",
        **PRIVATE,
        **MODEL,
    ).success(**update)
    parts.layers.input(
        handlers.show_layers,
        [parts.photo, parts.layers, *parts.settings],
        [parts.photo, *segmented],
        trigger_mode="always_last",
        show_progress="hidden",
        **PRIVATE,
        **MODEL,
    )
    if parts.corrector is not None:
        wire_corrector(parts, handlers, segmented, update)
    tabs.select(name_of_tab, None, open_tab, **SILENT).success(**update)
    gr.on([parts.pixels_per_mm.submit, parts.pixels_per_mm.blur], **update)
    parts.upload.clear(lambda: [""] * len(in_tabs), None, in_tabs, queue=False, **PRIVATE)


def wire_corrector(parts: SimpleNamespace, handlers: Handlers, segmented: list, update: dict) -> None:
    """A click costs the prompted decoder; the open tab is filled after the picture."""
    corrector = parts.corrector
    corrections = handlers.corrections()
    for event, value, correct in (
        (corrector.picture.select, corrector.kind, handlers.click),
        (corrector.undo.click, corrector.kind, corrections["undo"]),
        (corrector.redo.click, corrector.kind, corrections["redo"]),
        (corrector.reset.click, corrector.kind, corrections["reset"]),
        (corrector.marks.input, corrector.marks, corrections["marks"]),
    ):
        event(
            correct,
            [parts.photo, value, *parts.settings],
            [parts.photo, *segmented],
            trigger_mode="multiple",
            show_progress="hidden",
            **PRIVATE,
            **CORRECTION,
        ).success(**update)


def wire_downloads(parts: SimpleNamespace, handlers: Handlers) -> None:
    """A button makes its file, then the browser fetches it from a link that nobody sees."""
    for id, (_, write_file) in DOWNLOADS.items():
        link = gr.DownloadButton(visible="hidden", elem_id=f"file_{id}")
        parts.downloads[id].click(
            handlers.writer(write_file), [parts.photo, *parts.settings], link, **PRIVATE, **MODEL
        ).success(None, js=f"() => efp.download('#file_{id}')", **PRIVATE)
