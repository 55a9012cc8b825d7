"""Each form in which people keep images and masks is read alike; what is ambiguous or does not match is named."""

import csv
import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from conftest import tiny_model
from PIL import Image
from pycocotools import mask as run_lengths

from efp_hf import EFPImageProcessor
from efp_hf.data.folders import FOLDERS
from efp_hf.data.forms import FORMS, find_form
from efp_hf.data.found import found_line
from efp_hf.data.lesions import load_lesions
from efp_hf.data.survey import survey_lesions, survey_lines
from efp_hf.metrics.evaluation import known_mask, truth_mask
from efp_hf.training.prompts import PromptedLesionTrainer, with_prompt_encoder
from efp_hf.training.transform import LesionTransform

IDS = [f"mole_{number}" for number in range(10)]
SIZE = (32, 40)


@pytest.fixture(scope="session")
def pairs() -> dict[str, tuple[Image.Image, np.ndarray]]:
    """Ten photos, of noise so that none are alike, with a rectangle for a mask, which a polygon gives exactly."""
    drawn, generator = {}, np.random.default_rng(0)
    for number, name in enumerate(IDS):
        mask = np.zeros(SIZE, bool)
        mask[4 : 12 + number, 6 : 30 - number] = True
        drawn[name] = Image.fromarray(generator.integers(0, 256, (*SIZE, 3), np.uint8)), mask
    return drawn


def grey(mask: np.ndarray, lesion: int = 255) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * lesion)


def palette(mask: np.ndarray) -> Image.Image:
    """As VOC's tools write it: index 1 is dark red."""
    picture = Image.fromarray(mask.astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 128, 0, 0])
    return picture


def write(root: Path, pairs, image="images/{}.png", mask="masks/{}.png", draw=grey) -> Path:
    for name, (photo, lesion) in pairs.items():
        for path, picture in ((root / image.format(name), photo), (root / mask.format(name), draw(lesion))):
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    return root


def write_isic(root: Path, pairs) -> Path:
    images, masks = FOLDERS["train"]
    return write(root, pairs, f"{images}/{{}}.png", f"{masks}/{{}}_segmentation.png")


def write_jsonl(root: Path, pairs) -> Path:
    write(root, pairs, "photos/{}.png", "drawn/{}.png")
    lines = [{"file_name": f"photos/{name}.png", "mask_file_name": f"drawn/{name}.png"} for name in pairs]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root


def write_table(path: Path, rows: list[dict], delimiter=",") -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path.parent


def write_metadata_csv(root: Path, pairs) -> Path:
    write(root, pairs, "photos/{}.png", "drawn/{}.png")
    rows = [{"file_name": f"photos/{name}.png", "mask_file_name": f"drawn/{name}.png"} for name in pairs]
    return write_table(root / "metadata.csv", rows)


def write_paths(root: Path, pairs, **columns) -> Path:
    write(root, pairs, "a/{}.png", "b/{}_lesion.png")
    rows = [
        {"image": f"a/{name}.png", "mask": f"b/{name}_lesion.png"}
        | {column: values[number] for column, values in columns.items()}
        for number, name in enumerate(pairs)
    ]
    return write_table(root / "pairs.csv", rows, ";")


def polygon(mask: np.ndarray) -> list:
    rows, columns = np.nonzero(mask)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    return [list(map(int, (left, top, right, top, right, bottom, left, bottom)))]


def run_length(mask: np.ndarray) -> dict:
    """As CVAT writes it, not compressed."""
    values = mask.ravel(order="F").astype(int)
    starts = np.flatnonzero(np.diff(values, prepend=0))
    return {"size": list(mask.shape), "counts": np.diff([0, *starts, values.size]).tolist()}


def compressed(mask: np.ndarray) -> dict:
    code = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": code["size"], "counts": code["counts"].decode()}


def coco(pairs, encode=polygon) -> dict:
    images, annotations = [], []
    for number, (name, (_, mask)) in enumerate(pairs.items()):
        images.append({"id": number, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]})
        annotations.append({"id": number, "image_id": number, "category_id": 3, "segmentation": encode(mask)})
    return {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "lesion"}]}


def write_coco(root: Path, pairs, encode=polygon, place="result.json") -> Path:
    for name, (photo, _) in pairs.items():
        (root / "images").mkdir(parents=True, exist_ok=True)
        photo.save(root / "images" / f"{name}.png")
    (root / place).parent.mkdir(exist_ok=True)
    (root / place).write_text(json.dumps(coco(pairs, encode)))
    return root


def rows_of(pairs, draw=grey) -> datasets.Dataset:
    features = {"image": datasets.Image(), "mask": datasets.Image(), "image_id": datasets.Value("string")}
    columns = {
        "image": [photo for photo, _ in pairs.values()],
        "mask": [draw(mask) for _, mask in pairs.values()],
        "image_id": list(pairs),
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def write_saved(root: Path, pairs) -> Path:
    rows_of(pairs).save_to_disk(root)
    return root


WRITERS = {
    "the layout of ISIC 2018; masks of 0 and 255": write_isic,
    "images/ and masks/; masks of 0 and 255": write,
    "images/ and masks/; masks of 0 and 1": lambda root, pairs: write(root, pairs, draw=lambda mask: grey(mask, 1)),
    "images/ and masks/; masks of palette indices": lambda root, pairs: write(root, pairs, draw=palette),
    "pairs side by side; masks of 0 and 255": lambda root, pairs: write(root, pairs, "{}.jpg", "{}_mask.png"),
    "imagefolder with metadata.jsonl; masks of 0 and 255": write_jsonl,
    "imagefolder with metadata.csv; masks of 0 and 255": write_metadata_csv,
    "a CSV of paths, pairs.csv; masks of 0 and 255": write_paths,
    "COCO, result.json; masks of 0 and 255": write_coco,
    "COCO, instances_default.json; masks of 0 and 255": lambda root, pairs: write_coco(
        root, pairs, run_length, "annotations/instances_default.json"
    ),
    "COCO, compressed.json; masks of 0 and 255": lambda root, pairs: write_coco(
        root, pairs, compressed, "compressed.json"
    ),
    "a saved dataset; masks of 0 and 255": write_saved,
}


def check_rows(data, pairs) -> None:
    assert sorted(image_id for split in data for image_id in data[split]["image_id"]) == sorted(pairs)
    for split in data:
        for row in data[split]:
            assert set(row) == {"image", "mask", "image_id"} and row["image"].size == SIZE[::-1]
            assert set(np.unique(row["mask"].convert("L"))) == {0, 255}
            assert np.array_equal(np.asarray(row["mask"].convert("L")) == 255, pairs[row["image_id"]][1])


@pytest.mark.parametrize("form", WRITERS)
def test_each_form_is_read_alike_and_named_in_a_line(form, tmp_path, pairs):
    data = load_lesions(WRITERS[form](tmp_path / "moles", pairs))
    check_rows(data, pairs)
    line = found_line(data)
    name = tmp_path / "moles" if form.startswith("a saved") else "moles"
    sizes = ", ".join(f"{split} {len(rows)}" for split, rows in data.items())
    assert line == f"{name}: {form}; 10 pairs: {sizes} (validation and test drawn from train)"


def test_forms_draw_the_same_split(tmp_path, pairs):
    written = {form: WRITERS[form](tmp_path / str(number), pairs) for number, form in enumerate(WRITERS)}
    chosen = {
        form: {split: rows["image_id"][:] for split, rows in load_lesions(root).items()}
        for form, root in written.items()
        if "side by side" not in form  # its photos are JPEG
    }
    assert len({json.dumps(split) for split in chosen.values()}) == 1


@pytest.mark.parametrize("name", ["{}", "{}_mask", "{}_segmentation", "{}_gt", "mask_{}"])
def test_names_of_masks(name, tmp_path, pairs):
    check_rows(load_lesions(write(tmp_path, pairs, mask=f"masks/{name}.png")), pairs)


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: datasets.DatasetDict(train=rows)])
@pytest.mark.parametrize("draw", [grey, lambda mask: grey(mask, 1), palette])
def test_datasets_in_python_are_read(wrap, draw, pairs):
    for max_side in (512, None):
        check_rows(load_lesions(wrap(rows_of(pairs, draw)), max_side=max_side), pairs)


def test_dataset_without_a_train_split_is_refused(pairs):
    with pytest.raises(ValueError, match=r"a `train` split is needed, got \['test'\]"):
        load_lesions(datasets.DatasetDict(test=rows_of(pairs)))


@pytest.mark.parametrize("max_side", [512, None])
def test_row_of_a_dataset_that_cannot_be_used_is_named(pairs, max_side):
    rows = rows_of(pairs, lambda mask: grey(mask, 2 if mask.sum() == pairs["mole_4"][1].sum() else 255))
    with pytest.raises(ValueError, match=r"mole_4: a mask must hold 0 \(background\) and 255 \(foreground\), got 2"):
        load_lesions(rows, max_side=max_side)


# Splits


def test_split_column_of_a_table_is_kept(tmp_path, pairs):
    splits = ["train"] * 6 + ["val", "valid"] + ["test"] * 2
    data = load_lesions(write_paths(tmp_path, pairs, split=splits))
    assert {split: list(rows["image_id"]) for split, rows in data.items()} == {
        "train": IDS[:6],
        "validation": IDS[6:8],
        "test": IDS[8:],
    }
    assert "drawn" not in found_line(data)


def test_paths_of_windows_are_read(tmp_path, pairs):
    write_paths(tmp_path, pairs)
    table = tmp_path / "pairs.csv"
    table.write_text(table.read_text().replace("/", "\\"))
    check_rows(load_lesions(tmp_path), pairs)


def test_split_of_another_name_and_an_empty_one_are_refused(tmp_path, pairs):
    for wrong in ("holdout", ""):
        write_paths(tmp_path, pairs, split=["train"] * 9 + [wrong])
        with pytest.raises(ValueError, match=f"row 10: `split` must be one of train, .*, got '{wrong}'"):
            load_lesions(tmp_path)


def test_splits_of_coco_files_and_folders(tmp_path, pairs):
    few = {split: dict(list(pairs.items())[part]) for split, part in (("train", slice(6)), ("val", slice(6, 10)))}
    for split, some in few.items():
        write_coco(tmp_path / "cvat", some, place=f"annotations/instances_{split}2017.json")
        write_coco(tmp_path / "roboflow" / split, some, place="_annotations.coco.json")
        write_jsonl(tmp_path / "imagefolder" / split, some)
    for form in ("cvat", "roboflow", "imagefolder"):
        data = load_lesions(tmp_path / form)
        assert list(data["validation"]["image_id"]) == IDS[6:]
        assert sorted([*data["train"]["image_id"], *data["test"]["image_id"]]) == IDS[:6]


def test_patients_of_a_table_stay_together(tmp_path, pairs):
    data = load_lesions(write_paths(tmp_path, pairs))
    apart = {data["train"]["image_id"][0], data["test"]["image_id"][0]}
    patients = ["a" if name in apart else name for name in pairs]
    data = load_lesions(write_paths(tmp_path, pairs, patient_id=patients))
    assert len({split for split in data for image_id in data[split]["image_id"] if image_id in apart}) == 1


def test_copies_in_two_splits_are_named(tmp_path, pairs, caplog):
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    write_paths(tmp_path, {**pairs, "mole_9": (pairs["mole_0"][0], pairs["mole_9"][1])}, split=splits)
    load_lesions(tmp_path)
    assert "Copies of an image are in two splits" in caplog.text
    assert "mole_0 (train) and mole_9 (test)" in caplog.text


def test_patients_in_two_splits_and_faint_images_are_named(tmp_path, pairs, caplog):
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    mask = pairs["mole_9"][1]
    faint = Image.fromarray(
        np.full((*mask.shape, 3), 128, np.uint8) + (mask > 0)[..., None].astype(np.uint8) * 15
    )  # 128 and 143
    patients = ["a", *"bcdefgh", "a", "i"]
    write_paths(tmp_path, {**pairs, "mole_9": (faint, mask)}, split=splits, patient_id=patients)
    expected = [
        "Images of one patient or lesion are in several splits",
        "patient_id a (test, train)",
        "1 images show fewer than 32 of 256 grey levels: mole_9.",
    ]
    load_lesions(tmp_path)
    assert [words for words in expected if words not in caplog.text] == []
    found = "\n".join(survey_lines(survey_lesions(tmp_path)))
    assert [words for words in expected if words not in found] == []
    assert "patient_id b" not in found


def test_ids_that_start_anew_in_each_split_do_not_mix_patients(pairs, caplog):
    def split(patients: str) -> datasets.Dataset:
        names = {f"{number}": pairs[f"mole_{ord(patient) - ord('a')}"] for number, patient in enumerate(patients)}
        return rows_of(names).add_column("patient_id", list(patients))

    splits = {"train": "abcd", "validation": "efg", "test": "hij"}
    for patients, is_divided in (("hij", False), ("haj", True)):
        caplog.clear()
        data = datasets.DatasetDict({name: split(of_one) for name, of_one in (splits | {"test": patients}).items()})
        load_lesions(data)
        survey = survey_lines(survey_lesions(data))
        for text in (caplog.text, "\n".join(survey)):
            assert ("patient_id a (test, train)" in text) == is_divided and "patient_id h" not in text


# What is not read


def test_two_forms_that_fit_are_both_named_and_a_file_tells_which(tmp_path, pairs):
    write(tmp_path, pairs)
    lines = [{"file_name": f"images/{name}.png", "mask_file_name": f"masks/{name}.png"} for name in pairs]
    table = tmp_path / "metadata.jsonl"
    table.write_text("\n".join(map(json.dumps, lines)))
    words = rf"two forms fit, images/ and masks/ \(images, masks\) and imagefolder \(metadata.jsonl\). .* as {table},"
    with pytest.raises(ValueError, match=words):
        load_lesions(tmp_path)
    check_rows(load_lesions(table), pairs)


def test_each_form_fits_its_folder_alone(tmp_path, pairs):
    for number, writer in enumerate(WRITERS.values()):
        root = writer(tmp_path / str(number), pairs)
        assert len([form for form in FORMS if form.marks(root)]) == 1


def test_table_of_the_archive_beside_images_and_masks_is_no_form(tmp_path, pairs):
    write(tmp_path, pairs)
    write_table(tmp_path / "metadata.csv", [{"isic_id": name, "patient_id": "p"} for name in pairs])
    assert find_form(tmp_path)[0] == "images/ and masks/"
    write_table(tmp_path / "decisions.csv", [{"image": "mole_0.png", "mask": "", "made_by": "efp-isic"}])
    assert find_form(tmp_path)[0] == "images/ and masks/"


def no_form(root: Path, pairs):
    write(root, pairs, "photos/{}.png", "lesions/{}.png")


def other_name_of_the_masks(root: Path, pairs):
    write(root, pairs, mask="labels/{}.png")


def folders_of_splits(root: Path, pairs):
    for split in ("train", "val"):
        write(root, pairs, f"images/{split}/{{}}.png", f"masks/{split}/{{}}.png")


def deeper_folders(root: Path, pairs):
    for split in ("train", "test"):
        write(root, pairs, f"{split}/images/{{}}.png", f"{split}/masks/{{}}.png")


def labelme(root: Path, pairs):
    root.mkdir()
    pairs["mole_0"][0].save(root / "mole_0.jpg")
    (root / "mole_0.json").write_text(json.dumps({"shapes": [], "imagePath": "mole_0.jpg"}))


def volumes(root: Path, pairs):
    root.mkdir()
    for name in ("mole_0", "mole_0_mask"):
        (root / f"{name}.nii.gz").write_bytes(b"")


def table_of_other_columns(root: Path, pairs):
    write(root, pairs, "a/{}.png", "b/{}.png")
    pairs["mole_0"][0].save(root / "cover.png")
    write_table(root / "pairs.csv", [{"photo": "a/mole_0.png", "label": "b/mole_0.png"}])


def images_alone(root: Path, pairs):
    write(root, pairs, "{}.png", "../elsewhere/{}.png")


def other_names(root: Path, pairs):
    write(root, pairs, mask="masks/{}-lesion.png")


def mask_of_two(root: Path, pairs):
    write(root, pairs, mask="masks/{}_mask.png")
    pairs["mole_0"][0].save(root / "images" / "mole_0_mask.png")


def mask_beside_of_no_image(root: Path, pairs):
    write(root, pairs, "{}.jpg", "{}_mask.png")
    (root / "mole_3.jpg").unlink()


def image_beside_without_mask(root: Path, pairs):
    write(root, pairs, "{}.jpg", "{}_mask.png")
    (root / "mole_3_mask.png").unlink()


def strange_palette(root: Path, pairs):
    def pale(mask):
        picture = palette(mask)
        picture.putpalette([9, 9, 9, 128, 0, 0])
        return picture

    write(root, pairs, draw=pale)


def labels_of_two_classes(root: Path, pairs):
    write(root, pairs, draw=lambda mask: grey(mask, 2))


def row_without_mask(root: Path, pairs):
    write_paths(root, pairs, mask=["b/mole_0_lesion.png", *[""] * 9])


def table_of_a_missing_file(root: Path, pairs):
    write_paths(root, pairs)
    (root / "b" / "mole_2_lesion.png").unlink()


def masks_as_text(root: Path, pairs):
    write_jsonl(root, pairs)
    path = root / "metadata.jsonl"
    path.write_text(path.read_text().replace("mask_file_name", "mask"))


def two_names_alike(root: Path, pairs):
    write_paths(root, pairs, image_id=["x", "x", *IDS[2:]])


def changed(change):
    def write_changed(root: Path, pairs):
        write_coco(root, pairs)
        content = json.loads((root / "result.json").read_text())
        change(content)
        (root / "result.json").write_text(json.dumps(content))

    write_changed.__name__ = change.__name__
    return write_changed


@changed
def two_categories_alike(content):
    content["categories"].append({"id": 4, "name": "lesion"})
    content["annotations"][2]["category_id"] = 4


@changed
def category_without_a_name(content):
    content["annotations"][2]["category_id"] = 4


@changed
def box_alone(content):
    content["annotations"][2]["segmentation"] = []


@changed
def two_points(content):
    content["annotations"][2]["segmentation"] = [[1, 2, 8, 9]]


@changed
def code_of_another_size(content):
    content["annotations"][2]["segmentation"] = {"size": list(SIZE), "counts": [5, 9]}


@changed
def not_annotated(content):
    del content["annotations"][2]


@changed
def unknown_file(content):
    content["images"][2]["file_name"] = "other/mole_2.png"


@changed
def annotation_of_no_image(content):
    del content["images"][2]


@changed
def other_size(content):
    content["images"][2]["height"] = 33


@changed
def no_height(content):
    del content["images"][2]["height"]


FAULTS = {
    no_form: r"no form .*, got lesions, photos. If lesions/ \(mole_0.png, …\) and photos/ \(mole_0.png, …\) are photos "
    "and masks, call these folders images/ and masks/. The mask of mole_0 would be mole_0.png, ",
    other_name_of_the_masks: "masks: no such folder.* the masks of images. If labels/ does, call it masks/",
    folders_of_splits: r"images: no image in the folder .*, got train/, val/. .* in a CSV of image, mask and split",
    deeper_folders: r"Images are in test/images/ \(mole_0.png, …\), test/masks/ .* list the pairs in a CSV",
    labelme: r"JSON files are not COCO: mole_0.json. Export them as COCO, of LabelMe with its labelme2coco.py",
    volumes: r"volumes are not read: mole_0.nii.gz, mole_0_mask.nii.gz. Save each slice as an 8-bit PNG in images/",
    table_of_other_columns: r"must have the columns image and mask, got pairs.csv \(photo, label\). Rename them",
    images_alone: "10 images have no mask in .*The mask of mole_0 would be mole_0_segmentation.png, .*mask_mole_0.png",
    other_names: "would be mole_0.png, mole_0_segmentation.png, .* and there is mole_0-lesion.png, mole_1-lesion.png",
    mask_of_two: "mole_0_mask.png may be the mask of mole_0_mask or of mole_0. Rename it",
    mask_beside_of_no_image: "1 files are named as masks of no image: mole_3_mask.png",
    image_beside_without_mask: "1 images have no mask in .*: mole_3",
    strange_palette: r"10 of 10 pairs cannot be used: .* must hold 0 \(background\) and 255 \(foreground\), got ",
    labels_of_two_classes: r"10 of 10 pairs cannot be used: .*got 2",
    row_without_mask: "9 rows have no image or no mask: mole_1.png, ",
    table_of_a_missing_file: "mole_2_lesion.png: no such file",
    masks_as_text: r"columns file_name \(image\) and mask_file_name \(mask\) must be there, got image, mask",
    two_names_alike: "Images must have different names, got two of x",
    two_categories_alike: "classes must have names of their own, got 'lesion'",
    category_without_a_name: "the file is damaged .*KeyError: 4.*Export it again",
    box_alone: "1 images have a box alone, or a polygon or run-length code that is none: mole_2.png",
    two_points: "1 images have a box alone, or a polygon or run-length code that is none: mole_2.png",
    code_of_another_size: "1 images have a box alone, or a polygon or run-length code that is none: mole_2.png",
    not_annotated: "1 images have no annotation: mole_2.png",
    unknown_file: "1 images have no file: other/mole_2.png, and there is mole_0.png, mole_1.png, mole_2.png",
    annotation_of_no_image: "annotations are of images that are not in it: 2",
    other_size: "mole_2: image is 32×40, mask 33×40",
    no_height: "the file is damaged .*height.*Export it again",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_what_cannot_be_read_is_refused_by_name(fault, tmp_path, pairs):
    fault(tmp_path / "data", pairs)
    with pytest.raises((ValueError, FileNotFoundError), match=FAULTS[fault]):
        load_lesions(tmp_path / "data")


@pytest.mark.parametrize(
    "name", [r"C:\data\mole_2.png", "/data/mole_2.png", "../upload/1/mole_2.png", "images/mole_2.png"]
)
def test_folders_of_another_machine_are_left_out(name, tmp_path, pairs):
    write_coco(tmp_path, pairs)
    content = json.loads((tmp_path / "result.json").read_text())
    content["images"][2]["file_name"] = name
    (tmp_path / "result.json").write_text(json.dumps(content))
    check_rows(load_lesions(tmp_path), pairs)


def test_image_files_that_no_table_lists_are_named(tmp_path, pairs, caplog):
    write_coco(tmp_path, pairs)
    shutil.copy(tmp_path / "images" / "mole_0.png", tmp_path / "images" / "forgotten.png")
    load_lesions(tmp_path)
    assert "1 image files are not in result.json and are left out: images/forgotten.png" in caplog.text


def test_several_annotations_of_an_image_are_one_mask(tmp_path, pairs):
    write_coco(tmp_path, pairs)
    content = json.loads((tmp_path / "result.json").read_text())
    corner = np.zeros(SIZE, bool)
    corner[30:, 36:] = True
    content["annotations"].append({"id": 99, "image_id": 0, "category_id": 3, "segmentation": polygon(corner)})
    (tmp_path / "result.json").write_text(json.dumps(content))
    photo, mask = pairs["mole_0"]
    check_rows(load_lesions(tmp_path), {**pairs, "mole_0": (photo, mask | corner)})


def test_palette_of_black_and_white_is_read_by_its_colours(tmp_path, pairs):
    def inverted(mask):
        picture = Image.fromarray((~mask).astype(np.uint8), "P")
        picture.putpalette([255, 255, 255, 0, 0, 0])
        return picture

    check_rows(load_lesions(write(tmp_path, pairs, draw=inverted)), pairs)


# Pixels that are ignored


def bordered(mask: np.ndarray, picture=grey) -> Image.Image:
    """As VOC's tools write it: two rows of 255 below the class, which is 1."""
    numbers = mask.astype(np.uint8)
    end = mask.any(1).nonzero()[0].max() + 1
    numbers[end : end + 2] = 255
    drawn = Image.fromarray(numbers, "P" if picture is palette else "L")
    if picture is palette:
        drawn.putpalette([0, 0, 0, 128, 0, 0] + 253 * [0, 0, 0] + [224, 224, 192])
    return drawn


@pytest.mark.parametrize(
    ("picture", "words"), [(grey, "0, 1 and 255 (ignored)"), (palette, "palette indices 0, 1 and 255 (ignored)")]
)
def test_border_of_one_class_is_ignored(tmp_path, pairs, picture, words):
    root = write(tmp_path / "data", pairs, draw=lambda mask: bordered(mask, picture))
    transform = LesionTransform(EFPImageProcessor(size={"height": SIZE[0], "width": SIZE[1]}))
    for source in (root, rows_of(pairs, lambda mask: bordered(mask, picture))):
        data = load_lesions(source)
        assert f"masks of {words}" in found_line(data)
        row = data["train"][0]
        expected = np.asarray(bordered(pairs[row["image_id"]][1]))
        truth, ignored = known_mask(row)
        assert np.array_equal(truth, expected == 1) and np.array_equal(ignored, expected == 255)
        columns = {name: [value] for name, value in row.items()}
        assert np.array_equal(transform(columns)["labels"][0], expected)
        assert set(np.unique(load_lesions(source, max_side=16)["train"][0]["mask"])) == {0, 254, 255}
        with pytest.raises(ValueError, match=rf"{row['image_id']}: a mask here must have no ignored pixels"):
            truth_mask(row)  # of clicks
        with pytest.raises(ValueError, match="a mask here must have no ignored pixels"):
            PromptedLesionTrainer.check_labels(with_prompt_encoder(tiny_model()), data)
        survey = survey_lesions(source)
        assert f"masks   {words} (10)" in survey_lines(survey) and not survey.problems
        shares = {entry["image_id"]: entry["share"] for rows in survey.rows.values() for entry in rows}
        assert shares == {name: round(mask.mean(), 6) for name, (_, mask) in pairs.items()}


def test_masks_that_disagree_on_255_are_refused_by_name(tmp_path, pairs):
    """Lesions of 255 must not become ignored pixels, nor ignored pixels lesions, because of the masks beside them."""
    written = iter(range(10))
    root = write(tmp_path / "data", pairs, draw=lambda mask: bordered(mask) if next(written) == 3 else grey(mask))
    words = (
        r"255 must mean the same in all masks, got 0, 1 and 255 \(ignored\) in mole_3, and 0 and 255 in mole_0, .*: is "
    )
    with pytest.raises(ValueError, match=words):
        load_lesions(root)
    assert any("255 must mean the same" in problem for problem in survey_lesions(root).problems)
    written = iter(range(10))
    with pytest.raises(ValueError, match=words):
        load_lesions(rows_of(pairs, lambda mask: bordered(mask) if next(written) == 3 else grey(mask)))

    others = (lambda mask: grey(mask, 1), lambda mask: grey(mask, 0), bordered)
    written = iter(range(10))
    root = write(tmp_path / "mixed", pairs, draw=lambda mask: others[next(written) % 3](mask))
    assert "masks of 0 and 1 or 0 and 255 or 0, 1 and 255 (ignored)" in found_line(load_lesions(root))
    written = iter(range(10))
    root = write(tmp_path / "either", pairs, draw=lambda mask: grey(mask, (1, 255)[next(written) % 2]))
    check_rows(load_lesions(root), pairs)  # none holds both: all are lesions


def test_ignored_pixels_of_labels_that_overlap_and_of_streams_are_refused(tmp_path, pairs):
    root = write(tmp_path / "data", pairs, mask="masks/nucleus/{}.png", draw=bordered)
    write(root, pairs, mask="masks/membrane/{}.png")
    with pytest.raises(ValueError, match=r"nucleus/mole_0.png: a mask here must have no ignored pixels, got 255"):
        load_lesions(root)
    files = {"image": "images/{}.png", "membrane": "masks/membrane/{}.png", "nucleus": "masks/nucleus/{}.png"}
    rows = {column: [str(root / name.format(of_one)) for of_one in pairs] for column, name in files.items()}
    rows = datasets.Dataset.from_dict(rows)
    for column in files:
        rows = rows.cast_column(column, datasets.Image())
    with pytest.raises(ValueError, match="train_0000000, nucleus: a mask here must have no ignored pixels"):
        load_lesions(rows)
    for split in ("train", "validation"):
        rows_of(pairs, bordered).to_parquet(tmp_path / "shards" / f"{split}-00000.parquet")
    stream = load_lesions(tmp_path / "shards", streaming=True)
    with pytest.raises(ValueError, match="of a stream: a mask here must have no ignored pixels"):
        next(iter(stream["train"]))
