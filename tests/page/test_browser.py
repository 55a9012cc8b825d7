"""The page as a person uses it, in Chromium, and its API and MCP tools as a program does."""

import asyncio
import base64
import fnmatch
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import ORGANS, REPOSITORY, draw_organs
from PIL import Image

from efp_hf.data.files import read_mask
from efp_hf.inference.drawing import class_colors
from efp_hf.lesion.structures import LABELS, title_of

EXAMPLES = REPOSITORY / "examples"
PHOTO, TRUTH = EXAMPLES / "synthetic_1.jpg", EXAMPLES / "synthetic_1_segmentation.png"
CHECKPOINT = REPOSITORY / "efp_hf" / "checkpoints" / "efp-isic"
TABS = ("Segment", "Measure", "Trust", "Compare", "Look inside", "Many images", "API")

pytestmark = pytest.mark.browser

# Runs app.py with a note of every address that the process looks up or connects to.
WATCHED_APP = """
import json, runpy, sys
notes = open(sys.argv.pop(1), "a", buffering=1)
def note(event, arguments):
    if event == "socket.connect":
        notes.write(json.dumps(str(arguments[1])) + "\\n")
    elif event == "socket.getaddrinfo":
        notes.write(json.dumps(str((arguments[0], arguments[1]))) + "\\n")
sys.addaudithook(note)
sys.argv[0] = "app.py"
runpy.run_path("app.py", run_name="__main__")
"""


class Server:
    """`app.py` in its own process with its own folder for uploads."""

    def __init__(self, folder: Path, *options: str, **environment: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.uploads = folder / "uploads"
        self.contacts = folder / "contacts"
        self.process = subprocess.Popen(
            [sys.executable, "-c", WATCHED_APP, str(self.contacts), "--port", str(self.port), *options],
            cwd=REPOSITORY,
            env={**os.environ, "GRADIO_TEMP_DIR": str(self.uploads), **environment},
        )
        deadline = time.monotonic() + 240
        while not self.answers():
            assert self.process.poll() is None, "app.py ended"
            if time.monotonic() > deadline:
                self.process.terminate()
                raise TimeoutError("app.py does not answer")
            time.sleep(0.2)

    def answers(self) -> bool:
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", self.port)) == 0

    def uploaded(self, name: str) -> list[Path]:
        """The uploaded files of a name; folders may go while they are walked, which `Path.rglob` does not bear."""
        return [
            Path(folder, file) for folder, _, files in os.walk(self.uploads) for file in fnmatch.filter(files, name)
        ]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = Server(tmp_path_factory.mktemp("server"), "--mcp", "--checkpoint", str(CHECKPOINT))
    yield started
    started.stop()


@pytest.fixture
def page(browser, server):
    with open_page(browser, server) as opened:
        yield opened


class open_page:
    """A page in its own browser profile; when it is closed, no request went to another host and no script failed."""

    def __init__(self, browser, server, width=1440, color_scheme="light", has_touch=False, is_ready="#examples img"):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=color_scheme, has_touch=has_touch
        )
        self.url, self.hosts, self.failures, self.is_ready = server.url, set(), [], is_ready

    def __enter__(self):
        page = self.context.new_page()
        page.set_default_timeout(15_000)
        page.on("request", lambda request: self.hosts.add("/".join(request.url.split("/", 3)[:3])))
        page.on("pageerror", lambda error: self.failures.append(str(error)))
        page.goto(self.url)
        page.wait_for_selector(self.is_ready)
        return page

    def __exit__(self, kind, error, traceback):
        self.context.close()
        if kind is None:
            foreign = {host for host in self.hosts if not host.startswith((self.url, "data:", "blob:"))}
            assert not foreign and not self.failures


def choose_photo(page, path=PHOTO):
    page.set_input_files("#photo input[type=file]", str(path))
    page.wait_for_selector("#photo button[aria-label='Remove Image'], #photo img")


def segment(page, path=PHOTO):
    choose_photo(page, path)
    page.get_by_text(Path(path).name).wait_for()


def open_tab(page, name):
    tab = page.get_by_role("tab", name=name, exact=True).locator("visible=true")
    if tab.count() == 0:  # on a phone some are in the menu
        page.locator(".overflow-menu > button").click()
        tab = page.locator(".overflow-dropdown").get_by_text(name, exact=True)
    tab.first.click()


def summary(page) -> str:
    return page.inner_text("#view .efp-summary")


def download(page, button):
    with page.expect_download() as started:
        page.click(button)
    return Path(started.value.path()), started.value.suggested_filename


def predicted_masks(files, output):
    """What `efp predict` writes for the files."""
    command = [sys.executable, "-m", "efp_hf", "predict", *map(str, files), "--output", str(output)]
    subprocess.run([*command, "--checkpoint", str(CHECKPOINT)], cwd=REPOSITORY, check=True)
    return output


# -- a person on each tab


def test_segment_shows_the_lesion_and_the_threshold_redraws_it(page):
    segment(page)
    before = summary(page)
    assert before.startswith("The lesion covers") and "synthetic_1.jpg (600 × 450 pixels)" in before
    page.wait_for_selector("#probabilities img")
    page.fill("#threshold input[type=number]", "0.9")
    page.keyboard.press("Tab")
    page.wait_for_function("before => document.querySelector('#view .efp-summary').innerText != before", arg=before)
    assert float(summary(page).split()[3].rstrip("%")) < float(before.split()[3].rstrip("%"))
    page.locator("#probabilities").get_by_text("0.90").wait_for()


def test_an_example_can_be_segmented(page):
    page.locator("#examples button").first.click()
    page.wait_for_selector("#picture img")
    assert not page.locator("#examples").is_visible()
    assert "expected jaccard" in page.inner_text("#view [role=status]").lower()
    page.click("#photo button[aria-label='Remove Image']")
    page.wait_for_selector("#examples img")


def test_downloads_are_those_of_the_command_line(page, tmp_path):
    segment(page)
    mask, name = download(page, "#get_mask")
    folder = predicted_masks([PHOTO], tmp_path / "masks")
    assert name == "synthetic_1_segmentation.png"
    assert mask.read_bytes() == (folder / name).read_bytes()

    overlay, name = download(page, "#get_overlay")
    with Image.open(overlay) as picture:
        assert (name, picture.size) == ("synthetic_1_overlay.png", (600, 450))
    contour, name = download(page, "#get_contour")
    (annotation,) = json.loads(contour.read_text())["annotations"]
    assert name == "synthetic_1_contour.json"
    assert annotation["area"] == np.count_nonzero(read_mask(mask))

    page.fill("#threshold input[type=number]", "0.95")  # a second download is not the first one
    page.keyboard.press("Tab")
    page.wait_for_function("() => document.querySelector('#probabilities').innerText.includes('0.95')")
    assert download(page, "#get_mask")[0].read_bytes() != mask.read_bytes()


def test_measure_gives_millimetres_for_a_scale(page):
    segment(page)
    open_tab(page, "Measure")
    page.wait_for_selector("#measures table")
    assert "longest diameter" in page.inner_text("#measures") and "mm²" not in page.inner_text("#measures")
    page.fill("#scale input", "20")
    page.keyboard.press("Enter")
    page.get_by_text("mm²").wait_for()
    assert re.search(r"[0-9.]+ mm \([0-9,]+ px\)", page.inner_text("#measures"))


def test_trust_states_the_estimate_and_how_well_it_was_measured(page):
    segment(page)
    open_tab(page, "Trust")
    page.wait_for_selector("#trust .efp-estimate")
    assert 0 <= float(page.inner_text("#trust .efp-estimate")) <= 1
    words = page.inner_text("#trust")
    is_measured = "expected_jaccard_rank_correlation" in (CHECKPOINT / "README.md").read_text()
    assert ("rank correlation" in words) == is_measured != ("not measured" in words)


def test_compare_scores_the_mask_and_draws_the_agreement(page):
    segment(page)
    open_tab(page, "Compare")
    page.set_input_files("#truth input[type=file]", str(TRUTH))
    page.wait_for_selector("#truth img")
    page.click("#score")
    page.wait_for_selector("#comparison table")
    scores = page.inner_text("#comparison table")
    assert all(name in scores for name in ("Jaccard (J)", "TJ", "Dice", "sensitivity", "specificity"))
    assert "missed" in page.inner_text("#comparison figcaption")


def test_true_mask_of_another_size_is_refused_in_words(page, tmp_path):
    Image.new("L", (60, 45)).save(tmp_path / "small.png")
    segment(page)
    open_tab(page, "Compare")
    page.set_input_files("#truth input[type=file]", str(tmp_path / "small.png"))
    page.wait_for_selector("#truth img")
    page.click("#score")
    page.get_by_text("image is 450×600, mask 45×60").wait_for()


def test_look_inside_shows_twelve_maps(page):
    segment(page)
    open_tab(page, "Look inside")
    page.wait_for_selector("#maps img")
    assert page.locator("#maps img").count() == 12


def test_many_images_go_past_a_bad_file(page, tmp_path):
    (tmp_path / "bad.jpg").write_text("no image")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as packed:
        packed.write(EXAMPLES / "synthetic_2.jpg", "folder/synthetic_2.jpg")
        packed.write(EXAMPLES / "README.md", "README.md")
    open_tab(page, "Many images")
    page.set_input_files(
        "#files input[type=file]", [str(PHOTO), str(tmp_path / "bad.jpg"), str(tmp_path / "photos.zip")]
    )
    page.locator("#files").get_by_text(".zip", exact=True).wait_for()
    page.click("#run_many")
    page.wait_for_selector("#rows table")
    words = page.inner_text("#rows")
    assert "2 of 3 files segmented; 1 other files" in words
    assert "bad.jpg: not an image that can be read. Save it as JPEG or PNG." in words
    assert page.locator("#rows img").count() == 2
    archive, name = download(page, "#archive")
    folder = predicted_masks([PHOTO, EXAMPLES / "synthetic_2.jpg"], tmp_path / "masks")
    with zipfile.ZipFile(archive) as packed:
        assert name == "masks.zip"
        for k in (1, 2):
            mask = f"synthetic_{k}_segmentation.png"
            assert packed.read(mask) == (folder / mask).read_bytes()
        assert b"bad.jpg: not an image" in packed.read("predictions.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no image", "not an image that can be read"), (PHOTO.read_bytes()[:20_000], "damaged or truncated")],
)
def test_bad_photo_is_refused_in_words_and_the_page_goes_on(page, tmp_path, content, message):
    (tmp_path / "bad.jpg").write_bytes(content)
    choose_photo(page, tmp_path / "bad.jpg")
    page.get_by_text(f"bad.jpg: {'the file is ' if 'damaged' in message else ''}{message}").wait_for()
    page.reload()
    segment(page)


def test_page_says_that_it_is_no_diagnosis(page):
    assert page.get_by_text("Research use, not a diagnosis.").is_visible()


def test_large_photo_is_shown(page, tmp_path):
    with Image.open(PHOTO) as image:
        image.resize((4000, 3000), Image.Resampling.BICUBIC).save(tmp_path / "large.jpg", quality=92)
    choose_photo(page, tmp_path / "large.jpg")
    page.wait_for_selector("#picture img")
    page.get_by_text("4000 × 3000 pixels").wait_for()


# -- a person who corrects


def marks(page) -> list[str]:
    return page.locator("#marks label").all_inner_texts()


def click_picture(page, x, y, tap=False):
    """At a place of the picture, in shares of its sides."""
    picture = page.locator("#picture img")
    picture.scroll_into_view_if_needed()  # and it has stopped moving
    area = picture.bounding_box()
    place = area["x"] + x * area["width"], area["y"] + y * area["height"]
    page.touchscreen.tap(*place) if tap else page.mouse.click(*place)


def test_clicks_and_a_box_correct_the_mask_and_are_undone(browser, server, tmp_path):
    from gradio_client import Client, handle_file

    with open_page(browser, server) as page:
        choose_photo(page)
        page.wait_for_selector("#picture img")
        automatic, _ = download(page, "#get_mask")
        click_picture(page, 0.5, 0.5)
        page.get_by_text("1: lesion (").wait_for()
        page.get_by_label("skin", exact=True).check()
        page.focus("#picture button")
        for key in ["ArrowRight"] * 5 + ["ArrowUp"] * 5:
            page.keyboard.press(key)
        page.keyboard.press("Enter")
        page.get_by_text("2: skin (").wait_for()
        page.get_by_label("box", exact=True).check()
        click_picture(page, 0.8, 0.9)
        page.get_by_text("corner of a box").wait_for()
        click_picture(page, 0.2, 0.1)
        page.get_by_text(") to (").wait_for()
        names = marks(page)
        numbers = [int(number) for number in re.findall(r"\d+(?=[,)])", " ".join(names))]
        np.testing.assert_allclose(numbers, [300, 225, 360, 165, 120, 45, 480, 405], atol=1.5)
        first, second, box = numbers[:2], numbers[2:4], numbers[4:]
        corrected, name = download(page, "#get_mask")
        assert name == "synthetic_1_segmentation.png" and corrected.read_bytes() != automatic.read_bytes()

        clicks = [f"{first[0]},{first[1]}", f"{second[0]},{second[1]},0"]
        prompts = ["--points", *clicks, "--box", ",".join(map(str, box))]
        command = [sys.executable, "-m", "efp_hf", "predict", str(PHOTO), "--output", str(tmp_path / "masks"), *prompts]
        subprocess.run([*command, "--checkpoint", str(CHECKPOINT)], cwd=REPOSITORY, check=True)
        assert np.array_equal(read_mask(corrected), read_mask(tmp_path / "masks" / name))
        client = Client(server.url, verbose=False, analytics_enabled=False)
        given = {"points": [first, second], "labels": [1, 0], "box": box}
        data, mask = client.predict(handle_file(PHOTO), **given, api_name="/segment")
        assert Path(mask).read_bytes() == corrected.read_bytes() and data["box"] == given["box"]

        page.locator("#marks input").nth(1).uncheck()
        page.get_by_text("2: skin (").wait_for(state="hidden")
        assert marks(page) == [names[0], names[2]]
        page.click("#undo")
        page.get_by_text("2: skin (").wait_for()
        assert download(page, "#get_mask")[0].read_bytes() == corrected.read_bytes()
        page.click("#redo")
        page.get_by_text("2: skin (").wait_for(state="hidden")
        page.click("#reset")
        page.wait_for_selector("#marks", state="hidden")
        assert download(page, "#get_mask")[0].read_bytes() == automatic.read_bytes()


def test_a_small_photo_fills_the_page_and_takes_clicks_at_their_places(browser, server, tmp_path):
    with Image.open(PHOTO) as image:
        image.resize((192, 256)).save(tmp_path / "small.png")
    with open_page(browser, server) as page:
        choose_photo(page, tmp_path / "small.png")
        page.wait_for_selector("#picture img")
        area = page.locator("#picture img").bounding_box()
        assert (round(area["width"]), round(area["height"])) == (480, 640)
        click_picture(page, 0.25, 0.75)
        page.get_by_text("1: lesion (").wait_for()
        np.testing.assert_allclose(
            [int(number) for number in re.findall(r"\d+(?=[,)])", marks(page)[0])], [48, 192], atol=1.5
        )


def test_a_photo_says_that_clicks_belong_on_the_other_picture(page):
    hint = page.get_by_text("click on the outlined picture")
    assert hint.count() == 1 and not hint.is_visible()
    choose_photo(page)
    hint.wait_for()
    page.click("#photo button[aria-label='Remove Image']")
    hint.wait_for(state="hidden")


def test_a_finger_corrects_on_a_phone(browser, server):
    with open_page(browser, server, width=390, has_touch=True) as page:
        choose_photo(page)
        page.wait_for_selector("#picture img")
        page.locator("#picture img").scroll_into_view_if_needed()
        click_picture(page, 0.5, 0.5, tap=True)
        page.get_by_text("1: lesion (").wait_for()
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390


def test_point_outside_is_refused_in_words(server):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(server.url, verbose=False, analytics_enabled=False)
    with pytest.raises(AppError, match="must lie in the photo of 600×450 pixels"):
        client.predict(handle_file(PHOTO), points=[[601, 5]], api_name="/measure")


# -- a checkpoint that takes no prompts


@pytest.fixture(scope="module")
def promptless_server(tmp_path_factory, tiny_checkpoint):
    started = Server(tmp_path_factory.mktemp("promptless"), "--checkpoint", str(tiny_checkpoint))
    yield started
    started.stop()


def test_before_and_after_follow_the_keyboard(browser, promptless_server):
    with open_page(browser, promptless_server) as page:
        segment(page)
        assert page.locator("#picture, #kind, #where_to_click").count() == 0
        page.focus(".efp-cut input")
        after = page.locator(".efp-after")
        shown = after.evaluate("image => getComputedStyle(image).clipPath")
        for _ in range(30):
            page.keyboard.press("ArrowLeft")
        assert page.input_value(".efp-cut input") == "70"
        assert after.evaluate("image => getComputedStyle(image).clipPath") != shown


def test_a_checkpoint_without_prompts_offers_none_to_programs(promptless_server):
    from gradio_client import Client

    client = Client(promptless_server.url, verbose=False, analytics_enabled=False)
    given = client.view_api(return_format="dict")["named_endpoints"]["/segment"]["parameters"]
    assert [parameter["parameter_name"] for parameter in given] == ["image", "threshold", "largest_region"]


# -- for everybody, and safely


def test_keyboard_alone_reaches_the_lesion_and_the_tabs(page):
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.closest('#examples') !== null"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("#picture img")
    page.focus("#photo button")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.getAttribute('role')") == "tab":
            break
    for _ in range(5):
        if page.evaluate("() => document.activeElement.innerText.trim()") == "Measure":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#measures table")


def test_every_tab_fits_a_phone(browser, server):
    with open_page(browser, server, width=390) as page:
        segment(page)
        for tab in TABS:
            open_tab(page, tab)
            page.wait_for_timeout(500)
            assert page.evaluate("() => document.documentElement.scrollWidth") <= 390, tab
        assert page.inner_text("footer").strip() == "Settings"  # no dot before it


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["server", "promptless_server", "structure_server"])
def test_axe_finds_no_violation_on_any_tab(browser, request, find_violations, which, color_scheme):
    with open_page(browser, request.getfixturevalue(which), color_scheme=color_scheme) as page:
        found = {}
        for tab in ("Welcome", *TABS):
            if tab == "Segment":
                choose_photo(page)
                page.wait_for_selector("#view .efp-word")
                if which == "server":
                    click_picture(page, 0.5, 0.5)
                    page.wait_for_selector("#marks label")
            if tab != "Welcome":
                open_tab(page, tab)
            page.wait_for_timeout(1500)
            for violation in find_violations(page):
                found.setdefault(violation, tab)
        assert not found


def test_photo_is_deleted_when_the_page_is_closed(browser, server, tmp_path):
    path = tmp_path / "private.jpg"
    path.write_bytes(PHOTO.read_bytes() + b"another one")  # of its own contents, and so with a file of its own
    with open_page(browser, server) as page:
        segment(page, path)
        download(page, "#get_overlay")
        assert server.uploaded("private.jpg") and server.uploaded("private_overlay.png")
    deadline = time.monotonic() + 20
    while server.uploaded("private*") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not server.uploaded("private*")


def test_uploads_are_readable_for_nobody_else(server):
    assert server.uploads.stat().st_mode & 0o077 == 0


# -- a checkpoint of several labels


@pytest.fixture(scope="module")
def structure_server(tmp_path_factory, tiny_structures):
    started = Server(tmp_path_factory.mktemp("structures"), "--checkpoint", str(tiny_structures))
    yield started
    started.stop()


@pytest.fixture(scope="module")
def organ_server(tmp_path_factory, organs_checkpoint):
    started = Server(tmp_path_factory.mktemp("organs"), "--checkpoint", str(organs_checkpoint))
    yield started
    started.stop()


def colors_in(page) -> set[tuple[int, ...]]:
    """Those of `LABELS` that the picture with the outlines has many pixels of."""
    content = base64.b64decode(page.get_attribute("#view .efp-after", "src").split(",", 1)[1])
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    near = {tuple(color): np.abs(pixels - color).max(-1) < 16 for color in class_colors(len(LABELS))[1:].tolist()}
    return {color for color, is_near in near.items() if is_near.sum() > 200}


@pytest.mark.parametrize(("width", "color_scheme"), [(1440, "light"), (390, "dark")])
def test_layers_are_switched_on_and_off(browser, structure_server, width, color_scheme, tmp_path):
    lesion, *_, streaks = (tuple(color) for color in class_colors(len(LABELS))[1:].tolist())
    with open_page(browser, structure_server, width, color_scheme) as page:
        segment(page)
        assert {lesion, streaks} <= colors_in(page)
        rows = page.locator("#view table tbody tr")
        assert rows.count() == len(LABELS)
        numbers = rows.last.inner_text().split()
        assert numbers[0] == "streaks" and 0 < float(numbers[1]) <= 1 and 0 <= float(numbers[2]) <= 1
        for name in LABELS[1:]:
            page.get_by_label(title_of(name), exact=True).uncheck()
        page.wait_for_function("() => document.querySelectorAll('#layers input:checked').length == 1")
        deadline = time.monotonic() + 15
        while colors_in(page) != {lesion} and time.monotonic() < deadline:
            page.wait_for_timeout(200)
        assert colors_in(page) == {lesion}
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        archive, name = download(page, "#get_layers")
        assert name == "synthetic_1_masks.zip"
        with zipfile.ZipFile(archive) as packed:
            assert len(packed.namelist()) == len(LABELS)
        open_tab(page, "Measure")
        page.locator("#measures").get_by_text("number of structures").wait_for()


def test_classes_are_shown_in_their_colours(browser, organ_server, tmp_path):
    draw_organs(0)[0].save(tmp_path / "organs.png")
    with open_page(browser, organ_server, is_ready="#photo") as page:
        segment(page, tmp_path / "organs.png")
        legend = page.inner_text("#view .efp-legend")
        assert all(f"{name}: " in legend for name in ORGANS)
        assert not page.locator("#layers").is_visible() and not page.locator("#threshold").is_visible()
        mask, name = download(page, "#get_mask")
        assert name == "organs_segmentation.png" and set(np.unique(np.asarray(Image.open(mask)))) <= {0, 1, 2, 3}
        open_tab(page, "Many images")
        page.set_input_files("#files input[type=file]", [str(tmp_path / "organs.png")])
        page.locator("#files").get_by_text(".png", exact=True).wait_for()
        page.click("#run_many")
        page.wait_for_selector("#rows table")
        assert all(name in page.inner_text("#rows thead") for name in ORGANS)


# -- a program


@pytest.fixture(scope="module")
def client(server):
    from gradio_client import Client

    return Client(server.url, verbose=False, analytics_enabled=False)


def test_api_answers_with_data(client, tmp_path):
    from gradio_client import handle_file

    data, mask_file = client.predict(handle_file(PHOTO), api_name="/segment")
    mask = read_mask(mask_file)
    assert mask.shape == (data["height"], data["width"]) == (450, 600)
    assert np.count_nonzero(mask) == data["lesion_pixels"] == data["contour"]["annotations"][0]["area"]
    folder = predicted_masks([PHOTO], tmp_path / "masks")
    assert Path(mask_file).read_bytes() == (folder / "synthetic_1_segmentation.png").read_bytes()

    measures = client.predict(handle_file(PHOTO), pixels_per_mm=20, api_name="/measure")
    assert measures["area_mm2"] == pytest.approx(data["lesion_pixels"] / 400)
    assert client.predict(handle_file(PHOTO), api_name="/measure").keys() < measures.keys()
    assert 0 <= client.predict(handle_file(PHOTO), api_name="/trust")["expected_jaccard"] <= 1
    scores = client.predict(handle_file(PHOTO), handle_file(TRUTH), api_name="/compare")
    assert 0 < scores["jaccard"] <= scores["dice"] <= 1
    maps = client.predict(handle_file(PHOTO), api_name="/look_inside")
    assert len(maps) == 12 and len(maps["M_s 1"]) == len(maps["F1"])
    rows, archive = client.predict([handle_file(PHOTO), handle_file(EXAMPLES / "README.md")], api_name="/segment_many")
    assert rows[0]["lesion_pixels"] == data["lesion_pixels"] and "not an image" in rows[1]["error"]
    assert "predictions.csv" in zipfile.ZipFile(archive).namelist()


def test_api_refuses_in_words(client):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match="must be a probability between 0 and 1"):
        client.predict(handle_file(PHOTO), threshold=2, api_name="/segment")
    with pytest.raises(AppError, match="not an image that can be read"):
        client.predict(handle_file(EXAMPLES / "README.md"), api_name="/segment")


def test_api_reads_no_file_of_the_server_and_fetches_no_address(client, server):
    meta = {"_type": "gradio.FileData"}
    for path in (str(REPOSITORY / "pyproject.toml"), "/etc/passwd", "http://192.0.2.1/photo.jpg"):
        body = json.dumps({"data": [{"path": path, "meta": meta}, 0.5, False]}).encode()
        request = urllib.request.Request(
            f"{server.url}/gradio_api/call/segment", body, {"Content-Type": "application/json"}
        )
        event = json.load(urllib.request.urlopen(request))["event_id"]
        answer = urllib.request.urlopen(f"{server.url}/gradio_api/call/segment/{event}").read().decode()
        assert "event: error" in answer


def ask_mcp(server, tool: str, **arguments):
    """The tools of the MCP server by name, and what one of them says of the photo."""
    pytest.importorskip("mcp")
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def ask():
        async with streamablehttp_client(f"{server.url}/gradio_api/mcp/") as (read, write, _):
            async with ClientSession(read, write) as session:
                await session.initialize()
                tools = {found.name: found for found in (await session.list_tools()).tools}
                photo = f"data:image/jpeg;base64,{base64.b64encode(PHOTO.read_bytes()).decode()}"
                name = next(name for name in tools if name.endswith(tool))
                return tools, await session.call_tool(name, {"image": photo, **arguments})

    with ThreadPoolExecutor(1) as other_thread:  # Playwright's event loop runs in this one
        return other_thread.submit(lambda: asyncio.run(ask())).result()


def test_mcp_server_offers_the_same_functions(server):
    tools, answer = ask_mcp(server, "trust")
    names = {"segment", "measure", "trust", "compare", "look_inside", "segment_many"}
    assert {next((name for name in names if tool.endswith(name)), tool) for tool in tools} == names
    assert all("photo" in tool.description for tool in tools.values())
    assert not answer.isError and "expected_jaccard" in answer.content[0].text


def test_mcp_tool_takes_clicks_and_a_box(server):
    given = {"points": [[300, 225]], "labels": [0], "box": [120, 45, 480, 405]}
    tools, answer = ask_mcp(server, "segment", **given)
    tool = next(tool for name, tool in tools.items() if name.endswith("segment"))
    assert given.keys() <= tool.inputSchema["properties"].keys()
    assert not answer.isError and "'box': [120" in answer.content[0].text


def test_server_contacts_nobody(server):
    """After all of the above: it looked up and connected to nothing but this machine."""
    contacts = [json.loads(line) for line in server.contacts.read_text().splitlines()]
    assert contacts
    assert not [contact for contact in contacts if "127.0.0.1" not in contact and "localhost" not in contact]


def test_password_is_asked_for_and_stopping_deletes_all(tmp_path, tiny_checkpoint):
    started = Server(tmp_path, "--checkpoint", str(tiny_checkpoint), EFP_AUTH="anna:secret")
    try:
        for address in ("/config", "/gradio_api/info"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(started.url + address)
            assert refused.value.code == 401
        body = b"username=anna&password=secret"
        assert urllib.request.urlopen(f"{started.url}/login", body).status == 200
        assert started.uploads.is_dir()
    finally:
        started.stop()
    assert not started.uploads.exists()


def test_listens_on_this_machine_alone(server):
    listening = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True).stdout
    if not listening:
        pytest.skip("ss is not installed")
    (address,) = [line.split()[3] for line in listening.splitlines() if line.split()[3].endswith(f":{server.port}")]
    assert address == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--auth", "anna"], "`--auth` must be USER:PASSWORD"),
        (["--checkpoint", "./nowhere"], "no checkpoint there"),
    ],
)
def test_bad_options_are_refused_in_words(options, message):
    ended = subprocess.run([sys.executable, "app.py", *options], cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 2 and message in ended.stderr
