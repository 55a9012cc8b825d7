"""The page of a review, for this computer alone."""

import atexit
import shutil
from collections import Counter
from html import escape
from pathlib import Path

from ..extras import needing
from ..inference.prediction_table import printable
from ..inference.task import class_names_of
from ..page.evidence import trust_word
from ..page.server import CLOSED, set_environment
from .decisions import DECISIONS, OtherDecision
from .queue import Queue
from .reviewer import Reviewer, takes_clicks

HOST = "127.0.0.1"
KEEP_SECONDS = 900  # the pictures that were shown
TICK_SECONDS = 2
VERDICTS = {"accept": "Accept (A)", "no lesion": "No {} (N)", "unusable": "Unusable (U)"}
WORDS = {"no lesion": "without lesion"}
CSS = """
#photo img {max-height: 75vh; cursor: crosshair}
#state b {overflow-wrap: anywhere}
#state progress {display: block; width: 100%; height: .5rem; margin-top: .25rem; appearance: none; border: 0;
    background: var(--border-color-primary); border-radius: 4px}
#state progress::-webkit-progress-bar {background: var(--border-color-primary); border-radius: 4px}
#state progress::-webkit-progress-value {background: var(--primary-700); border-radius: 4px}
#state progress::-moz-progress-bar {background: var(--primary-700); border-radius: 4px}
"""
# A key presses the button whose name ends in it; a key that is held presses it once. Gradio drops a click on a picture
# that is not loaded yet, the one of the click before: it waits.
SCRIPT = """<script>
document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.("textarea, select, input:not([type=radio])")) return;
    const key = event.key.toLowerCase();
    if (key === "x") document.querySelector("#label input[value=box]")?.click();
    else if (key === "s") document.querySelector("#label input:not(:checked)")?.click();
    else if (/^[abnuz]$/.test(key)) document.querySelector(`#key-${key}`)?.click();
});
document.addEventListener("click", (event) => {
    const picture = event.target;
    if (!picture.matches?.("#photo img") || picture.complete) return;
    event.stopPropagation();
    picture.addEventListener("load", () => picture.dispatchEvent(new MouseEvent("click", event)), {once: true});
}, true);
</script>"""


def launch(queue: Queue, port: int = 7860) -> None:
    """
    Serves the page until the process is interrupted.

    Raises:
        OSError: the port is taken.
    """
    set_environment()
    from starlette.middleware import Middleware

    from ..page.gate import Gate
    from ..page.temporary_files import upload_folder
    from ..page.theme import make_theme

    upload_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    atexit.register(shutil.rmtree, upload_folder(), ignore_errors=True)
    page = build_page(queue)
    page.launch(
        app_kwargs={"middleware": [Middleware(Gate, [upload_folder()])]},
        server_name=HOST,
        server_port=port,
        **CLOSED,
        footer_links=[],
        theme=make_theme(),
        css=CSS,
        head=SCRIPT,
    )
    print(f"http://{HOST}:{port}  Ctrl-C ends it", flush=True)
    page.block_thread()


def build_page(queue: Queue):
    """The page as `gr.Blocks`. All of its events take turns: two at once would be of one image."""
    with needing("app", __name__):
        import gradio as gr

        from ..page.corrector import KINDS

    silent = {
        "concurrency_id": "review",
        "concurrency_limit": 1,
        "api_visibility": "private",
        "show_progress": "hidden",
    }
    with gr.Blocks(title="Review of masks", analytics_enabled=False, delete_cache=(60, KEEP_SECONDS)) as page:
        reviewer = gr.State(None)
        view = gr.Textbox(visible="hidden", label="view", elem_id="view")
        state = gr.HTML(elem_id="state")
        with gr.Row():
            with gr.Column(scale=4, min_width=320):
                photo = gr.Image(
                    type="pil",
                    format="jpeg",
                    interactive=False,
                    buttons=[],
                    label="Photo and mask",
                    alt_text="Photo with the outline of its mask",
                    show_label=False,
                    elem_id="photo",
                )
            with gr.Column(scale=1, min_width=200):
                buttons = {
                    verdict: gr.Button(
                        name.format(*class_names_of(queue.model.config)),
                        variant="primary" if verdict == "accept" else "secondary",
                        interactive=False,
                        elem_id=f"key-{verdict[0]}",
                    )
                    for verdict, name in VERDICTS.items()
                }
                back = gr.Button("Back (B)", interactive=False, elem_id="key-b")
                label = gr.Radio(
                    list(KINDS),
                    value="lesion",
                    label="A click on the photo marks (S, box: X)",
                    info="For a box, click on two opposite corners around it.",
                    elem_id="label",
                    visible=takes_clicks(queue.model),
                )
                undo = gr.Button("Undo (Z)", interactive=False, elem_id="key-z", visible=takes_clicks(queue.model))
        event = {**silent, "show_progress": "minimal", "show_progress_on": photo}
        # a click while the mask of the one before is made waits its turn
        in_turn = {**silent, "trigger_mode": "multiple"}
        shown = [reviewer, view, photo, state, *buttons.values(), back, undo, label]

        def show(current: Reviewer, with_photo: bool = True) -> list:
            has_photo = current.photo is not None
            # before the words, which have its expected Jaccard
            picture = gr.skip()
            if with_photo:
                picture = gr.update(value=current.picture() if has_photo else None, visible=has_photo)
            can_press = [gr.update(interactive=has_photo)] * len(buttons)
            can_go_back, can_undo = (gr.update(interactive=bool(past)) for past in (current.history, current.past))
            switch = gr.update(visible=has_photo and takes_clicks(queue.model))
            return [current, str(current.view), picture, describe(current), *can_press, can_go_back, can_undo, switch]

        def begin(request: gr.Request) -> list:
            return show(Reviewer(request.session_hash, queue))

        def tick(current: Reviewer | None) -> list:
            if current is None:
                return [gr.skip()] * len(shown)
            waited = current.photo is None
            if waited:
                current.go_on()
            return show(current, with_photo=waited and current.photo is not None)

        def attempt(current: Reviewer, change) -> list:
            try:
                change()
            except (OtherDecision, FileExistsError) as error:
                gr.Warning(escape(printable(str(error))))
                current.go_on()
            except (OSError, ValueError) as error:
                raise gr.Error(escape(printable(str(error))), print_exception=False) from error
            return show(current)

        def act(current: Reviewer, number: str, change) -> list:
            """`change()`, if what the person saw is what is shown."""
            is_shown = current.photo is not None and number == str(current.view)
            return attempt(current, change) if is_shown else show(current)

        def decide(verdict: str):
            return lambda current, number: act(current, number, lambda: current.decide(verdict))

        def click(current: Reviewer, number: str, name: str, place: gr.SelectData) -> list:
            return act(current, number, lambda: current.click(*place.index, name))

        def go_back(current: Reviewer | None) -> list:
            if current is None:
                return [gr.skip()] * len(shown)
            return attempt(current, current.go_back)

        def close(request: gr.Request) -> None:
            queue.release(request.session_hash)

        for verdict, button in buttons.items():
            button.click(decide(verdict), [reviewer, view], shown, **event)
        back.click(go_back, reviewer, shown, **event)
        undo.click(lambda current, number: act(current, number, current.undo), [reviewer, view], shown, **in_turn)
        if takes_clicks(queue.model):
            photo.select(click, [reviewer, view, label], shown, **in_turn)
        view.change(None, None, label, js="() => 'lesion'", **silent)  # each photo begins with it
        page.load(begin, None, shown, **event)
        gr.Timer(TICK_SECONDS).tick(tick, reviewer, shown, **silent)
        page.unload(close)
    return page


def describe(reviewer: Reviewer) -> str:
    """What is shown, how far the review is, and what could not be read, as HTML."""
    progress = reviewer.queue.progress()
    decided, images = progress["decided"], progress["images"]
    lines, segmented = [], ""
    if progress["segmented"] < progress["waiting"]:
        segmented = f" · {progress['segmented']} of {progress['waiting']} segmented"
    if reviewer.photo is not None:
        name = escape(printable(reviewer.photo.path.name))
        before = f" · decided before: {reviewer.decision}" if reviewer.decision else ""
        marks = reviewer.marks
        clicks = f" · clicks: {len(marks.points)}" if marks.points else ""
        if marks.box or marks.corner:
            clicks += " · box" if marks.corner is None else " · corner of a box"
        expected = f"{trust_word(reviewer.expected_jaccard)} · expected Jaccard {reviewer.expected_jaccard:.2f}"
        lines += [f"<b>{name}</b>{before}", f"{expected}{clicks}"]
    elif reviewer.queue.error:
        pass
    elif segmented:
        lines.append("The next image is being segmented.")
    elif images == 0:
        lines.append(f"There is no image to review: {left_out(reviewer.queue)}.")
    elif decided == images:
        folder = escape(printable(str(reviewer.decisions.output)))
        counts = Counter(row["decision"] for row in reviewer.queue.decided().values())
        lines.append(
            "All are decided: " + ", ".join(f"{counts[name]} {WORDS.get(name, name)}" for name in DECISIONS) + "."
        )
        if counts.total() > counts["unusable"]:
            lines.append(f"Train on them: <code>efp train --data {folder} --output runs/mine</code>")
    else:
        lines.append("No image waits: what is not decided is shown in another browser.")
    if reviewer.queue.error:
        lines.append(escape(printable(reviewer.queue.error)))
    bar = f'<progress aria-label="decided" value="{decided}" max="{images}"></progress>'
    lines.append(f"{decided} of {images} decided{segmented}{bar}")
    if failed := reviewer.queue.failed:
        reasons = [escape(printable(why)) for why in list(failed.values())]
        listed = "".join(f"<li>{why}</li>" for why in reasons)
        lines[-1] += (
            f"<br>1 file cannot be reviewed: {reasons[0]}"
            if len(reasons) == 1
            else f"<details><summary>{len(reasons)} files cannot be reviewed</summary><ul>{listed}</ul></details>"
        )
    return "<br>".join(lines)


def left_out(queue: Queue) -> str:
    """Why there is no image: how many files are left out, each of which has its own reason."""
    count = len(queue.failed)
    return "the only file is left out" if count == 1 else f"all {count} files are left out"


def summary(queue: Queue, output: Path) -> str:
    progress = queue.progress()
    if progress["images"] == 0:
        return f"No image can be reviewed: {left_out(queue)}"
    return f"{progress['decided']} of {progress['images']} images decided in {printable(str(output))}"
