"""The web page: segment skin lesions, measure them, and look at how far to trust the result.

    python app.py                                    # http://127.0.0.1:7860 with the shipped checkpoint
    python app.py --checkpoint runs/mine --port 8080
    EFP_AUTH=anna:secret python app.py --host 0.0.0.0   # on the network, with a password
    python app.py --mcp                              # also an MCP server

Nothing is kept: no run history, no analytics, no flagging; temporary files are deleted after some minutes and when
the server stops. Nothing but this server is contacted.
"""

import argparse
import atexit
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from functools import wraps
from html import escape
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

# Gradio reads these when it is imported. The folder is this process's own: photos are readable for nobody else.
os.environ.setdefault("GRADIO_TEMP_DIR", str(Path(tempfile.gettempdir(), f"efp-page-{os.getpid()}")))
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
from gradio_client.utils import is_http_url_like

from efp_hf.inference.checkpoint import load_checkpoint, weights_digest
from efp_hf.page.batch import segment_batch
from efp_hf.page.markup import (
    batch_html,
    comparison_html,
    grid_html,
    measures_html,
    probability_html,
    trust_evidence,
    trust_html,
    view_html,
)
from efp_hf.page.photo import segment_photo
from efp_hf.page.pictures import draw_maps
from efp_hf.page.tabs import (
    compare_photo,
    draw_view,
    lesion_data,
    lesion_metric_class,
    map_data,
    measure_photo,
    trust_photo,
    write_contour_file,
    write_mask_file,
    write_overlay_file,
)
from efp_hf.page.uploads import MAX_BATCH_BYTES, MAX_FILE_BYTES, MAX_FILES, MAX_ZIP_BYTES, delete_old_files

HERE = Path(__file__).resolve().parent
DEFAULT_CHECKPOINT = HERE / "checkpoints" / "efp-isic"
EXAMPLES = HERE / "examples"
EXAMPLE_LABELS = ("hairs", "ruler", "dark corners", "low contrast")
TRUST_RESULTS = HERE / "results" / "trust.csv"
KEEP_SECONDS = 900  # how long a photo and its results stay on the server
CLEAN_SECONDS = 60
MAX_QUEUE = 32
MAX_SESSIONS = 200  # whose last photo is held in memory
MODEL = {"concurrency_id": "model", "concurrency_limit": 2}  # two requests at once keep two cores busy
BATCH = {"concurrency_id": "batch", "concurrency_limit": 1}

CSS = """
.gradio-container {max-width: 1360px !important; width: 100%; min-width: 0; margin: 0 auto}
.gradio-container .main, .gradio-container .main > .wrap, .gradio-container main, .gradio-container .tabs,
.gradio-container .row {min-width: 0; max-width: 100%}
.research-use {border-left: 4px solid #b45309; padding: .25rem .75rem; margin: .5rem 0}
.efp-grid {display: grid; grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)); gap: .75rem}
#maps .efp-grid {grid-template-columns: repeat(4, 1fr)}
@media (max-width: 760px) {#maps .efp-grid {grid-template-columns: repeat(2, 1fr)}}
.efp-grid img {width: 100%}
.efp-figure {margin: .5rem 0}
.efp-figure img {max-width: 100%; max-height: 560px; width: auto; height: auto; border-radius: 4px}
.efp-compare {position: relative; max-width: 100%; max-height: 640px; overflow: hidden; border-radius: 4px;
    margin: .5rem 0}
.efp-compare img {position: absolute; inset: 0; width: 100%; height: 100%; max-width: none}
.efp-after {clip-path: inset(0 calc(100% - var(--cut, 100%)) 0 0)}
.efp-divider {position: absolute; top: 0; bottom: 0; left: var(--cut, 100%); width: 2px; margin-left: -1px;
    background: white; box-shadow: 0 0 2px black; pointer-events: none}
.efp-cut {display: flex; gap: .75rem; align-items: center}
.efp-cut input {flex: 1; min-width: 0; accent-color: var(--color-accent)}
.efp-bar {display: block; height: 1rem; border: 1px solid var(--body-text-color); position: relative;
    margin-top: .5rem}
.efp-mark {position: absolute; top: -3px; bottom: -3px; width: 3px; margin-left: -1.5px; background: white;
    outline: 1px solid black}
.efp-scale {display: flex; justify-content: space-between}
.efp-scroll {overflow-x: auto; margin: .5rem 0}
.efp-table {border-collapse: collapse; width: 100%}
.efp-table caption {text-align: left; padding-bottom: .4rem; font-weight: 600}
.efp-table th, .efp-table td {text-align: left; padding: .35rem .6rem; vertical-align: top; border: 0;
    border-bottom: 1px solid var(--border-color-primary)}
.efp-table .number {text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap}
.efp-swatch {display: inline-block; width: 1em; height: 1em; border: 1px solid var(--body-text-color);
    vertical-align: -.15em; margin-right: .4em}
.efp-legend > span {margin-right: 1.25em; display: inline-block}
.dark {--color-accent: var(--primary-400)}
body:not(.dark) .token.string {color: #3f6212 !important}
.efp-estimate {font-size: 2rem; font-weight: 600}
"""
# The theme's own greys and oranges are too faint for small text (WCAG 1.4.3).
CONTRAST = {
    "body_text_color_subdued": "*neutral_600",
    "body_text_color_subdued_dark": "*neutral_300",
    "block_info_text_color": "*neutral_600",
    "block_info_text_color_dark": "*neutral_300",
    "block_label_text_color": "*neutral_700",
    "block_label_text_color_dark": "*neutral_200",
    "block_title_text_color": "*neutral_700",
    "block_title_text_color_dark": "*neutral_200",
    "button_primary_background_fill": "*primary_700",
    "button_primary_background_fill_hover": "*primary_800",
    "button_primary_background_fill_dark": "*primary_700",
    "button_primary_background_fill_hover_dark": "*primary_800",
    "color_accent": "*primary_700",
    "link_text_color": "*secondary_700",
    "link_text_color_dark": "*secondary_300",
}
# The slider between the photo and the lesion: its place survives a redraw.
FOLLOW_CUT = """
const apply = (cut) => {
    element.style.setProperty('--cut', cut + '%');
    element.dataset.cut = cut;
};
element.addEventListener('input', (event) => apply(event.target.value));
watch('value', () => {
    const input = element.querySelector('.efp-cut input');
    if (input) { input.value = element.dataset.cut ?? 100; apply(input.value); }
});
"""
# Gradio's name of this area for screen readers is not the text that it shows (WCAG 2.5.3).
NAME_BY_TEXT = """() => setTimeout(() =>
    document.querySelectorAll('#files .upload-container').forEach((area) => area.removeAttribute('aria-label')), 100)
"""
SHOW_RESULT = """() => {
    const view = document.querySelector('#view');
    if (view && view.getBoundingClientRect().top > 0.8 * window.innerHeight) view.scrollIntoView({block: 'start'});
}"""
DROP_HERE = "Drop an image file here to upload"  # the words that the area has for screen readers
DOWNLOAD = "() => document.querySelector('#{id}').click()"


class LocalFiles:
    """Of a component that takes files: only uploaded ones, as they were uploaded. Addresses are not fetched."""

    async def async_move_resource_to_block_cache(self, url_or_file_path):
        if url_or_file_path is not None and is_http_url_like(str(url_or_file_path)):
            _, served, path = str(url_or_file_path).partition("/gradio_api/file=")
            uploads = Path(os.environ["GRADIO_TEMP_DIR"]).resolve()
            path = unquote(path)
            if not served or not Path(path).resolve().is_relative_to(uploads):
                raise gr.Error("Upload the file: this server fetches nothing from other addresses.")
            url_or_file_path = path
        return await super().async_move_resource_to_block_cache(url_or_file_path)


class PhotoInput(LocalFiles, gr.Image):
    """An image whose file reaches the handler unchanged, also when it is no image: the handler says what is wrong."""

    def preprocess(self, payload):
        return None if payload is None else payload.path

    def get_block_name(self):
        return "image"

    def get_block_class(self):
        return "image"


class FilesInput(LocalFiles, gr.File):
    def get_block_name(self):
        return "file"

    def get_block_class(self):
        return "file"


HEADER = """
# Skin-lesion segmentation

EFP, an enhanced feature pyramid, finds the lesion in a dermatoscopic photo, measures it and says how far to trust it.
"""
RESEARCH_USE = """
<p class="research-use"><strong>Research use, not a diagnosis.</strong> A mask says where a lesion is, not what it is.
Photos stay on this server, are not recorded, and are deleted when the page is closed, at the latest
after {minutes} minutes.</p>
"""
COMPARE_HELP = """
Upload the mask that an expert drew on this photo: a picture of the photo's size, white (255) on the lesion and
black (0) on skin.
"""
INSIDE_HELP = """
What the network made of this photo: its levels **F1..F4**, the levels after cross-scale enhancement **F\\*1..F\\*4**
(each the mean over its channels, in its own range), and the spatial attention **M_s** of each enhanced level, 0 to 1.
"""
MANY_HELP = f"""
Several photos, or a zip of them: at most {MAX_FILES} images, {MAX_FILE_BYTES // 10**6} MB each and
{MAX_BATCH_BYTES // 10**6} MB together. Threshold and region are those set beside the photo.
"""
API_HELP = """
Every tab is also an endpoint that returns data. In Python, with `pip install gradio_client`:

```python
from gradio_client import Client, handle_file

client = Client("{url}")
data, mask_file = client.predict(handle_file("photo.jpg"), api_name="/segment")
print(data["lesion_share"], data["contour"]["annotations"])
measures = client.predict(handle_file("photo.jpg"), pixels_per_mm=40, api_name="/measure")
```

| endpoint | returns |
| --- | --- |
| `/segment` | area, box, mean probability and contour (COCO); the mask file |
| `/measure` | area, diameter, perimeter, compactness, asymmetry, border, colours |
| `/trust` | the expected Jaccard and the notes |
| `/compare` | J, TJ, Dice, sensitivity, specificity against a true mask |
| `/look_inside` | F1..F4, the enhanced levels and M_s as numbers |
| `/segment_many` | a row a file; the zip of masks and table |

Started with `--mcp`, the server offers the same functions as MCP tools at `/gradio_api/mcp/`. Files come as uploads or
`data:` addresses: this server fetches nothing from elsewhere.
"""


def build_page(model, processor, url: str, weights: str = "") -> gr.Blocks:
    """The page and its API around one loaded model; `weights` is the digest of its checkpoint."""
    sessions = defaultdict(set)  # session → its files and folders, to delete them when the page is closed

    def belongs_to(request: gr.Request, *paths) -> None:
        sessions[request.session_hash].update(Path(path) for path in paths)

    def with_messages(function):
        """What a handler says of the user's input becomes a message in the page, not a stack trace."""

        @wraps(function)
        def handler(*args, **kwargs):
            try:
                return function(*args, **kwargs)
            except (ValueError, OSError, TypeError, ArithmeticError) as error:
                # the system's own errors name files of the server
                words = getattr(error, "strerror", None) or str(error)
                raise gr.Error(escape(words), duration=20, print_exception=False) from error

        return handler

    # -- the tabs

    def remember(uploads, request: gr.Request):
        """Files are the session's from their upload on, whether a handler takes them or not."""
        belongs_to(request, *(uploads if isinstance(uploads, list) else [uploads] if uploads else []))

    @with_messages
    def segment_upload(upload, threshold, largest_region):
        photo = segment_photo(upload, model, processor)
        return photo, *redraw(photo, threshold, largest_region)

    @with_messages
    def redraw(photo, threshold, largest_region):
        if photo is None:
            return "", ""
        view = draw_view(photo, processor, threshold, largest_region)
        return view_html(view), probability_html(view, threshold)

    @with_messages
    def update_tab(tab, photo, threshold, largest_region, pixels_per_mm, truth):
        """Results of the open tab; those of the others are made when they are opened."""
        results = {"Measure": gr.skip(), "Trust": gr.skip(), "Compare": gr.skip(), "Look inside": gr.skip()}
        settings = (processor, threshold, largest_region)
        if photo is not None:
            if tab == "Measure":
                measures = measure_photo(photo, *settings, pixels_per_mm=pixels_per_mm or None)
                results[tab] = measures_html(measures)
            elif tab == "Trust":
                results[tab] = trust_html(trust_photo(photo, *settings), trust_evidence(TRUST_RESULTS, weights))
            elif tab == "Compare" and truth is not None:
                results[tab] = comparison_html(compare_photo(photo, processor, truth, *settings[1:]))
            elif tab == "Look inside":
                results[tab] = grid_html(draw_maps(photo), "Network map")
        return tuple(results.values())

    @with_messages
    def compare_upload(photo, truth, threshold, largest_region):
        if photo is None:
            raise ValueError("There is no lesion yet. Choose a photo and press Segment, then compare.")
        return comparison_html(compare_photo(photo, processor, truth, threshold, largest_region))

    @with_messages
    def segment_uploads(
        uploads,
        threshold,
        largest_region,
        request: gr.Request,
        progress=gr.Progress(),  # noqa: B008 - how Gradio knows it
    ):
        progress(0, desc="Reading the files")
        folder = new_folder()
        belongs_to(request, folder)
        batch = segment_batch(
            uploads,
            model,
            processor,
            folder,
            threshold,
            largest_region,
            progress=lambda done, total: progress((done, total), unit="images"),
        )
        download = gr.DownloadButton(value=str(batch.archive), interactive=True)
        return batch_html(batch), download

    def writer(write_file):
        @with_messages
        def write(photo, threshold, largest_region, request: gr.Request):
            if photo is None:
                raise ValueError("There is nothing to download yet. Choose a photo and press Segment.")
            folder = new_folder()
            belongs_to(request, folder)
            return str(write_file(photo, processor, folder, threshold, largest_region))

        return write

    def forget_photo():
        return None, "", "", "", "", "", ""

    def close_session(request: gr.Request):
        for path in sessions.pop(request.session_hash, ()):
            is_shared = any(path in paths for paths in list(sessions.values()))  # a file of the same contents
            if path.is_relative_to(upload_folder()) and not is_shared:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    # -- the API, also the tools of the MCP server

    def read_photo(image):
        return segment_photo(image, model, processor)

    @with_messages
    def segment(image, threshold, largest_region):
        """
        Find the skin lesion in a dermatoscopic photo. Research use, not a diagnosis.

        Args:
            image: the photo.
            threshold: probability, between 0 and 1, above which a pixel is lesion.
            largest_region: keep the lesion's largest region only, its holes filled.

        Returns:
            data: size of the photo, area and bounding box of the lesion in pixels, mean probability inside, and the
                contour as a COCO data set.
            mask: PNG of the photo's size, 0 skin and 255 lesion.
        """
        photo = read_photo(image)
        data = lesion_data(photo, processor, threshold, largest_region)
        return data, str(write_mask_file(photo, processor, new_folder(), threshold, largest_region))

    @with_messages
    def measure(image, pixels_per_mm, threshold, largest_region):
        """
        Measure the skin lesion of a dermatoscopic photo: area, diameter, outline, compactness, asymmetry, border
        irregularity and colours. Research use, not a diagnosis.

        Args:
            image: the photo.
            pixels_per_mm: scale of the photo, for measures in millimetres; 0 where it is not known.
            threshold: probability, between 0 and 1, above which a pixel is lesion.
            largest_region: keep the lesion's largest region only, its holes filled.
        """
        return measure_photo(read_photo(image), processor, threshold, largest_region, pixels_per_mm or None)

    @with_messages
    def trust(image, threshold, largest_region):
        """
        Estimate how well the mask of a dermatoscopic photo fits its lesion, with notes on what speaks against it.

        Args:
            image: the photo.
            threshold: probability, between 0 and 1, above which a pixel is lesion.
            largest_region: keep the lesion's largest region only, its holes filled.
        """
        return trust_photo(read_photo(image), processor, threshold, largest_region)

    @with_messages
    def compare(image, truth, threshold, largest_region):
        """
        Score the mask of a dermatoscopic photo against the true one: J, TJ, Dice, sensitivity and specificity.

        Args:
            image: the photo.
            truth: the true mask, a picture of the photo's size, 0 skin and 255 lesion.
            threshold: probability, between 0 and 1, above which a pixel is lesion.
            largest_region: keep the lesion's largest region only, its holes filled.
        """
        comparison = compare_photo(read_photo(image), processor, truth, threshold, largest_region)
        return {**comparison.scores, "pixels": comparison.pixels}

    @with_messages
    def look_inside(image):
        """
        What the network makes of a photo: its levels F1..F4 and F*1..F*4 (means over channels) and its attention maps
        M_s, as rows of numbers.

        Args:
            image: the photo.
        """
        return map_data(read_photo(image))

    @with_messages
    def segment_many(files, threshold, largest_region):
        """
        Find the skin lesions in several dermatoscopic photos. A bad file is named in its row.

        Args:
            files: the photos, or zips of photos.
            threshold: probability, between 0 and 1, above which a pixel is lesion.
            largest_region: keep the lesion's largest region only, its holes filled.

        Returns:
            rows: area, bounding box and mean probability of each photo, or the error.
            masks: zip of the masks, PNG, and the rows as CSV.
        """
        batch = segment_batch(files, model, processor, new_folder(), threshold, largest_region)
        return batch.rows, str(batch.archive)

    # -- the page

    with gr.Blocks(
        title="Skin-lesion segmentation", analytics_enabled=False, delete_cache=(CLEAN_SECONDS, KEEP_SECONDS)
    ) as page:
        photo = gr.State(None, time_to_live=KEEP_SECONDS)
        open_tab = gr.State("Segment")
        gr.Markdown(HEADER)
        gr.HTML(RESEARCH_USE.format(minutes=KEEP_SECONDS // 60))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
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
                run = gr.Button("Segment", variant="primary", elem_id="run")
                threshold = gr.Slider(
                    0.02,
                    0.98,
                    value=processor.threshold,
                    step=0.01,
                    label="Threshold",
                    elem_id="threshold",
                    info="A pixel is lesion above this probability.",
                )
                largest_region = gr.Checkbox(
                    processor.largest_region, label="Largest region only, holes filled", elem_id="region"
                )
                if EXAMPLES.is_dir():
                    gr.Examples(
                        [str(EXAMPLES / f"synthetic_{number}.jpg") for number in range(1, len(EXAMPLE_LABELS) + 1)],
                        [upload],
                        label="Examples (drawings, not patients)",
                        example_labels=list(EXAMPLE_LABELS),
                        cache_examples=False,
                    )
            with gr.Column(scale=5, min_width=320):
                with gr.Tabs() as tabs:
                    with gr.Tab("Segment"):
                        view = gr.HTML(js_on_load=FOLLOW_CUT, elem_id="view")
                        with gr.Row():
                            downloads = [
                                (gr.Button(f"Download {name}", size="sm", elem_id=f"get_{id}"), write, id)
                                for name, id, write in (
                                    ("mask (PNG)", "mask", write_mask_file),
                                    ("overlay (PNG)", "overlay", write_overlay_file),
                                    ("contour (JSON)", "contour", write_contour_file),
                                )
                            ]
                        probabilities = gr.HTML(elem_id="probabilities")
                    with gr.Tab("Measure"):
                        pixels_per_mm = gr.Number(
                            None,
                            label="Scale (pixels per mm)",
                            info="For millimetres; 0 where it is not known.",
                            elem_id="scale",
                        )
                        measures = gr.HTML(elem_id="measures")
                    with gr.Tab("Trust"):
                        trusted = gr.HTML(elem_id="trust")
                    with gr.Tab("Compare"):
                        gr.Markdown(COMPARE_HELP)
                        truth = PhotoInput(
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
                        score = gr.Button("Compare", variant="primary", elem_id="score")
                        compared = gr.HTML(elem_id="comparison")
                    with gr.Tab("Look inside"):
                        gr.Markdown(INSIDE_HELP)
                        maps = gr.HTML(elem_id="maps")
                    with gr.Tab("Many images") as many:
                        gr.Markdown(MANY_HELP)
                        files = FilesInput(
                            label="Photos or zip",
                            file_count="multiple",
                            file_types=["image", ".zip"],
                            height=160,
                            elem_id="files",
                        )
                        run_many = gr.Button("Segment all", variant="primary", elem_id="run_many")
                        archive = gr.DownloadButton(
                            "Download masks and table (zip)", interactive=False, elem_id="archive"
                        )
                        rows = gr.HTML(elem_id="rows")
                    with gr.Tab("API"):
                        gr.Markdown(API_HELP.format(url=url))

        settings = [threshold, largest_region]
        private = {"api_visibility": "private"}
        update = {
            "fn": update_tab,
            "inputs": [open_tab, photo, *settings, pixels_per_mm, truth],
            "outputs": [measures, trusted, compared, maps],
            **private,
            **MODEL,
        }
        run.click(
            segment_upload,
            [upload, *settings],
            [photo, view, probabilities],
            show_progress_on=[view],
            **private,
            **MODEL,
        ).success(**update).success(None, js=SHOW_RESULT, **private)
        gr.on(
            [threshold.change, largest_region.change],
            redraw,
            [photo, *settings],
            [view, probabilities],
            trigger_mode="always_last",
            show_progress="hidden",
            **private,
            **MODEL,
        ).success(**update)
        tabs.select(name_of_tab, None, open_tab, queue=False, show_progress="hidden", **private).success(**update)
        gr.on([pixels_per_mm.submit, pixels_per_mm.blur], **update)
        score.click(compare_upload, [photo, truth, *settings], compared, **private, **MODEL)
        run_many.click(segment_uploads, [files, *settings], [rows, archive], **private, **BATCH)
        upload.clear(
            forget_photo, None, [photo, view, probabilities, measures, trusted, compared, maps], queue=False, **private
        )
        for button, write_file, id in downloads:
            link = gr.DownloadButton(visible="hidden", elem_id=f"file_{id}")
            button.click(writer(write_file), [photo, *settings], link, **private, **MODEL).success(
                None, js=DOWNLOAD.format(id=f"file_{id}")
            )
        for component in (upload, truth, files):
            component.change(remember, component, None, queue=False, show_progress="hidden", **private)
        many.select(None, js=NAME_BY_TEXT, **private)
        page.unload(close_session)

        with gr.Column(visible=False):
            image_in = PhotoInput(label="image", image_mode=None, type="filepath")
            truth_in = PhotoInput(label="truth", image_mode=None, type="filepath")
            files_in = FilesInput(label="files", file_count="multiple")
            scale_in = gr.Number(0, label="pixels_per_mm")
            settings_in = [
                gr.Number(processor.threshold, label="threshold"),
                gr.Checkbox(processor.largest_region, label="largest_region"),
            ]
            data_out, file_out = gr.JSON(label="data"), gr.File(label="file")
            endpoints = gr.Button()
            for function, inputs, outputs, group in (
                (segment, [image_in, *settings_in], [data_out, file_out], MODEL),
                (measure, [image_in, scale_in, *settings_in], data_out, MODEL),
                (trust, [image_in, *settings_in], data_out, MODEL),
                (compare, [image_in, truth_in, *settings_in], data_out, MODEL),
                (look_inside, [image_in], data_out, MODEL),
                (segment_many, [files_in, *settings_in], [data_out, file_out], BATCH),
            ):
                endpoints.click(function, inputs, outputs, api_name=function.__name__, **group)
    return page


def name_of_tab(event: gr.SelectData):
    return event.value


def upload_folder() -> Path:
    return Path(os.environ["GRADIO_TEMP_DIR"]).resolve()


def new_folder() -> Path:
    """A new folder for files that are made for one answer; like the uploads it is deleted after `KEEP_SECONDS`."""
    return Path(tempfile.mkdtemp(dir=upload_folder()))


def keep_clean(folder: Path) -> None:
    """Deletes what is too old in `folder`, for ever: `delete_cache` does not know of files without a component."""
    while True:
        time.sleep(CLEAN_SECONDS)
        delete_old_files(folder, KEEP_SECONDS)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT, help="folder or Hub id (default: the shipped one)")
    # a Space sets these two variables
    parser.add_argument(
        "--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), help="0.0.0.0: the network (%(default)s)"
    )
    parser.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT", 7860)))
    parser.add_argument(
        "--auth",
        metavar="USER:PASSWORD",
        default=os.environ.get("EFP_AUTH"),
        help="ask for them (default: the variable EFP_AUTH, which other users of the machine cannot see)",
    )
    parser.add_argument("--mcp", action="store_true", help="also an MCP server (needs `pip install gradio[mcp]`)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    user, _, password = (arguments.auth or "").partition(":")
    if arguments.auth is not None and not (user and password):
        sys.exit("`--auth` must be USER:PASSWORD, both not empty.")
    with_mcp = arguments.mcp or os.environ.get("GRADIO_MCP_SERVER", "False").lower() == "true"
    if with_mcp and arguments.auth:
        sys.exit("`--mcp` and `--auth` exclude each other: Gradio's MCP server knows no password. Leave one out.")
    if with_mcp and find_spec("mcp") is None:
        sys.exit("`--mcp` needs the package mcp: pip install 'gradio[mcp]'")
    try:
        model, processor = load_checkpoint(arguments.checkpoint)
    except (OSError, ValueError) as error:
        sys.exit(str(error))

    folder = upload_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that stopping the service deletes the photos too
    threading.Thread(target=keep_clean, args=[folder], daemon=True).start()
    threading.Thread(target=lesion_metric_class, daemon=True).start()  # slow to import
    gr.set_static_paths([EXAMPLES])
    if EXAMPLES.is_dir():  # the first run is slower than the others: not that of the first visitor
        draw_view(segment_photo(next(EXAMPLES.glob("*.jpg")), model, processor), processor)
    page = build_page(
        model, processor, f"http://{arguments.host}:{arguments.port}", weights_digest(arguments.checkpoint)
    )
    page.queue(max_size=MAX_QUEUE)
    page.launch(
        server_name=arguments.host,
        server_port=arguments.port,
        auth=(user, password) if arguments.auth else None,
        mcp_server=with_mcp,
        max_file_size=MAX_ZIP_BYTES,
        state_session_capacity=MAX_SESSIONS,
        run_history=False,
        enable_monitoring=False,
        share=False,
        ssr_mode=False,
        pwa=False,
        footer_links=["api", "settings"],
        theme=gr.themes.Default(
            font=[gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")],
            font_mono=[gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")],
        ).set(**CONTRAST),
        css=CSS,
    )


if __name__ == "__main__":
    main()
