"""The functions that the page's components call, without a browser."""

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

from efp_hf import EFPConfig
from efp_hf.data.synthetic import draw_lesion


@pytest.fixture(scope="module")
def handlers(loaded, tmp_path_factory):
    """The functions that the page's components call, by name."""
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("uploads"))  # before Gradio's import
    from efp_hf.page.layout import build_page

    page = build_page(*loaded, "http://127.0.0.1:7860", evidence="")
    return {getattr(block.fn, "__name__", ""): block.fn for block in page.fns.values()}


def test_each_photo_is_segmented_anew(handlers, tmp_path):
    pages = []
    for number in (3, 4):
        path = tmp_path / f"{number}.jpg"
        draw_lesion(number, 40, 50)[0].save(path)
        photo, _, _, view = handlers["segment_upload"](str(path), 0.5, False)
        assert photo.path == path
        pages.append(view)
    assert pages[0] != pages[1]


def test_photo_that_is_taken_away_leaves_the_welcome(handlers):
    photo, welcome, results, *shown = handlers["segment_upload"](None, 0.5, False)
    assert photo is None and welcome.visible and not results.visible
    assert not any(shown)


def test_comparison_on_the_page_follows_the_threshold(handlers, tmp_path, unsure_photo):
    truth = tmp_path / "truth.png"
    Image.fromarray(np.pad(np.full((4, 4), 255, np.uint8), ((2, 2), (3, 1)))).save(truth)
    low, high = (handlers["compare_upload"](unsure_photo, str(truth), threshold, False) for threshold in (0.5, 0.9))
    assert "1.000" in low and low != high


@pytest.mark.parametrize(("prompt_size", "words"), [(4, "without `--int8`"), (0, "with `efp train --prompts`")])
def test_page_says_why_there_is_nothing_to_correct_with(loaded, prompt_size, words):
    import gradio as gr

    from efp_hf.page.layout import build_page

    config = EFPConfig(**TINY, prompt_size=prompt_size)  # an exported folder in int8 keeps it, without the graphs
    model = SimpleNamespace(config=config, prompt_encoder=None)
    page = build_page(model, loaded[1], "http://127.0.0.1:7860", evidence="")
    texts = [block.value for block in page.blocks.values() if isinstance(block, gr.Markdown)]
    assert [words in text for text in texts].count(True) == 1


def test_a_photo_without_maps_says_so(handlers, unsure_photo):
    settings = (0.5, False, None, None)
    *_, inside = handlers["update_tab"]("Look inside", replace(unsure_photo, maps={}), *settings)
    assert "returns no maps" in inside


def test_messages_are_text_and_name_no_folder_of_the_server(handlers, tmp_path):
    import gradio as gr

    path = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    path.write_bytes(b"no image")
    with pytest.raises(gr.Error) as caught:
        handlers["segment_upload"](str(path), 0.5, False)
    assert "&lt;img src=x" in caught.value.message and "<img" not in caught.value.message
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize("scale", [1e-200, 1e200, float("nan"), -1.0, "forty"])
def test_impossible_scale_is_said(handlers, photo_file, scale):
    import gradio as gr

    with pytest.raises(gr.Error) as caught:
        handlers["measure"](str(photo_file), scale, 0.5, False)
    assert caught.value.message


def test_failure_of_the_program_itself_is_said_without_its_words():
    import gradio as gr

    from efp_hf.page.handlers import with_messages

    with pytest.raises(gr.Error) as caught:
        with_messages(lambda: {}["/home/anna/photo.jpg"])()
    assert caught.value.message == "The server failed at this. Its log says why." and caught.value.print_exception
