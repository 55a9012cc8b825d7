"""The page of a checkpoint of several classes, without a browser."""

import os
import zipfile

import numpy as np
import pytest
from conftest import ORGANS, draw_organs
from PIL import Image

from efp_hf.inference.checkpoint import load_checkpoint, segment
from efp_hf.inference.drawing import class_colors


@pytest.fixture(scope="module")
def organs(organs_checkpoint):
    return load_checkpoint(organs_checkpoint)


@pytest.fixture(scope="module")
def page(organs, tmp_path_factory):
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("uploads"))  # before Gradio's import
    from efp_hf.page.layout import build_page

    return build_page(*organs, "http://127.0.0.1:7860", evidence="")


@pytest.fixture(scope="module")
def handlers(page):
    return {getattr(block.fn, "__name__", ""): block.fn for block in page.fns.values()}


@pytest.fixture
def photo_path(tmp_path):
    draw_organs(0)[0].save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_what_is_for_one_class_is_hidden(page):
    parts = page.blocks.values()
    by_id = {block.elem_id: block.visible for block in parts if getattr(block, "elem_id", None)}
    assert not any(by_id[name] for name in ("threshold", "region", "examples", "get_contour"))
    assert by_id["get_mask"] and by_id["get_overlay"] and "picture" not in by_id
    tabs = {block.label: block.visible for block in parts if type(block).__name__ == "Tab"}
    assert {name for name, is_visible in tabs.items() if is_visible} == {"Segment", "Look inside", "Many images", "API"}
    endpoints = {block.api_name for block in page.fns.values() if block.api_visibility == "public"}
    assert endpoints >= {"segment", "segment_many", "look_inside"}
    assert not endpoints & {"measure", "trust", "compare"}


def test_photo_is_shown_with_a_legend(handlers, organs, photo_path):
    photo, _, _, view = handlers["segment_upload"](str(photo_path), 0.5, False)
    assert photo.classes == ORGANS
    shown = [photo.preview.size[::-1]]  # the page's size
    labels = segment([Image.open(photo_path)], *organs, shown)[0]["segmentation"].numpy()
    for label, name in enumerate(ORGANS, start=1):
        assert f"{name}: {(labels == label).mean():.1%}" in view
    assert "rgb(86, 180, 233)" in view and "Expected Jaccard" not in view and "esion" not in view
    assert handlers["update_tab"]("Segment", photo, 0.5, False, None, None)[0]["__type__"] == "update"  # nothing


def test_files_are_those_of_efp_predict(organs, photo_path, tmp_path):
    from efp_hf.page.photo import segment_photo
    from efp_hf.page.photo_results import write_mask_file, write_overlay_file

    photo = segment_photo(photo_path, *organs)
    mask = Image.open(write_mask_file(photo, organs[1], tmp_path))
    labels = segment([Image.open(photo_path)], *organs)[0]["segmentation"].numpy()
    assert np.array_equal(np.asarray(mask), labels) and len(np.unique(labels)) > 2
    assert mask.getpalette()[:12] == class_colors(3).ravel().tolist()
    overlay = Image.open(write_overlay_file(photo, organs[1], tmp_path))
    assert overlay.width >= 80 and overlay.height > 64


def test_endpoints_give_the_area_of_each_class(handlers, photo_path, tmp_path):
    data, file = handlers["segment"](str(photo_path), 0.5, False)
    counts = np.bincount(np.asarray(Image.open(file)).ravel(), minlength=4)[1:]
    assert [data[f"{name}_pixels"] for name in ORGANS] == counts.tolist() and "contour" not in data
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    rows, archive = handlers["segment_many"]([str(photo_path), str(broken)], 0.5, False)
    assert rows[0]["liver_pixels"] == data["liver_pixels"] and "not an image" in rows[1]["error"]
    with zipfile.ZipFile(archive) as packed:
        assert sorted(packed.namelist()) == ["photo_segmentation.png", "predictions.csv"]


def test_table_of_a_batch_has_a_column_a_class(organs, photo_path, tmp_path):
    from efp_hf.page.batch import segment_batch
    from efp_hf.page.markup import batch_html

    html = batch_html(segment_batch([photo_path], *organs, tmp_path))
    assert all(f">{name}</th>" in html for name in ORGANS) and "lesion" not in html
