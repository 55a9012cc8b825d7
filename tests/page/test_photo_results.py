"""The results of one photo."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import REPOSITORY, square_photo
from PIL import Image

from efp_hf.commands import main
from efp_hf.data.files import read_mask
from efp_hf.inference.drawing import AGREEMENT_COLORS
from efp_hf.page.photo import find_lesion, segment_photo
from efp_hf.page.photo_results import (
    compare_photo,
    draw_view,
    lesion_data,
    map_data,
    measure_photo,
    trust_photo,
    write_contour_file,
    write_mask_file,
    write_overlay_file,
)
from efp_hf.page.pictures import draw_maps


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("setting", [{}, {"threshold": "median"}, {"largest_region": True}])
def test_mask_file_is_byte_for_byte_that_of_the_command_line(tmp_path, loaded, tiny_checkpoint, orientation, setting):
    model, processor = loaded
    source = tmp_path / "in" / "photo.jpg"
    source.parent.mkdir()
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)  # a mask with many regions
    Image.fromarray(noise).resize((800, 600), Image.Resampling.BICUBIC).save(source, exif=exif)

    photo = segment_photo(source, model, processor)
    if "threshold" in setting:  # where the model of the test decides something
        setting = {"threshold": round(float(np.median(find_lesion(photo, processor)[1])), 4)}
    ours = write_mask_file(photo, processor, tmp_path, **setting)

    options = [f"--threshold={setting['threshold']}"] if "threshold" in setting else []
    options += ["--largest-region"] if "largest_region" in setting else []
    arguments = ["predict", str(source), "--output", str(tmp_path / "masks"), "--checkpoint", str(tiny_checkpoint)]
    assert main([*arguments, *options]) == 0  # in this process: a new one takes seconds to import PyTorch
    assert ours.read_bytes() == (tmp_path / "masks" / "photo_segmentation.png").read_bytes()
    mask = read_mask(ours)
    assert mask.shape == ((600, 800) if orientation == 1 else (800, 600))
    assert mask.any() and not mask.all()


def test_view_changes_lesion_pixels_only(tmp_path, loaded):
    _, processor = loaded
    photo = square_photo(tmp_path)
    view = draw_view(photo, processor)
    changed = (np.asarray(view.before) != np.asarray(view.after)).any(-1)
    mask, _ = find_lesion(photo, processor)
    np.testing.assert_array_equal(changed, mask)


def test_coco_file_has_box_and_area_of_the_mask(tmp_path, loaded):
    _, processor = loaded
    photo = square_photo(tmp_path)
    coco = json.loads(write_contour_file(photo, processor, tmp_path).read_text())
    (annotation,) = coco["annotations"]
    assert annotation["bbox"] == [3, 2, 4, 4]  # x, y, width, height
    assert annotation["area"] == 16
    assert coco["images"][0] == {"id": 1, "file_name": "square.png", "height": 8, "width": 8}


def test_overlay_file_has_the_photos_size(tmp_path, loaded, photo_file):
    model, processor = loaded
    photo = segment_photo(photo_file, model, processor)
    with Image.open(write_overlay_file(photo, processor, tmp_path)) as overlay:
        assert (overlay.format, overlay.size) == ("PNG", (120, 90))


def test_data_of_the_api_can_be_json(tmp_path, loaded):
    _, processor = loaded
    data = lesion_data(square_photo(tmp_path), processor)
    assert json.loads(json.dumps(data)) == data
    assert (data["lesion_pixels"], data["lesion_share"], data["top"], data["right"]) == (16, 0.25, 2, 7)


def test_measures_are_those_of_the_mask_at_the_photos_size(tmp_path, loaded):
    _, processor = loaded
    measures = measure_photo(square_photo(tmp_path), processor, pixels_per_mm=2)
    assert (measures["area"], measures["area_share"], measures["area_mm2"]) == (16, 0.25, 4)


def test_trust_of_a_sure_mask_is_its_probability(tmp_path, loaded):
    _, processor = loaded
    trusted = trust_photo(square_photo(tmp_path), processor)
    inside, outside = 1 / (1 + np.exp(-4)), 1 / (1 + np.exp(4))
    assert trusted["expected_jaccard"] == pytest.approx(16 * inside / (16 + 48 * outside), abs=1e-6)
    assert all(isinstance(note, str) for note in trusted["notes"])


def test_comparison_counts_hit_missed_and_false(tmp_path, loaded):
    _, processor = loaded
    photo = square_photo(tmp_path)  # rows 2..5, columns 3..6
    truth = np.zeros((8, 8), dtype=np.uint8)
    truth[2:6, 2:6] = 255  # one column to the left
    Image.fromarray(truth).save(tmp_path / "truth.png")
    comparison = compare_photo(photo, processor, tmp_path / "truth.png")
    assert comparison.pixels == {"hit": 12, "missed": 4, "false": 4}
    assert comparison.scores == pytest.approx(
        {
            "jaccard": 12 / 20,
            "threshold_jaccard": 0,
            "dice": 24 / 32,
            "sensitivity": 12 / 16,
            "specificity": 44 / 48,
        }
    )
    pixels = np.asarray(comparison.picture).astype(int)
    for (row, column), name in {(3, 4): "hit", (3, 2): "missed", (3, 6): "false"}.items():
        mixed = np.array((200, 150, 130)) * 0.35 + np.array(AGREEMENT_COLORS[name]) * 0.65
        assert np.abs(pixels[row, column] - mixed).max() <= 1
    assert tuple(pixels[0, 0]) == (200, 150, 130)


def test_truth_of_another_size_is_refused(tmp_path, loaded):
    _, processor = loaded
    Image.new("L", (8, 9)).save(tmp_path / "truth.png")
    with pytest.raises(ValueError, match=r"square.png: image is 8×8, mask 9×8. A mask must have the size"):
        compare_photo(square_photo(tmp_path), processor, tmp_path / "truth.png")


def test_truth_that_is_a_photo_is_refused(tmp_path, loaded):
    _, processor = loaded
    Image.new("RGB", (8, 8), (10, 20, 30)).save(tmp_path / "truth.png")
    with pytest.raises(ValueError, match=r"^truth.png: a mask must hold 0 \(background\) and 255"):
        compare_photo(square_photo(tmp_path), processor, tmp_path / "truth.png")


def test_maps_are_four_levels_four_enhanced_ones_and_four_attention_maps(loaded, photo_file):
    photo = segment_photo(photo_file, *loaded)
    assert list(photo.maps) == [f"{kind}{i}" for kind in ("F", "F*", "M_s ") for i in range(1, 5)]
    assert [photo.maps[f"M_s {i}"].shape for i in range(1, 5)] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert all(0 <= photo.maps[f"M_s {i}"].min() <= photo.maps[f"M_s {i}"].max() <= 1 for i in range(1, 5))
    pictures = draw_maps(photo)
    assert len(pictures) == 12 and all(picture.size == (320, 240) for picture, _ in pictures)
    assert json.loads(json.dumps(map_data(photo)))["F4"] == map_data(photo)["F4"]


def test_threshold_reaches_everything_that_is_made(tmp_path, loaded, unsure_photo):
    _, processor = loaded
    truth = tmp_path / "truth.png"
    Image.fromarray(np.pad(np.full((4, 4), 255, np.uint8), ((2, 2), (3, 1)))).save(truth)
    made = {
        "area": lambda threshold: measure_photo(unsure_photo, processor, threshold)["area"],
        "notes": lambda threshold: trust_photo(unsure_photo, processor, threshold)["notes"],
        "data": lambda threshold: lesion_data(unsure_photo, processor, threshold)["lesion_pixels"],
        "contour": lambda threshold: lesion_data(unsure_photo, processor, threshold)["contour"]["annotations"],
        "scores": lambda threshold: compare_photo(unsure_photo, processor, truth, threshold).scores["jaccard"],
        "mask": lambda threshold: write_mask_file(unsure_photo, processor, tmp_path, threshold).read_bytes(),
        "overlay": lambda threshold: write_overlay_file(unsure_photo, processor, tmp_path, threshold).read_bytes(),
        "file": lambda threshold: write_contour_file(unsure_photo, processor, tmp_path, threshold).read_bytes(),
    }
    for name, make in made.items():
        assert make(0.5) != make(0.9), name


def test_photo_that_was_deleted_meanwhile_is_asked_for_again(loaded, photo_file, tmp_path):
    model, processor = loaded
    photo = segment_photo(photo_file, model, processor)
    photo_file.unlink()
    assert write_mask_file(photo, processor, tmp_path).is_file()  # needs the logits alone
    for needs_the_photo in (measure_photo, trust_photo):
        with pytest.raises(ValueError, match="Upload it again"):
            needs_the_photo(photo, processor)


@pytest.mark.skipif(sys.platform == "win32", reason="folders of POSIX")
def test_package_and_what_the_page_computes_need_no_gradio_and_all_of_the_page_neither_datasets_nor_evaluate():
    code = (
        "import sys, efp_hf; loaded = sys.modules;"
        "assert not {'albumentations', 'datasets', 'evaluate', 'gradio'} & set(loaded);"
        "import efp_hf.page.markup, efp_hf.page.server; assert 'gradio' not in loaded;"
        "import efp_hf.page.layout; assert not {'datasets', 'evaluate'} & set(loaded)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment, check=True)


def test_damaged_photo_has_a_note_in_its_data_and_on_the_page(tmp_path, loaded, photo_file):
    content = photo_file.read_bytes()
    path = tmp_path / "cut.jpg"
    path.write_bytes(content[: len(content) // 2] + bytes(200) + b"\xff\xd9")
    photo = segment_photo(path, *loaded)
    assert "repaired" in lesion_data(photo, loaded[1])["note"]
    assert "repaired" in draw_view(photo, loaded[1]).summary
    assert lesion_data(segment_photo(photo_file, *loaded), loaded[1])["note"] is None


def test_photo_of_another_class_has_its_name_and_no_notes_on_lesions(tmp_path, loaded):
    _, processor = loaded
    photo = replace(square_photo(tmp_path), name="cell")
    assert draw_view(photo, processor).summary.startswith("The cell covers")
    data = lesion_data(photo, processor)
    assert data["cell_pixels"] == 16 and not [name for name in data if "lesion" in name]
    assert data["contour"]["categories"] == [{"id": 1, "name": "cell"}]
    assert trust_photo(photo, processor)["notes"] == [] != trust_photo(square_photo(tmp_path), processor)["notes"]
    assert draw_view(photo, processor, threshold=0.99).summary.startswith("No cell found")
