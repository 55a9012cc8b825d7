"""Several classes that exclude each other: their numbers and names, in each form in which people keep them."""

import json

import datasets
import numpy as np
import pytest
from conftest import ORGANS, draw_organs
from PIL import Image

from efp_hf.data.classes import class_names, read_classes
from efp_hf.data.found import found_line
from efp_hf.data.labels import CLASS_NUMBERS, IGNORED, PALETTE, labels_of
from efp_hf.data.lesions import load_lesions
from efp_hf.data.survey import draw_sheet, survey_lesions, survey_lines

DRAWN = {f"organ_{number}": draw_organs(number, 32, 40) for number in range(10)}
CLASSES = "\n".join(ORGANS)


def numbers(labels: np.ndarray) -> Image.Image:
    return Image.fromarray(labels)


def palette(labels: np.ndarray) -> Image.Image:
    """As tools write it that take no black for the background."""
    picture = Image.fromarray(labels, "P")
    picture.putpalette([255, 255, 255, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    return picture


def equal_channels(labels: np.ndarray) -> Image.Image:
    return Image.fromarray(labels).convert("RGB")


def write(root, draw=numbers, image="images/{}.png", mask="masks/{}.png"):
    for name, (photo, labels) in DRAWN.items():
        for path, picture in ((root / image.format(name), photo), (root / mask.format(name), draw(labels))):
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    (root / "classes.txt").write_text(CLASSES)
    return root


def rows_of(draw=numbers, named: bool = True) -> datasets.Dataset:
    columns = {
        "image": [photo for photo, _ in DRAWN.values()],
        "mask": [draw(labels) for _, labels in DRAWN.values()],
        "image_id": list(DRAWN),
    }
    features = {"image": datasets.Image(), "mask": datasets.Image(), "image_id": datasets.Value("string")}
    if named:
        columns["classes"] = [[] for _ in DRAWN]
        features["classes"] = datasets.List(datasets.ClassLabel(names=["background", *ORGANS]))
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def write_beside(root):
    return write(root, image="{}.png", mask="{}_mask.png")


def write_jsonl(root):
    write(root, palette)
    lines = [{"file_name": f"images/{name}.png", "mask_file_name": f"masks/{name}.png"} for name in DRAWN]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for folder in ("images", "masks"):
        (root / folder).rename(root / f"of_{folder}")
    (root / "metadata.jsonl").write_text((root / "metadata.jsonl").read_text().replace('"images', '"of_images'))
    (root / "metadata.jsonl").write_text((root / "metadata.jsonl").read_text().replace('"masks', '"of_masks'))
    return root


def write_paths(root):
    write(root, image="a/{}.png", mask="b/{}.png")
    rows = [f"a/{name}.png,b/{name}.png" for name in DRAWN]
    (root / "pairs.csv").write_text("\n".join(["image,mask", *rows]))
    return root


def write_saved(root):
    rows_of(palette).save_to_disk(root)
    return root


def write_saved_without_names(root):
    rows_of(named=False).save_to_disk(root)
    (root / "classes.txt").write_text(CLASSES)
    return root


def write_coco(root):
    """A rectangle is drawn exactly by a polygon: the organs are boxes here, of categories 7, 3 and 9."""
    (root / "images").mkdir(parents=True)
    ids = dict(zip(ORGANS, (3, 7, 9), strict=True))
    images, annotations = [], []
    for number, (name, (photo, labels)) in enumerate(DRAWN.items()):
        photo.save(root / "images" / f"{name}.png")
        images.append({"id": number, "file_name": f"{name}.png", "height": 32, "width": 40})
        for label in set(np.unique(labels)) - {0}:
            left, top = 4 * int(label), 3 * int(label)
            polygon = [left, top, left + 3, top, left + 3, top + 2, left, top + 2]
            annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": ids[ORGANS[label - 1]]}
            annotations.append({**annotation, "segmentation": [polygon], "area": 6, "bbox": [left, top, 3, 2]})
            annotations[-1]["iscrowd"] = 0
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    categories.append({"id": 20, "name": "never drawn"})
    content = {"images": images, "annotations": annotations, "categories": categories[::-1]}
    (root / "result.json").write_text(json.dumps(content))
    return root


WRITERS = (write, write_beside, write_jsonl, write_paths, write_saved, write_saved_without_names)


def check_rows(data, drawn) -> None:
    assert class_names(data) == ORGANS
    assert sorted(image_id for split in data for image_id in data[split]["image_id"]) == sorted(drawn)
    for split in data.values():
        for row in split:
            labels = drawn[row["image_id"]]
            assert row["mask"].mode == "L" and np.array_equal(np.asarray(row["mask"]), labels)
            assert row["classes"] == sorted(set(labels.ravel().tolist()) - {0, IGNORED})


@pytest.mark.parametrize("write_form", WRITERS, ids=lambda write_form: write_form.__name__)
def test_each_form_gives_the_numbers_and_the_names(write_form, tmp_path):
    data = load_lesions(write_form(tmp_path / "organs"))
    check_rows(data, {name: labels for name, (_, labels) in DRAWN.items()})
    assert " for liver, spleen, kidney; 10 pairs: train 7" in found_line(data)


@pytest.mark.parametrize("draw", [numbers, palette, equal_channels])
def test_masks_are_read_as_they_are_written(draw, tmp_path):
    check_rows(load_lesions(write(tmp_path, draw)), {name: labels for name, (_, labels) in DRAWN.items()})


def test_categories_of_coco_are_the_classes_in_the_order_of_their_numbers(tmp_path):
    expected = {}
    for name, (_, labels) in DRAWN.items():
        expected[name] = np.zeros((32, 40), np.uint8)
        for label in set(np.unique(labels)) - {0}:
            expected[name][3 * label : 3 * label + 2, 4 * label : 4 * label + 3] = label
    check_rows(load_lesions(write_coco(tmp_path)), expected)


def test_where_areas_of_coco_overlap_the_smaller_one_counts_and_it_is_said(tmp_path, caplog):
    content = json.loads((write_coco(tmp_path) / "result.json").read_text())
    liver = next(annotation for annotation in content["annotations"] if annotation["image_id"] == 0)
    liver["segmentation"] = [[0, 0, 40, 0, 40, 32, 0, 32]]
    (tmp_path / "result.json").write_text(json.dumps(content))
    data = load_lesions(tmp_path)
    (row,) = [row for split in data.values() for row in split if row["image_id"] == "organ_0"]
    assert np.unique(row["mask"]).tolist() == [1, 2, 3]
    assert "areas of two classes overlap in 1 images, and the smaller one counts there: organ_0.png" in caplog.text


def test_saved_data_is_read_as_it_was(tmp_path):
    data = load_lesions(write(tmp_path / "organs"))
    data.save_to_disk(tmp_path / "saved")
    again = load_lesions(tmp_path / "saved")
    check_rows(again, {name: labels for name, (_, labels) in DRAWN.items()})
    assert {split: list(rows["image_id"]) for split, rows in again.items()} == {
        split: list(rows["image_id"]) for split, rows in data.items()
    }


def test_stream_has_the_numbers_and_the_names(tmp_path):
    for split, part in (("train", range(6)), ("validation", range(6, 10))):
        rows_of(palette).select(part).to_parquet(tmp_path / f"{split}-00000.parquet")
    data = load_lesions(tmp_path, streaming=True)
    assert class_names(data) == ORGANS
    rows = list(data["validation"])
    assert [row["classes"] for row in rows] == [[1, 2, 3], [1, 2], [1, 2, 3], [1, 2]]
    assert np.array_equal(np.asarray(rows[0]["mask"]), DRAWN["organ_6"][1])


def test_reduced_masks_hold_whole_numbers(tmp_path):
    data = load_lesions(write(tmp_path), max_side=16)
    for row in data["train"]:
        assert row["mask"].size == (16, 13) and set(np.unique(row["mask"])) <= {0, 1, 2, 3}


def test_one_named_class_is_a_mask_of_0_and_255(tmp_path):
    write(tmp_path, lambda labels: Image.fromarray((labels == 1).astype(np.uint8)))
    (tmp_path / "classes.txt").write_text("polyp\n")
    data = load_lesions(tmp_path)
    assert class_names(data) == ("polyp",)
    assert set(np.unique(data["train"][0]["mask"])) == {0, 255} and data["train"][0]["classes"] == [1]


def test_numbers_without_names_are_refused_and_the_way_is_named(tmp_path):
    (write(tmp_path) / "classes.txt").unlink()
    with pytest.raises(
        ValueError, match=r"must hold 0 \(background\) and 255 .*or name several classes in classes.txt"
    ):
        load_lesions(tmp_path)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("", "classes.txt must name a class a line, got none"),
        ("background\n", "classes.txt must name a class a line, got none"),
        ("liver\nliver", "classes must have names of their own, got 'liver'"),
        ("liver\nbackground", "classes must have names of their own, got 'background'"),
        ("liver\n\x1b[31m", "classes must have names of their own"),
        ("\n".join(map(str, range(254))), "there must be at most 253 classes, got 254"),
        ("liver\nspleen", r"1 to 2 \(the classes\) and 255 \(ignored\), got 3. Name all classes in classes.txt"),
    ],
)
def test_wrong_names_are_refused(names, words, tmp_path):
    (write(tmp_path) / "classes.txt").write_text(names)
    with pytest.raises(ValueError, match=words):
        load_lesions(tmp_path)


@pytest.mark.parametrize("first", ["", "background\n", "Background\n", "__ignore__\n_background_\n", "\ufeff\n"])
def test_names_with_and_without_a_background(first, tmp_path):
    (tmp_path / "classes.txt").write_text(f"{first}liver\n\n spleen \n")
    assert read_classes(tmp_path) == ("liver", "spleen")


def test_labels_that_nobody_drew_and_colours():
    labels = np.array([[0, 3], [IGNORED, 1]], np.uint8)
    assert np.array_equal(labels_of(Image.fromarray(labels), "a", 3)[0], labels)
    assert labels_of(numbers(labels), "a", 3)[1] == CLASS_NUMBERS and labels_of(palette(labels), "a", 3)[1] == PALETTE
    colours = Image.fromarray(np.dstack([labels, labels, 0 * labels]))
    with pytest.raises(ValueError, match="a: a mask of several classes must hold their numbers, got colours"):
        labels_of(colours, "a", 3)
    with pytest.raises(ValueError, match="a: a mask of several classes must hold their numbers, got black and white"):
        labels_of(Image.fromarray(labels > 0), "a", 3)


def test_name_of_the_one_category_of_a_coco_file_is_kept(tmp_path):
    path = write_coco(tmp_path) / "result.json"
    content = json.loads(path.read_text())
    content["annotations"] = [found for found in content["annotations"] if found["category_id"] == 3]
    for name, classes in (("cell", ("cell",)), ("lesion", ())):
        content["categories"] = [{"id": 3, "name": name}]
        path.write_text(json.dumps(content))
        data = load_lesions(tmp_path)
        assert class_names(data) == classes and set(np.unique(data["train"][0]["mask"])) == {0, 255}


def reordered(labels: np.ndarray) -> Image.Image:
    """As a program does that makes PNG files small: the palette's entries in another order, the picture is the same."""
    picture = palette(np.choose(labels, (0, 2, 1, 3)).astype(np.uint8))
    colors = np.array(picture.getpalette()[:12]).reshape(4, 3)
    picture.putpalette(colors[[0, 2, 1, 3]].ravel().tolist())
    return picture


@pytest.mark.parametrize("as_rows", [False, True])
def test_palettes_that_number_the_classes_in_other_orders_are_refused(tmp_path, as_rows):
    drawn = iter(range(len(DRAWN)))

    def draw(labels):
        return reordered(labels) if next(drawn) == 4 else palette(labels)

    source = rows_of(draw) if as_rows else write(tmp_path, draw)
    assert np.array_equal(*(np.asarray(one(DRAWN["organ_4"][1]).convert("RGB")) for one in (palette, reordered)))
    words = "The index of liver must have one colour in all palettes, got #.* Save the masks as grey PNG"
    with pytest.raises(ValueError, match=words):
        load_lesions(source)
    assert any("The index of spleen must have one colour" in problem for problem in survey_lesions(source).problems)


def test_black_and_white_masks_of_several_classes_are_refused(tmp_path):
    write(tmp_path, lambda labels: numbers(np.where(labels == 1, IGNORED, 0).astype(np.uint8)))
    with pytest.raises(
        ValueError, match=r"No mask holds one of the 3 classes, but 0 \(background\) or 255 \(ignored\)"
    ):
        load_lesions(tmp_path)
    assert any("No mask holds one of the 3 classes" in problem for problem in survey_lesions(tmp_path).problems)


def test_survey_says_where_each_class_is(tmp_path):
    lines = survey_lines(survey_lesions(write(tmp_path / "organs")))
    assert lines[0] == "organs: images/ and masks/" and lines[-1] == "A training takes this data as it is."
    assert [line.partition(", there")[0] for line in lines if line.startswith("class ")] == [
        "class 1 liver: in 10 of 10 images",
        "class 2 spleen: in 10 of 10 images",
        "class 3 kidney: in 5 of 10 images",
    ]
    share = np.median([100 * np.mean(labels == 3) for _, labels in DRAWN.values() if (labels == 3).any()])
    assert f"class 3 kidney: in 5 of 10 images, there {share:.1f} % of the pixels (median)" in "\n".join(lines)


def test_class_in_no_mask_is_a_problem(tmp_path):
    (write(tmp_path) / "classes.txt").write_text(f"{CLASSES}\ngall bladder")
    assert any("No mask holds gall bladder." in problem for problem in survey_lesions(tmp_path).problems)


def test_class_that_a_split_lacks_is_noted(tmp_path):
    empty = np.zeros((32, 40), np.uint8)
    write(tmp_path, lambda labels: numbers(np.where(labels == 3, empty, labels)))
    (tmp_path / "masks" / "organ_0.png").unlink()
    Image.fromarray(DRAWN["organ_0"][1]).save(tmp_path / "masks" / "organ_0.png")
    notes = survey_lesions(tmp_path).notes
    assert sum("holds kidney: it has no score there." in note for note in notes) == 2  # of three splits


def test_sheet_has_a_colour_a_class(tmp_path):
    from efp_hf.inference.drawing import class_colors

    sheet = np.asarray(draw_sheet(survey_lesions(write(tmp_path)))).reshape(-1, 3)
    for color in class_colors(3)[1:]:
        assert (sheet == color).all(-1).any()
