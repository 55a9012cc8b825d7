"""The page of `efp review` as a person uses it, in Chromium."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.browser


class Server:
    """`efp review` in its own process."""

    def __init__(self, photos: Path, output: Path, checkpoint: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        options = ["--output", output, "--checkpoint", checkpoint, "--port", str(self.port)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "efp_hf", "review", photos, *options], cwd=REPOSITORY, env=dict(os.environ)
        )
        deadline = time.monotonic() + 240
        while socket.socket().connect_ex(("127.0.0.1", self.port)):
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)

    def stop(self, how=signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(60)


def open_page(browser, url, width=1440, color_scheme="light"):
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=color_scheme).new_page()
    page.set_default_timeout(30_000)
    page.hosts = set()
    page.on("request", lambda request: page.hosts.add("/".join(request.url.split("/", 3)[:3])))
    page.goto(url)
    page.wait_for_selector("#photo img")
    return page


def shown(page) -> str:
    return page.inner_text("#state b")


def label(page) -> str:
    return page.locator("#label input:checked").get_attribute("value")


def press(page, key: str) -> None:
    """A key, and the image that follows."""
    view = "document.querySelector('#view textarea, #view input').value"
    before = page.evaluate(view)
    page.keyboard.press(key)
    page.wait_for_function(f"before => {view} != before", arg=before)
    page.wait_for_timeout(300)  # all parts of the page


def click_photo(page, x: float, y: float) -> None:
    """At a place of the picture, in shares of its sides."""
    photo = page.locator("#photo img").bounding_box()
    page.mouse.click(photo["x"] + x * photo["width"], photo["y"] + y * photo["height"])


def wait_for(page, words: str) -> None:
    page.wait_for_function("words => document.querySelector('#state').innerText.includes(words)", arg=words)


def test_a_review_by_keys_and_clicks_is_on_disk_through_a_kill(browser, folder, tmp_path, prompted_checkpoint):
    output = tmp_path / "set"

    def rows() -> list[tuple[str, str, str]]:
        with (output / "decisions.csv").open(newline="") as file:
            return [(row["image"], row["decision"], row["clicks"]) for row in csv.DictReader(file)]

    server = Server(folder, output, prompted_checkpoint)
    page = open_page(browser, server.url)
    page.wait_for_function("() => !document.querySelector('#state').innerText.includes('segmented')")
    first = shown(page)
    press(page, "a")
    second = shown(page)
    assert rows() == [(first, "accepted", "0")] and second != first
    assert (output / "images" / first).read_bytes() == (folder / first).read_bytes()

    for place in ((0.3, 0.3), (0.5, 0.6)):  # at once: the second one waits its turn
        click_photo(page, *place)
        page.keyboard.press("s")
    wait_for(page, "clicks: 2")
    page.keyboard.press("z")
    wait_for(page, "clicks: 1")
    page.keyboard.press("s")
    assert label(page) == "skin"
    press(page, "a")
    assert label(page) == "lesion"  # each photo begins with it
    assert rows()[1:] == [(second, "corrected", "1")]
    third = shown(page)
    press(page, "b")
    assert shown(page) == second and "decided before: corrected" in page.inner_text("#state")

    server.stop(signal.SIGKILL)
    page.context.close()
    server = Server(folder, output, prompted_checkpoint)
    page, other = open_page(browser, server.url), open_page(browser, server.url, width=390, color_scheme="dark")
    assert shown(page) == third and "2 of 6 decided" in page.inner_text("#state")
    assert shown(other) not in (first, second, third)
    if folder_of_pictures := os.environ.get("EFP_SCREENSHOTS"):
        page.screenshot(path=f"{folder_of_pictures}/review-1440.png", full_page=True)
        other.screenshot(path=f"{folder_of_pictures}/review-390-dark.png", full_page=True)
    other.context.close()
    press(page, "n")

    page.keyboard.press("u")
    server.stop(signal.SIGKILL)  # before or after the decision is on disk
    page.context.close()
    server = Server(folder, output, prompted_checkpoint)
    page = open_page(browser, server.url)
    assert shown(page) not in [image for image, _, _ in rows()]
    while page.locator("#state b").count():
        press(page, "u")
    assert [decision for _, decision, _ in rows()[2:]] == ["no lesion", "unusable", "unusable", "unusable"]
    assert "All are decided: 1 accepted, 1 corrected, 1 without lesion, 3 unusable." in page.inner_text("#state")
    assert "Train on them: efp train --data" in page.inner_text("#state")
    if folder_of_pictures:
        page.screenshot(path=f"{folder_of_pictures}/review-end.png", full_page=True)
    assert not page.locator("#photo").is_visible() and not page.locator("#label").is_visible()
    page.wait_for_timeout(2500)  # a tick
    assert not page.locator("#photo").is_visible()
    press(page, "b")
    page.wait_for_selector("#photo img")
    assert page.locator("#label").is_visible() and "decided before: unusable" in page.inner_text("#state")
    press(page, "u")
    assert len(list((output / "masks").iterdir())) == len(list((output / "images").iterdir())) == 3
    assert {host for host in page.hosts if not host.startswith((server.url, "data:", "blob:"))} == set()
    assert server.stop() == 0
    page.context.close()


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_a_box_is_drawn_and_axe_finds_no_violation(
    browser, folder, tmp_path, prompted_checkpoint, find_violations, color_scheme
):
    server = Server(folder, tmp_path / "set", prompted_checkpoint)
    page = open_page(browser, server.url, color_scheme=color_scheme)
    page.wait_for_function("() => !document.querySelector('#state').innerText.includes('segmented')")
    page.keyboard.press("x")
    assert label(page) == "box"
    click_photo(page, 0.8, 0.9)
    wait_for(page, "corner of a box")
    click_photo(page, 0.2, 0.1)
    page.wait_for_function("() => /· box(?! )/.test(document.querySelector('#state').innerText)")
    page.keyboard.press("s")
    assert label(page) == "lesion"
    click_photo(page, 0.5, 0.5)
    wait_for(page, "clicks: 1 · box")
    page.wait_for_timeout(1500)
    found = find_violations(page)
    press(page, "a")
    with (tmp_path / "set" / "decisions.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    box = [float(side) for side in row["box"].split()]
    assert all(abs(side - wanted) < 0.5 for side, wanted in zip(box, (19.2, 7.2, 76.8, 64.8), strict=True))
    while page.locator("#state b").count():
        press(page, "n")
    assert find_violations(page) == found == []
    assert server.stop(signal.SIGINT) == 0
    page.context.close()


def test_two_keys_at_once_decide_of_one_image(browser, folder, tmp_path, prompted_checkpoint):
    server = Server(folder, tmp_path / "set", prompted_checkpoint)
    page = open_page(browser, server.url)
    page.evaluate(
        """() => { for (const key of ["u", "n", "a"]) document.dispatchEvent(new KeyboardEvent("keydown", {key})); }"""
    )
    wait_for(page, "1 of 6 decided")
    page.wait_for_timeout(3000)
    assert "1 of 6 decided" in page.inner_text("#state")
    taken = shown(page)
    (tmp_path / "set" / "images" / taken).touch()
    press(page, "a")
    assert shown(page) != taken and "is not of this review" in page.inner_text("body")
    assert "1 of 5 decided" in page.inner_text("#state")
    assert server.stop(signal.SIGINT) == 1  # an image is left out
    page.context.close()
