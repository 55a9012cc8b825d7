"""The page of a checkpoint with structures, without a browser."""

import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from efp_hf.data.synthetic import draw_lesion
from efp_hf.inference.checkpoint import load_checkpoint, segment
from efp_hf.inference.drawing import class_colors
from efp_hf.lesion.structures import LABELS, MASK_NAME, STRUCTURES, structure_variety, title_of
from efp_hf.page.batch import segment_batch
from efp_hf.page.markup import measures_html
from efp_hf.page.photo import SegmentedPhoto, lesion_of, segment_photo, with_shown
from efp_hf.page.photo_results import draw_layers, draw_view, measure_photo


@pytest.fixture(scope="module")
def structures(tiny_structures):
    return load_checkpoint(tiny_structures, allow_overlap=True)


@pytest.fixture(scope="module")
def page(structures, tmp_path_factory):
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("uploads"))  # before Gradio's import
    from efp_hf.page.layout import build_page

    return build_page(*structures, "http://127.0.0.1:7860", evidence="")


@pytest.fixture(scope="module")
def handlers(page):
    return {getattr(block.fn, "__name__", ""): block.fn for block in page.fns.values()}


@pytest.fixture
def photo(structures, photo_file) -> SegmentedPhoto:
    return segment_photo(photo_file, *structures)


def test_tabs_are_those_of_a_lesion_with_a_layer_a_label(page):
    parts = {block.elem_id: block for block in page.blocks.values() if getattr(block, "elem_id", None)}
    assert [value for _, value in parts["layers"].choices] == parts["layers"].value == list(LABELS)
    assert parts["layers"].visible and parts["threshold"].visible and not parts["region"].visible
    assert parts["get_layers"].visible and parts["get_contour"].visible and "picture" not in parts
    texts = [block.value for block in page.blocks.values() if type(block).__name__ == "Markdown"]
    assert any("no box: a click does not say which structure it means" in text for text in texts)
    assert all(block.visible for block in page.blocks.values() if type(block).__name__ == "Tab")
    endpoints = {block.api_name for block in page.fns.values() if block.api_visibility == "public"}
    assert endpoints == {"segment", "measure", "trust", "compare", "structures", "look_inside", "segment_many"}


def test_numbers_of_each_label_are_those_of_its_mask(handlers, structures, photo_file):
    photo, _, _, view = handlers["segment_upload"](str(photo_file), 0.5, False)
    result = segment([Image.open(photo_file)], *structures, [photo.preview.size[::-1]])[0]
    for name, mask, probabilities, expected in zip(LABELS, *(result[key] for key in result), strict=True):
        numbers = (f"{probabilities.max():.2f}", f"{expected:.2f}", f"{mask.float().mean():.1%}")
        assert "".join(f'<td class="number">{number}</td>\n' for number in numbers) in view, name
        assert title_of(name) in view
    assert "rgb(86, 180, 233)" in view and "Expected Jaccard" in view  # of the lesion, as without structures


def test_a_layer_that_is_off_is_not_drawn(handlers, photo):
    before = photo.preview.resize((120, 90))
    layers = photo.layers.post_process((90, 120))
    colors = dict(zip(LABELS, class_colors(len(LABELS))[1:], strict=True))

    def drawn(photo: SegmentedPhoto) -> list[str]:
        after = np.asarray(draw_layers(before, layers, photo.layers))
        changed = (after != np.asarray(before)).any(-1)
        return [name for name in LABELS if (after[changed] == colors[name]).all(-1).any()]

    everything = drawn(photo)
    assert {"lesion", "streaks"} <= set(everything)
    assert drawn(with_shown(photo, ["streaks"])) == ["streaks"]
    assert drawn(with_shown(photo, [])) == []
    kept, view = handlers["show_layers"](photo, ["lesion"], 0.5, False)
    assert drawn(kept) == ["lesion"] and "streaks" in view


def test_lesion_is_that_of_the_checkpoint_without_structures(loaded, structures, photo, photo_file):
    model, processor = loaded
    alone = draw_view(segment_photo(photo_file, model, processor), processor, 0.4)
    beside = draw_view(photo, lesion_of(structures[1]), 0.4)
    assert (beside.summary, beside.expected_jaccard) == (alone.summary, alone.expected_jaccard)


def test_files_are_those_of_efp_predict(handlers, structures, photo_file, tmp_path):
    result = segment([Image.open(photo_file)], *structures)[0]
    data, archive = handlers["structures"](str(photo_file), 0.5)
    names = ["photo_segmentation.png", *(MASK_NAME.format("photo", name) for name in STRUCTURES)]
    with zipfile.ZipFile(archive) as packed:
        assert packed.namelist() == names
        masks = [np.asarray(Image.open(packed.open(name))) for name in names]
    for label, mask, expected in zip(LABELS, masks, result["segmentation"].numpy(), strict=True):
        assert np.array_equal(mask, expected * 255) and data[f"{label}_pixels"] == expected.sum()
    assert data["streaks_probability"] == round(float(result["probabilities"][-1].max()), 4)
    higher, _ = handlers["structures"](str(photo_file), 0.9)
    assert higher["lesion_pixels"] < data["lesion_pixels"] and higher["streaks_pixels"] == data["streaks_pixels"]


def test_table_of_a_batch_has_the_columns_of_each_label(structures, tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(2)]
    for number, path in enumerate(paths):
        draw_lesion(number, 60, 80)[0].save(path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    batch = segment_batch([*paths, tmp_path / "broken.png"], *structures, tmp_path, 0.9)
    with zipfile.ZipFile(batch.archive) as packed:
        assert len(packed.namelist()) == 2 * len(LABELS) + 1 and "1_attribute_streaks.png" in packed.namelist()
        header = packed.read("predictions.csv").decode().splitlines()[0]
    assert all(f"{name}_probability" in header for name in LABELS)
    assert (
        batch.rows[0]["lesion_pixels"]
        == segment([Image.open(paths[0])], *structures, threshold=0.9)[0]["segmentation"][0].sum()
    )
    assert "not an image" in batch.rows[2]["error"] and len(batch.pictures) == 2


def test_measures_are_the_lesions_and_the_number_of_structures(loaded, structures, photo, photo_file):
    model, processor = loaded
    alone = measure_photo(segment_photo(photo_file, model, processor), processor)
    beside = measure_photo(photo, lesion_of(structures[1]))
    masks = photo.layers.post_process(photo.size)["segmentation"].numpy()
    assert beside == alone | {"structure_variety": structure_variety(dict(zip(LABELS, masks, strict=True)))}
    assert f">{beside['structure_variety']} of 5<" in measures_html(beside)


def test_maps_of_the_structures_decoder_are_named(photo):
    assert [name for name in photo.maps if name.startswith("M_s")] == [
        *(f"M_s {level}" for level in range(1, 5)),
        *(f"M_s {level}, structures" for level in range(1, 5)),
    ]
