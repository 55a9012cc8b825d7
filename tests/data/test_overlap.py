"""Labels that overlap: a mask each, in folders, in COCO, and in the columns of a dataset."""

import json

import datasets
import numpy as np
import pytest
from conftest import CELL_LABELS, draw_cell, write_cells
from PIL import Image

from efp_hf.data.found import found_line
from efp_hf.data.lesions import load_lesions
from efp_hf.data.overlap import label_names
from efp_hf.data.survey import draw_sheet, survey_lesions, survey_lines

NUM_IMAGES = 10
DRAWN = {f"cell_{number:02d}": draw_cell(number) for number in range(NUM_IMAGES)}
ABSENT = "nucleus (not in 4 images without its mask)"


def check_rows(data: datasets.DatasetDict) -> None:
    """Each label's mask, and none where it is not there."""
    assert label_names(data) == CELL_LABELS and sum(map(len, data.values())) == NUM_IMAGES
    for row in (row for rows in data.values() for row in rows):
        _, masks = DRAWN[row["image_id"]]
        assert row["labels"] == list(range(len(masks)))
        for label in CELL_LABELS:
            found = row[label] and np.asarray(row[label].convert("L"))
            assert found is None if label not in masks else ((found == 255) == masks[label]).all()


def dataset(**others) -> datasets.Dataset:
    columns = {"image": [image for image, _ in DRAWN.values()], "image_id": list(DRAWN)}
    for label in CELL_LABELS:
        found = (masks.get(label) for _, masks in DRAWN.values())
        columns[label] = [None if mask is None else Image.fromarray(mask) for mask in found]
    pictures = dict.fromkeys(("image", *CELL_LABELS), datasets.Image())
    features = datasets.Features({**pictures, "image_id": datasets.Value("string")})
    return datasets.Dataset.from_dict(columns | others, features=features)


def ring(mask: np.ndarray) -> list[list[float]]:
    """A polygon of the four corners of what a mask covers."""
    (top, *_, bottom), (left, *_, right) = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return [[float(value) for value in (left, top, right + 1, top, right + 1, bottom + 1, left, bottom + 1)]]


def write_coco(root, num_images: int = NUM_IMAGES):
    (root / "images").mkdir(parents=True)
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": label} for number, label in enumerate(CELL_LABELS, start=3)],
    }
    for number, (name, (image, masks)) in enumerate(list(DRAWN.items())[:num_images]):
        image.save(root / "images" / f"{name}.png")
        content["images"].append({"id": number, "file_name": f"{name}.png", "height": 64, "width": 80})
        for label, mask in masks.items():
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 3 + CELL_LABELS.index(label),
                    "segmentation": ring(mask),
                }
            )
    (root / "result.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def cells(tmp_path):
    return write_cells(tmp_path / "cells", NUM_IMAGES)


def test_folders_of_masks_are_labels_that_overlap(cells):
    data = load_lesions(cells)
    check_rows(data)
    line = "cells: images/ and masks/, a folder a label; masks of 0 and 255; "
    assert found_line(data).startswith(f"{line}labels that overlap: membrane, {ABSENT}; 10 pairs: train 7")
    check_rows(load_lesions(data))
    check_rows(load_lesions(cells, labels_overlap=True))


def test_masks_are_reduced_as_their_image_is(cells):
    row = load_lesions(cells, max_side=40)["train"][0]
    assert row["image"].size == row["membrane"].size == (40, 32)
    again = load_lesions(cells, max_side=40)["train"][0]
    assert (np.asarray(again["membrane"]) == np.asarray(row["membrane"])).all()
    of_dataset = load_lesions(dataset(), max_side=40)["train"]
    assert {row["membrane"].size for row in of_dataset} == {(40, 32)}
    assert any(row["nucleus"] is None for row in of_dataset)


def test_columns_of_pictures_without_a_mask_are_labels(tmp_path):
    data = load_lesions(dataset())
    check_rows(data)
    assert f"labels that overlap: membrane, {ABSENT}" in found_line(data)
    data.save_to_disk(tmp_path / "saved")
    check_rows(load_lesions(tmp_path / "saved"))


def test_a_column_of_labels_beside_a_mask_is_of_something_else():
    named = datasets.List(datasets.ClassLabel(names=["benign", "malignant"]))
    pictures = dict.fromkeys(("image", "mask", "overlay"), datasets.Image())
    features = datasets.Features({**pictures, "labels": named})
    rows = datasets.Dataset.from_dict({name: [] for name in features}, features=features)
    assert label_names(rows) == () and label_names(rows.remove_columns("mask")) == ()


def test_a_category_of_coco_has_a_mask_of_its_own_where_labels_overlap(tmp_path, caplog):
    root = write_coco(tmp_path / "coco")
    data = load_lesions(root, labels_overlap=True)
    assert label_names(data) == CELL_LABELS and f"labels that overlap: membrane, {ABSENT}" in found_line(data)
    both = next(row for row in data["train"] if row["labels"] == [0, 1])
    membrane, nucleus = (np.asarray(both[label]) == 255 for label in CELL_LABELS)
    assert nucleus.any() and (membrane & nucleus == nucleus).all()
    assert "With --labels-overlap each has a mask of its own" not in caplog.text
    assert label_names(load_lesions(root)) == () and "With --labels-overlap each has a mask of its own" in caplog.text


def test_data_whose_labels_exclude_each_other_are_refused_where_they_must_overlap(organs_root, tmp_path):
    message = "organs: labels that overlap must have a mask each, .* got images/ and masks/. See docs/data.md"
    with pytest.raises(ValueError, match=message):
        load_lesions(organs_root, labels_overlap=True)
    with pytest.raises(ValueError, match="must be read without streaming"):
        load_lesions(tmp_path, streaming=True, labels_overlap=True)


def test_an_image_without_any_mask_is_named(cells):
    for label in CELL_LABELS:
        (cells / "masks" / label / "cell_04.png").unlink()
    with pytest.raises(ValueError, match="1 images have a mask in none of membrane, nucleus: cell_04. Add the masks"):
        load_lesions(cells)
    nothing = dict.fromkeys(CELL_LABELS, [None] * NUM_IMAGES)
    with pytest.raises(ValueError, match="cell_00: the row must have a mask in one of membrane, nucleus, got none"):
        load_lesions(dataset(**nothing))


def test_a_mask_of_another_size_or_with_other_values_is_named(cells):
    Image.new("L", (80, 32)).save(cells / "masks" / "nucleus" / "cell_04.png")
    with pytest.raises(ValueError, match="cell_04, nucleus/cell_04.png: image is 64×80, mask 32×80"):
        load_lesions(cells)
    Image.new("L", (80, 64), 77).save(cells / "masks" / "nucleus" / "cell_04.png")
    with pytest.raises(ValueError, match=r"nucleus/cell_04.png: a mask must hold .*, got 77"):
        load_lesions(cells)


@pytest.mark.parametrize(("name", "shown"), [("image", "'image'"), ("background", "'background'")])
def test_a_label_that_cannot_be_called_so_is_refused(cells, name, shown):
    (cells / "masks" / "nucleus").rename(cells / "masks" / name)
    with pytest.raises(ValueError, match=f"labels that overlap must have names of their own .* got {shown}. Rename it"):
        load_lesions(cells)


def test_masks_beside_their_folders_are_of_one_class(cells):
    for path in list((cells / "images").iterdir()):
        Image.fromarray(DRAWN[path.stem][1]["membrane"]).save(cells / "masks" / path.name)
    assert label_names(load_lesions(cells)) == ()


@pytest.mark.parametrize("form", ["folders", "dataset"])
def test_a_survey_has_a_line_a_label(cells, form):
    survey = survey_lesions(cells if form == "folders" else dataset())
    lines = survey_lines(survey)
    assert f"labels that overlap: membrane, {ABSENT}" in lines
    assert any(line.startswith("label nucleus: in 6 of 10 images, there ") for line in lines)
    assert lines[-1] == "A training takes this data as it is."
    assert draw_sheet(survey).size == (8 * 160, 2 * 174 + 32)  # a legend of a line below


def test_a_survey_says_which_label_is_nowhere(cells):
    for path in (cells / "masks" / "nucleus").iterdir():
        Image.new("L", (80, 64)).save(path)
    assert "problem: No mask holds nucleus. Leave out its masks." in survey_lines(survey_lesions(cells))


def test_images_that_are_no_photo_are_refused(tmp_path):
    write_cells(tmp_path / "cells", NUM_IMAGES)
    for path in (tmp_path / "cells" / "images").iterdir():
        np.save(path.with_suffix(".npy"), np.zeros((64, 80, 4), np.uint8))
        path.unlink()
    with pytest.raises(ValueError, match=r"cell_00.npy: .* labels that overlap must be one photo .* other channels"):
        load_lesions(tmp_path / "cells")
    further = dataset().select_columns("image").rename_column("image", "image_2")
    several = datasets.concatenate_datasets([dataset(), further], axis=1)
    with pytest.raises(ValueError, match="labels that overlap must have one file each, got the columns image_2"):
        load_lesions(several)
