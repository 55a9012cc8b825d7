"""The page's handlers: what is drawn, written and refused, without a browser."""

import csv
import importlib.util
import io
import json
import os
import runpy
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from efp_hf import space, trust
from efp_hf.image_io import read_mask
from efp_hf.prediction import load_checkpoint
from efp_hf.space import SegmentedPhoto
from efp_hf.synthetic import draw_lesion

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def photo_file(tmp_path):
    path = tmp_path / "photo.jpg"
    draw_lesion(3, 90, 120)[0].save(path)
    return path


def square_photo(tmp_path, inside: float = 4.0, size=(8, 8)) -> SegmentedPhoto:
    """An 8×8 photo whose logits are `inside` in rows 2..5 and columns 3..6, and -4 elsewhere."""
    path = tmp_path / "square.png"
    Image.new("RGB", size[::-1], (200, 150, 130)).save(path)
    logits = torch.full((1, 1, 8, 8), -4.0)
    logits[..., 2:6, 3:7] = inside
    return SegmentedPhoto(path, size, Image.open(path).convert("RGB"), logits, {})


# -- Segment


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("setting", [{}, {"threshold": "median"}, {"largest_region": True}])
def test_mask_file_is_byte_for_byte_that_of_the_command_line(
    tmp_path, loaded, tiny_checkpoint, monkeypatch, orientation, setting
):
    model, processor = loaded
    source = tmp_path / "in" / "photo.jpg"
    source.parent.mkdir()
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)  # a mask with many regions
    Image.fromarray(noise).resize((800, 600), Image.Resampling.BICUBIC).save(source, exif=exif)

    photo = space.segment_photo(source, model, processor)
    if "threshold" in setting:  # where the model of the test decides something
        setting = {"threshold": round(float(np.median(space.find_lesion(photo, processor)[1])), 4)}
    ours = space.write_mask_file(photo, processor, tmp_path, **setting)

    options = [f"--threshold={setting['threshold']}"] if "threshold" in setting else []
    options += ["--largest-region"] if "largest_region" in setting else []
    arguments = ["predict.py", str(source), "--output", str(tmp_path / "masks"), "--checkpoint", str(tiny_checkpoint)]
    monkeypatch.setattr(sys, "argv", [*arguments, *options])
    with pytest.raises(SystemExit) as ended:  # in this process: a new one takes seconds to import PyTorch
        runpy.run_path(str(REPOSITORY / "scripts" / "predict.py"), run_name="__main__")
    assert ended.value.code == 0
    assert ours.read_bytes() == (tmp_path / "masks" / "photo_segmentation.png").read_bytes()
    mask = read_mask(ours)
    assert mask.shape == ((600, 800) if orientation == 1 else (800, 600))
    assert mask.any() and not mask.all()


def test_threshold_redraws_without_the_model(tmp_path, loaded):
    _, processor = loaded
    photo = square_photo(tmp_path, inside=0.0)  # probability 0.5
    assert space.find_lesion(photo, processor, threshold=0.49)[0].sum() == 16
    assert space.find_lesion(photo, processor, threshold=0.51)[0].sum() == 0
    assert "25.0%" in space.draw_view(photo, processor, threshold=0.49).summary
    assert "No lesion found" in space.draw_view(photo, processor, threshold=0.51).summary


def test_view_changes_lesion_pixels_only(tmp_path, loaded):
    _, processor = loaded
    photo = square_photo(tmp_path)
    view = space.draw_view(photo, processor)
    changed = (np.asarray(view.before) != np.asarray(view.after)).any(-1)
    mask, _ = space.find_lesion(photo, processor)
    np.testing.assert_array_equal(changed, mask)


def test_tint_mixes_and_the_outline_covers():
    mask = np.zeros((9, 9), dtype=bool)
    mask[2:7, 2:7] = True
    pixels = np.asarray(space.draw_lesion(Image.new("RGB", (9, 9), (100, 100, 100)), mask))
    assert tuple(pixels[2, 2]) == (0, 255, 80)  # the outline
    assert tuple(pixels[4, 4]) == (75, 138, 95)  # a quarter of it
    assert tuple(pixels[0, 0]) == (100, 100, 100)


def test_preview_is_small_and_keeps_the_proportions(tmp_path, loaded):
    path = tmp_path / "large.jpg"
    draw_lesion(3, 150, 200)[0].resize((2400, 1800)).save(path)
    photo = space.segment_photo(path, *loaded)
    assert photo.size == (1800, 2400)
    assert photo.preview.size == (1024, 768)


def test_color_map_runs_from_dark_to_bright():
    brightness = np.asarray(space.color_map(np.linspace(0, 1, 50)[None]).convert("L"), dtype=int)[0]
    assert (np.diff(brightness) >= 0).all()
    assert brightness[0] < 40 and brightness[-1] > 200


def test_polygon_of_a_square_lies_on_its_pixels_edges():
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:4, 2:6] = True
    outer, holes = space.lesion_polygons(mask)
    x, y = np.array(outer[0]).reshape(-1, 2).T
    assert (x.min(), x.max(), y.min(), y.max()) == (2, 6, 1, 4)
    assert polygon_area(outer[0]) == 12 - 4 / 8  # each corner is cut by an eighth of a pixel
    assert len(outer) == 1 and not holes


def polygon_area(polygon) -> float:
    x, y = np.array(polygon).reshape(-1, 2).T
    return abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def test_polygon_at_the_border_stays_in_the_image():
    outer, _ = space.lesion_polygons(np.ones((3, 4), dtype=bool))
    x, y = np.array(outer[0]).reshape(-1, 2).T
    assert (x.min(), x.max(), y.min(), y.max()) == (0, 4, 0, 3)


def test_hole_is_named_beside_the_polygon():
    mask = np.ones((7, 7), dtype=bool)
    mask[3, 3] = False
    outer, holes = space.lesion_polygons(mask)
    assert (len(outer), len(holes)) == (1, 1)
    assert polygon_area(holes[0]) == 4 / 8


def test_regions_that_touch_at_a_corner_are_one_polygon():
    mask = np.zeros((4, 4), dtype=bool)
    mask[1, 1] = mask[2, 2] = True
    assert len(space.lesion_polygons(mask)[0]) == 1


def test_coco_file_has_box_and_area_of_the_mask(tmp_path, loaded):
    _, processor = loaded
    photo = square_photo(tmp_path)
    coco = json.loads(space.write_contour_file(photo, processor, tmp_path).read_text())
    (annotation,) = coco["annotations"]
    assert annotation["bbox"] == [3, 2, 4, 4]  # x, y, width, height
    assert annotation["area"] == 16
    assert coco["images"][0] == {"id": 1, "file_name": "square.png", "height": 8, "width": 8}


def test_no_lesion_has_no_annotation():
    assert space.coco_contour(np.zeros((4, 4), dtype=bool), "a.png")["annotations"] == []


def test_overlay_file_has_the_photos_size(tmp_path, loaded, photo_file):
    model, processor = loaded
    photo = space.segment_photo(photo_file, model, processor)
    with Image.open(space.write_overlay_file(photo, processor, tmp_path)) as overlay:
        assert (overlay.format, overlay.size) == ("PNG", (120, 90))


def test_data_of_the_api_can_be_json(tmp_path, loaded):
    _, processor = loaded
    data = space.lesion_data(square_photo(tmp_path), processor)
    assert json.loads(json.dumps(data)) == data
    assert (data["lesion_pixels"], data["lesion_share"], data["top"], data["right"]) == (16, 0.25, 2, 7)


# -- Measure, Trust, Compare, Look inside


def test_measures_are_those_of_the_mask_at_the_photos_size(tmp_path, loaded):
    _, processor = loaded
    measures = space.measure_photo(square_photo(tmp_path), processor, pixels_per_mm=2)
    assert (measures["area"], measures["area_share"], measures["area_mm2"]) == (16, 0.25, 4)


def test_measures_table_has_every_measure_with_what_it_is(tmp_path, loaded):
    _, processor = loaded
    measures = space.measure_photo(square_photo(tmp_path), processor, pixels_per_mm=2)
    html = space.measures_html(measures)
    named = {name.removesuffix("_mm2").removesuffix("_mm") for name in measures}
    assert named == set(space.MEASURES)
    assert all(name in html for name in space.MEASURES)
    assert "4.00 mm²" in html


def test_no_lesion_has_an_empty_measures_table(tmp_path, loaded):
    _, processor = loaded
    html = space.measures_html(space.measure_photo(square_photo(tmp_path, inside=-4.0), processor))
    assert "No lesion found" in html and "None" not in html


def test_trust_of_a_sure_mask_is_its_probability(tmp_path, loaded):
    _, processor = loaded
    trusted = space.trust_photo(square_photo(tmp_path), processor)
    inside, outside = 1 / (1 + np.exp(-4)), 1 / (1 + np.exp(4))
    assert trusted["expected_jaccard"] == pytest.approx(16 * inside / (16 + 48 * outside), abs=1e-6)
    assert all(isinstance(note, str) for note in trusted["notes"])


TRUST_COLUMNS = "data,split,images,weights,threshold,rank_correlation,failure_auc,failures,mean_expected,mean_real"


def test_evidence_is_the_newest_test_row(tmp_path):
    results = tmp_path / "trust.csv"
    results.write_text(
        f"{TRUST_COLUMNS}\nisic,test,500,ours,0.4,0.1,0.6,90,0.9,0.7\nisic,test,519,ours,0.45,0.55,0.8,60,0.86,0.81\n"
        "isic,validation,259,ours,0.5,0.2,0.7,30,0.8,0.8\nisic,test,777,another,0.5,0.2,0.7,30,0.8,0.8\n"
    )
    evidence = space.trust_evidence(results, "ours")
    assert "threshold 0.45" in evidence
    assert "519 test images" in evidence and "0.55" in evidence and "80%" in evidence and "0.810" in evidence
    assert not any(images in evidence for images in ("500", "259", "777"))
    assert "not measured for this checkpoint" in space.trust_evidence(results, "unknown")


def test_missing_evidence_is_said(tmp_path):
    assert "not measured" in space.trust_evidence(tmp_path / "trust.csv", "ours")


def test_comparison_counts_hit_missed_and_false(tmp_path, loaded):
    _, processor = loaded
    photo = square_photo(tmp_path)  # rows 2..5, columns 3..6
    truth = np.zeros((8, 8), dtype=np.uint8)
    truth[2:6, 2:6] = 255  # one column to the left
    Image.fromarray(truth).save(tmp_path / "truth.png")
    comparison = space.compare_photo(photo, processor, tmp_path / "truth.png")
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
        mixed = np.array((200, 150, 130)) * 0.35 + np.array(space.AGREEMENT_COLORS[name]) * 0.65
        assert np.abs(pixels[row, column] - mixed).max() <= 1
    assert tuple(pixels[0, 0]) == (200, 150, 130)


def test_truth_of_another_size_is_refused(tmp_path, loaded):
    _, processor = loaded
    Image.new("L", (8, 9)).save(tmp_path / "truth.png")
    with pytest.raises(ValueError, match=r"square.png: image is 8×8, mask 9×8. A mask must have the size"):
        space.compare_photo(square_photo(tmp_path), processor, tmp_path / "truth.png")


def test_truth_that_is_a_photo_is_refused(tmp_path, loaded):
    _, processor = loaded
    Image.new("RGB", (8, 8), (10, 20, 30)).save(tmp_path / "truth.png")
    with pytest.raises(ValueError, match=r"^truth.png: a mask must hold 0 \(skin\) and 255"):
        space.compare_photo(square_photo(tmp_path), processor, tmp_path / "truth.png")


def test_maps_are_four_levels_four_enhanced_ones_and_four_attention_maps(loaded, photo_file):
    photo = space.segment_photo(photo_file, *loaded)
    assert list(photo.maps) == [f"{kind}{i}" for kind in ("F", "F*", "M_s ") for i in range(1, 5)]
    assert [photo.maps[f"M_s {i}"].shape for i in range(1, 5)] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert all(0 <= photo.maps[f"M_s {i}"].min() <= photo.maps[f"M_s {i}"].max() <= 1 for i in range(1, 5))
    pictures = space.draw_maps(photo)
    assert len(pictures) == 12 and all(picture.size == (320, 240) for picture, _ in pictures)
    assert json.loads(json.dumps(space.map_data(photo)))["F4"] == space.map_data(photo)["F4"]


# -- Many images


def test_batch_reports_a_bad_file_in_its_row_and_goes_on(tmp_path, loaded, photo_file):
    (tmp_path / "bad.jpg").write_text("no image")
    (tmp_path / "last.jpg").write_bytes(photo_file.read_bytes())
    steps = []
    batch = space.segment_many(
        [photo_file, tmp_path / "bad.jpg", tmp_path / "last.jpg"],
        *loaded,
        tmp_path,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert [row["image"] for row in batch.rows] == ["photo.jpg", "bad.jpg", "last.jpg"]
    assert batch.rows[1]["error"].startswith("bad.jpg: not an image that can be read")
    assert not batch.rows[0]["error"] and not batch.rows[2]["error"]
    assert steps == [(1, 2), (2, 2)]
    with zipfile.ZipFile(batch.archive) as packed:
        assert sorted(packed.namelist()) == ["last_segmentation.png", "photo_segmentation.png", "predictions.csv"]
        table = list(csv.DictReader(io.StringIO(packed.read("predictions.csv").decode())))
    assert [row["error"] != "" for row in table] == [False, True, False]
    assert str(tmp_path) not in space.batch_html(batch)


def test_batch_masks_are_those_of_single_photos(tmp_path, loaded, photo_file):
    model, processor = loaded
    batch = space.segment_many([photo_file], model, processor, tmp_path, threshold=0.4)
    single = space.write_mask_file(space.segment_photo(photo_file, model, processor), processor, tmp_path, 0.4)
    with zipfile.ZipFile(batch.archive) as packed:
        assert packed.read("photo_segmentation.png") == single.read_bytes()


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path


def test_zip_leaves_out_what_is_no_photo(tmp_path, loaded, photo_file):
    photo = photo_file.read_bytes()
    names = ("a/one.jpg", "b/one.jpg", "notes.txt", "__MACOSX/._one.jpg", "a/one_segmentation.png")
    packed = make_zip(tmp_path / "photos.zip", dict.fromkeys(names, photo))
    batch = space.segment_many([packed], *loaded, tmp_path)
    assert [row["image"] for row in batch.rows] == ["one.jpg", "one.jpg"]
    assert batch.left_out == 3
    assert batch.rows[1]["error"] == "one.jpg: its mask would overwrite that of one.jpg. Rename one of them."


def test_zip_writes_nothing_outside_of_its_folder(tmp_path):
    packed = make_zip(
        tmp_path / "evil.zip", {"../../escaped.png": b"1", "/tmp/absolute.png": b"2", "..\\win.png": b"3"}
    )
    files, _, _ = space.collect_files([packed], tmp_path / "deep" / "unpacked")
    assert [file.name for file in files] == ["escaped.png", "absolute.png", "win.png"]
    assert all(file.resolve().is_relative_to(tmp_path / "deep" / "unpacked") for file in files)


def test_zip_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "MAX_BATCH_BYTES", 1_000_000)
    packed = make_zip(tmp_path / "bomb.zip", {"zeros.png": bytes(2_000_000)})
    assert packed.stat().st_size < 5000
    with pytest.raises(ValueError, match="must unpack to at most 1 MB, got 2 MB"):
        space.collect_files([packed], tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


def patch_zip(path: Path, old: bytes, new: bytes) -> Path:
    """Every occurrence of `old` in the file replaced by `new`, of the same length."""
    content = path.read_bytes()
    assert old in content and len(old) == len(new)
    path.write_bytes(content.replace(old, new))
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_of_another_method_that_lies_about_its_size_is_not_unpacked(tmp_path, loaded, method):
    """Of these `zipfile` would unpack 300 MB at once, before anything could count them."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", method) as packed:
        packed.writestr("zeros.png", bytes(3_000_000))
    patch_zip(path, (3_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    (row,) = space.segment_many([path], *loaded, tmp_path).rows
    assert "packed in an unknown way" in row["error"]


def test_bad_member_of_a_zip_is_reported_in_its_row_and_stops_nothing(tmp_path, loaded, photo_file):
    photo = photo_file.read_bytes()
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as packed:
        packed.writestr("first.jpg", photo)
        packed.writestr("damaged.jpg", b"MARK" + photo)
        packed.writestr("last.jpg", photo)
    patch_zip(path, b"MARK", b"KRAM")  # its checksum is wrong now
    rows = space.segment_many([path], *loaded, tmp_path).rows
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert rows[1]["error"].startswith("damaged.jpg: damaged, encrypted or packed in an unknown way")


def test_damaged_compression_is_reported_in_its_row(tmp_path, loaded, photo_file):
    path = make_zip(tmp_path / "photos.zip", {"good.jpg": photo_file.read_bytes(), "bad.png": b"x" * 5000})
    with zipfile.ZipFile(path) as packed:
        member = packed.getinfo("bad.png")
    content = bytearray(path.read_bytes())
    start = member.header_offset + 30 + len("bad.png")
    content[start : start + member.compress_size] = b"\xff" * member.compress_size
    path.write_bytes(content)
    rows = space.segment_many([path], *loaded, tmp_path).rows
    assert [bool(row["error"]) for row in rows] == [False, True]


def test_long_names_in_a_zip_are_shortened(tmp_path, loaded, photo_file):
    path = make_zip(tmp_path / "photos.zip", {"ö" * 130 + ".jpg": photo_file.read_bytes()})
    batch = space.segment_many([path], *loaded, tmp_path)
    assert [row["error"] for row in batch.rows] == [""]
    assert batch.rows[0]["image"] == "ö" * 75 + ".jpg"


def test_zip_with_a_large_directory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "photos.zip", {f"{k}.txt": b"" for k in range(100)})
    monkeypatch.setattr(space, "MAX_DIRECTORY_BYTES", 1000)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(ValueError, match="photos.zip: the zip has too many entries"):
        space.open_zip(path)


def test_directory_is_as_large_as_it_is(tmp_path):
    path = make_zip(tmp_path / "photos.zip", {"a.txt": b"1", "bb.txt": b"2"})
    with zipfile.ZipFile(path) as packed:
        start = packed.start_dir
    assert space.directory_bytes(path) == path.stat().st_size - 22 - start


def test_same_file_chosen_twice_is_segmented_once(tmp_path, loaded, photo_file):
    (row,) = space.segment_many([photo_file, photo_file], *loaded, tmp_path).rows
    assert row["error"] == ""


def test_refused_batch_leaves_no_file(tmp_path, loaded, photo_file, monkeypatch):
    packed = make_zip(tmp_path / "photos.zip", {"one.jpg": photo_file.read_bytes()})
    monkeypatch.setattr(space, "MAX_FILES", 1)
    folder = tmp_path / "answer"
    folder.mkdir()
    with pytest.raises(ValueError, match="at most 1 images, got 2"):
        space.segment_many([packed, photo_file], *loaded, folder)
    assert not list(folder.iterdir())


def test_bytes_are_counted_as_they_come(tmp_path):
    path = make_zip(tmp_path / "photos.zip", {"zeros.png": bytes(3_000_000)})
    with zipfile.ZipFile(path) as packed:
        with pytest.raises(ValueError, match="must unpack to at most"):
            space.unpack(packed, packed.infolist()[0], tmp_path / "zeros.png", max_bytes=1_500_000)
    assert (tmp_path / "zeros.png").stat().st_size <= 1_500_000


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "MAX_FILES", 2)
    packed = make_zip(tmp_path / "photos.zip", {f"{k}.png": b"" for k in range(3)})
    for uploads in ([packed], [tmp_path / f"{k}.png" for k in range(3)]):
        with pytest.raises(ValueError, match="A batch must have at most 2 images, got 3"):
            space.collect_files(uploads, tmp_path / "unpacked")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no zip", "broken.zip: the zip is damaged"), (None, "There is no image in the zip")],
)
def test_unusable_zips_are_refused(tmp_path, content, message):
    path = make_zip(tmp_path / "broken.zip", {"notes.txt": b"text"})
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        space.collect_files([path], tmp_path / "unpacked")


def test_name_that_a_spreadsheet_would_run_is_quoted(tmp_path):
    space.write_table([space.error_row(Path("=cmd().png"), "bad")], tmp_path / "table.csv")
    assert "'=cmd().png" in (tmp_path / "table.csv").read_text()


# -- Settings reach what is made with them


@pytest.fixture
def unsure_photo(tmp_path) -> SegmentedPhoto:
    """A square of probability 0.7: lesion at the processor's threshold, skin at 0.9."""
    return square_photo(tmp_path, inside=float(np.log(0.7 / 0.3)))


def test_threshold_reaches_everything_that_is_made(tmp_path, loaded, unsure_photo):
    _, processor = loaded
    truth = tmp_path / "truth.png"
    Image.fromarray(np.pad(np.full((4, 4), 255, np.uint8), ((2, 2), (3, 1)))).save(truth)
    made = {
        "area": lambda threshold: space.measure_photo(unsure_photo, processor, threshold)["area"],
        "notes": lambda threshold: space.trust_photo(unsure_photo, processor, threshold)["notes"],
        "data": lambda threshold: space.lesion_data(unsure_photo, processor, threshold)["lesion_pixels"],
        "contour": lambda threshold: space.lesion_data(unsure_photo, processor, threshold)["contour"]["annotations"],
        "scores": lambda threshold: space.compare_photo(unsure_photo, processor, truth, threshold).scores["jaccard"],
        "mask": lambda threshold: space.write_mask_file(unsure_photo, processor, tmp_path, threshold).read_bytes(),
        "overlay": lambda threshold: space.write_overlay_file(
            unsure_photo, processor, tmp_path, threshold
        ).read_bytes(),
        "file": lambda threshold: space.write_contour_file(unsure_photo, processor, tmp_path, threshold).read_bytes(),
    }
    for name, make in made.items():
        assert make(0.5) != make(0.9), name


# -- The page's own handlers


@pytest.fixture(scope="module")
def handlers(loaded, tmp_path_factory):
    """The functions that the page's components call, by name."""
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("uploads"))
    spec = importlib.util.spec_from_file_location("app", REPOSITORY / "app.py")
    app = sys.modules["app"] = importlib.util.module_from_spec(spec)  # Gradio looks its components' modules up
    spec.loader.exec_module(app)
    page = app.build_page(*loaded, "http://127.0.0.1:7860", weights="none")
    return {getattr(block.fn, "__name__", ""): block.fn for block in page.fns.values()}


def test_each_photo_is_segmented_anew(handlers, tmp_path):
    pages = []
    for number in (3, 4):
        path = tmp_path / f"{number}.jpg"
        draw_lesion(number, 40, 50)[0].save(path)
        photo, view, _ = handlers["segment_upload"](str(path), 0.5, False)
        assert photo.path == path
        pages.append(view)
    assert pages[0] != pages[1]


def test_comparison_on_the_page_follows_the_threshold(handlers, tmp_path, unsure_photo):
    truth = tmp_path / "truth.png"
    Image.fromarray(np.pad(np.full((4, 4), 255, np.uint8), ((2, 2), (3, 1)))).save(truth)
    low, high = (handlers["compare_upload"](unsure_photo, str(truth), threshold, False) for threshold in (0.5, 0.9))
    assert "1.000" in low and low != high


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


def test_trust_of_a_strip_is_quick_and_small():
    """Enlarged to 256 pixels of height this strip would have two billion pixels."""
    image, mask = np.zeros((1, 30_000, 3), np.uint8), np.zeros((1, 30_000), bool)
    assert trust.reduce(image, mask)[1].shape == (1, 1024)


# -- Limits and privacy


@pytest.mark.parametrize("damage", ["text", "empty", "truncated", "animated"])
def test_bad_photo_is_named_without_the_servers_folder(tmp_path, loaded, photo_file, damage):
    path = tmp_path / "bad.png"
    if damage == "animated":
        frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    else:
        content = {"text": b"no image", "empty": b"", "truncated": photo_file.read_bytes()[:1500]}[damage]
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^bad.png: ") as caught:
        space.segment_photo(path, *loaded)
    assert str(tmp_path) not in str(caught.value)


def test_no_photo_is_said(loaded):
    with pytest.raises(ValueError, match="There is no photo yet"):
        space.segment_photo(None, *loaded)


def test_photo_of_too_many_pixels_is_refused(loaded, photo_file, monkeypatch):
    monkeypatch.setattr(space, "MAX_PIXELS", 90 * 120 - 1)
    with pytest.raises(ValueError, match=r"^photo.jpg: the image has 90×120 pixels, more than 10799"):
        space.segment_photo(photo_file, *loaded)


def test_decompression_bomb_is_refused(tmp_path, loaded):
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"^bomb.png: the image has"):
        space.segment_photo(path, *loaded)


def test_large_file_is_refused(loaded, photo_file, monkeypatch):
    monkeypatch.setattr(space, "MAX_FILE_BYTES", 1000)
    with pytest.raises(ValueError, match=r"^photo.jpg: the file has 0 MB, more than"):
        space.segment_photo(photo_file, *loaded)


def test_photo_that_was_deleted_meanwhile_is_asked_for_again(loaded, photo_file, tmp_path):
    model, processor = loaded
    photo = space.segment_photo(photo_file, model, processor)
    photo_file.unlink()
    assert space.write_mask_file(photo, processor, tmp_path).is_file()  # needs the logits alone
    for needs_the_photo in (space.measure_photo, space.trust_photo):
        with pytest.raises(ValueError, match="Upload it again"):
            needs_the_photo(photo, processor)


def test_names_are_text_and_not_html(tmp_path, loaded, photo_file):
    model, processor = loaded
    path = photo_file.rename(tmp_path / "<img src=x onerror=alert(1)>.jpg")
    photo = space.segment_photo(path, model, processor)
    view = space.draw_view(photo, processor)
    batch = space.segment_many([path], model, processor, tmp_path)
    for html in (space.view_html(view), space.probability_html(view, 0.5), space.batch_html(batch)):
        assert "<img src=x" not in html


def test_every_picture_has_an_alternative_text(tmp_path, loaded, photo_file):
    model, processor = loaded
    photo = space.segment_photo(photo_file, model, processor)
    view = space.draw_view(photo, processor)
    for html in (
        space.view_html(view),
        space.probability_html(view, 0.5),
        space.grid_html(space.draw_maps(photo), "Network map"),
    ):
        assert html.count("<img ") == html.count('alt="') > 0
        assert 'alt=""' not in html


def test_only_old_files_are_deleted(tmp_path):
    (tmp_path / "gone").mkdir()
    for name in ("gone/photo.jpg", "stays.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert space.delete_old_files(tmp_path, max_age=60) == 0
    assert (tmp_path / "gone" / "photo.jpg").exists()
    time.sleep(0.05)
    (tmp_path / "stays.jpg").chmod(0o600)  # its change time is now
    assert space.delete_old_files(tmp_path, max_age=0.04) == 1
    assert (tmp_path / "stays.jpg").exists() and not (tmp_path / "gone" / "photo.jpg").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="folders of POSIX")
def test_handlers_do_not_import_gradio():
    code = "import sys, efp_hf.space; sys.exit('gradio' in sys.modules)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment).returncode == 0
