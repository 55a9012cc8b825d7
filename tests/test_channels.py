"""Images with other channels than three colours, from data to mask."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from conftest import tiny_model
from PIL import Image

from efp_hf import EFPForSegmentation, EFPImageProcessor
from efp_hf.__main__ import main
from efp_hf.data.channels import channels_in, channels_of, read_channels
from efp_hf.data.lesions import load_lesions
from efp_hf.training.channels import with_channels, with_statistics
from efp_hf.training.encoders import new_model

SIDE, NUM_IMAGES = 48, 20


def draw(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photo of noise, a map that is bright where the lesion is, and the lesion."""
    generator = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE]
    top, left = generator.uniform(14, SIDE - 14, 2)
    lesion = np.hypot(y - top, x - left) < generator.uniform(7, 12)
    photo = generator.integers(90, 160, (SIDE, SIDE, 3), dtype=np.uint8)
    found = np.where(lesion, 210, 40) + generator.integers(-20, 20, (SIDE, SIDE))
    return photo, found.astype(np.uint8), lesion


def write_npy(array, path):
    np.save(path.with_suffix(".npy"), array)


def write_bands(array, path):
    tifffile.imwrite(path.with_suffix(".tif"), array, photometric="rgb")  # the fourth is called alpha


def write_pages(array, path):
    first, *others = (Image.fromarray(array[..., channel]) for channel in range(array.shape[2]))
    first.save(path.with_suffix(".tif"), save_all=True, append_images=others)


def write_two_files(array, path):
    Image.fromarray(array[..., :3]).save(path.with_suffix(".png"))
    Image.fromarray(array[..., 3]).save(path.with_name(f"{path.name}_2.png"))


WRITERS = {"npy": write_npy, "bands": write_bands, "pages": write_pages, "two files": write_two_files}


def write_folder(root, writer, shuffled=False):
    """images/ and masks/; `shuffled`: each image has the map of another one."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(NUM_IMAGES):
        photo, found, lesion = draw(number)
        found = draw((number + 7) % NUM_IMAGES)[1] if shuffled else found
        writer(np.dstack([photo, found]), root / "images" / f"mole{number:02d}")
        Image.fromarray(lesion.astype(np.uint8) * 255).save(root / "masks" / f"mole{number:02d}.png")
    return root


@pytest.fixture(scope="module")
def two_files(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("channels") / "two", write_two_files)


@pytest.fixture(scope="module")
def tiny_four(tmp_path_factory):
    """A tiny checkpoint of four channels."""
    torch.manual_seed(8)
    folder = tmp_path_factory.mktemp("channels") / "four"
    tiny_model(num_channels=4).save_pretrained(folder)
    mean = [0.4, 0.4, 0.4, 0.2]
    settings = {"image_mean": mean, "image_std": [0.2] * 4, "do_convert_rgb": False}
    EFPImageProcessor(size={"height": 32, "width": 32}, **settings).save_pretrained(folder)
    return folder


def test_arrays_have_one_scale_whatever_they_are_saved_as(tmp_path):
    pixels = np.array([[[0, 51], [102, 255]]], np.uint8)
    saved = {
        "bytes": pixels,
        "shorts": pixels.astype(np.uint16) * 257,
        "big": (pixels.astype(np.uint16) * 257).astype(">u2"),
        "floats": pixels / 255,
    }
    for name, array in saved.items():
        np.save(tmp_path / f"{name}.npy", array)
        np.testing.assert_allclose(read_channels([tmp_path / f"{name}.npy"]), pixels, atol=1e-4)
    tifffile.imwrite(tmp_path / "shorts.tif", saved["shorts"], photometric="minisblack", planarconfig="contig")
    planar = np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(tmp_path / "planar.tif", planar, photometric="minisblack", planarconfig="separate")
    for name in ("shorts.tif", "planar.tif"):
        np.testing.assert_allclose(read_channels([tmp_path / name]), pixels, atol=1e-4)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((4, 4, 2), 1.5), r"floats must be from 0 to 1, got 1.5 to 1.5"),
        (np.full((4, 4, 2), np.nan), r"floats must be from 0 to 1, got nan"),
        (np.zeros((4, 4, 2), np.int32), "must be uint8, uint16, or floats from 0 to 1, got int32"),
        (np.zeros((3, 4, 200), np.uint8), r"must be \(height, width, channels\) with up to 64 channels"),
        (np.array({}), "no array that can be read"),
        ({"several": np.zeros((4, 4))}, "no array that can be read"),
    ],
)
def test_array_that_is_no_image_is_refused_by_name(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array)
    if isinstance(array, dict):
        np.savez(tmp_path / "a.npz", **array)
        (tmp_path / "a.npz").rename(tmp_path / "a.npy")
        assert channels_in(tmp_path / "a.npy") == 3
    with pytest.raises(ValueError, match=f"a.npy: .*{words}"):
        read_channels([tmp_path / "a.npy"])


@pytest.mark.parametrize("writer", WRITERS)
def test_folder_of_each_kind_is_read_as_arrays_of_four_channels(tmp_path, writer):
    data = load_lesions(write_folder(tmp_path / "data", WRITERS[writer]))
    row = data["train"][0]
    photo, found, lesion = draw(int(row["image_id"].removeprefix("mole")))
    assert channels_of(data["train"]) == 4 and row["image"].dtype == np.uint8
    assert np.array_equal(row["image"], np.dstack([photo, found]))
    assert np.array_equal(np.asarray(row["mask"]) == 255, lesion)
    reduced = load_lesions(tmp_path / "data", max_side=24)["train"][0]
    assert reduced["image"].shape == (24, 24, 4) and reduced["mask"].size == (24, 24)


def test_tables_and_datasets_name_further_files_in_columns(tmp_path, two_files):
    from datasets import Dataset
    from datasets import Image as ImageFeature

    ids = [path.stem for path in sorted((two_files / "masks").iterdir())]
    rows = [
        {"image": f"images/{name}.png", "image_2": f"images/{name}_2.png", "mask": f"masks/{name}.png"} for name in ids
    ]
    with (two_files / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    dataset = Dataset.from_list([{name: str(two_files / path) for name, path in row.items()} for row in rows])
    for column in rows[0]:
        dataset = dataset.cast_column(column, ImageFeature())
    dataset.to_parquet(tmp_path / "train-0.parquet")
    named = [{("file_name" if k == "image" else f"{k}_file_name"): path for k, path in row.items()} for row in rows]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, named)))
    for name in ("images", "masks"):
        (folder / name).symlink_to(two_files / name)
    for source in (two_files / "pairs.csv", dataset, tmp_path / "train-0.parquet", folder / "metadata.jsonl"):
        source = tmp_path if str(source).endswith("parquet") else source
        data = load_lesions(source)
        assert channels_of(data["train"]) == 4, source
        assert sum(map(len, data.values())) == NUM_IMAGES
    (two_files / "pairs.csv").unlink()


def test_images_of_different_channels_are_named(tmp_path, two_files, capsys):
    root = write_folder(tmp_path / "data", write_two_files)
    (root / "images" / "mole03_2.png").unlink()
    with pytest.raises(ValueError, match="the same channels, got 4 in most, and the three of a photo in mole03"):
        load_lesions(root)
    assert (
        main(["data", str(root)]) == 1 and "problem: All images must have the same channels" in capsys.readouterr().out
    )
    packed = Image.fromarray(np.dstack(draw(4)[:2]), "RGBA")  # what undoes LZW is a package of its own
    packed.save(root / "images" / "mole04.tif", compression="tiff_lzw")
    for name in ("mole04.png", "mole04_2.png"):
        (root / "images" / name).unlink()
    assert main(["data", str(root)]) == 1
    assert re.search(r"mole04\.tif: the TIFF cannot be read \(.*imagecodecs", capsys.readouterr().out)
    assert main(["data", str(two_files)]) == 0 and f"channels 4 ({NUM_IMAGES})" in capsys.readouterr().out


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("encoder", ["paper", "tf_efficientnet_lite0"])
def test_first_layer_is_adapted_and_the_rest_is_kept(encoder, channels):
    model = new_model(encoder, pretrained=False, pyramid_size=8, head_size=8).eval()
    adapted = with_channels(model, channels).eval()
    grey = torch.randn(1, 1, 64, 64)
    same = adapted(grey.expand(1, channels, 64, 64)).logits  # of equal channels, what counts is the sum of weights
    assert same.shape == (1, 2, 64, 64)
    changed = [n for n, t in adapted.state_dict().items() if t.shape != model.state_dict()[n].shape]
    assert len(changed) == 1 and adapted.state_dict()[changed[0]].shape[1] == channels
    with pytest.raises(ValueError, match=f"must take the channels of the data, 3, or three, got one of {channels}"):
        with_channels(adapted, 3)


def test_statistics_of_further_channels_are_those_of_the_training_images(two_files):
    rows = load_lesions(two_files)["train"]
    processor = EFPImageProcessor()
    fitted = with_statistics(processor, rows)
    fourth = np.stack([row["image"][..., 3] for row in rows]) / 255
    assert fitted.image_mean[:3] == list(processor.image_mean) and fitted.num_channels == 4
    assert (fitted.image_mean[3], fitted.image_std[3]) == pytest.approx((fourth.mean(), fourth.std()), abs=1e-5)
    assert processor.num_channels == 3


def test_processor_takes_arrays_of_its_channels_alone(tiny_four):
    processor = EFPImageProcessor.from_pretrained(tiny_four)
    array = np.zeros((5, 7, 4), np.uint8)
    first = processor(array, return_tensors="pt")["pixel_values"]
    assert first.shape == (1, 4, 32, 32) and first[0, 3].unique().item() == pytest.approx(-1)
    assert torch.equal(processor(np.moveaxis(array, -1, 0), return_tensors="pt")["pixel_values"], first)
    with pytest.raises(ValueError, match="`images` must have the 4 channels of the training, got 3"):
        processor(array[..., :3], return_tensors="pt")
    with pytest.raises(ValueError, match="`images` must have the 3 channels of the training, got 4"):
        EFPImageProcessor()(array, input_data_format="channels_last", return_tensors="pt")


STEPS = ("--per-device-train-batch-size", "14", "--use-cpu", "--disable-tqdm")


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS)
def test_train_score_and_predict(tmp_path, monkeypatch, capsys, writer):
    monkeypatch.chdir(tmp_path)
    data = str(write_folder(tmp_path / "data", WRITERS[writer]))
    network = ("--encoder", "paper", "--nano", "--image-size", "32")
    assert main(["train", "--data", data, "--output", "run", *network, "--max-steps", "2", *STEPS]) == 0
    assert "The images have 4 channels" in capsys.readouterr().out
    assert main(["train", "--data", data, "--output", "run", *network, "--max-steps", "4", *STEPS, "--resume"]) == 0
    assert main(["calibrate", "--checkpoint", "run", "--data", data, "--allow-few-images"]) == 0
    assert main(["score", "--checkpoint", "run", "--data", data, "--card"]) == 0
    card = Path("run", "README.md").read_text()
    assert "](masks.png)" in card and "efp predict image.npy --checkpoint run\n" in card
    np.save("image.npy", read_channels(sorted(Path("data", "images").glob("mole00*"))).astype(np.uint8))
    assert main(["predict", "image.npy", "--checkpoint", "run", "--output", "of_card"]) == 0
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        found = {}
        exec(block, found)
        assert found["mask"].shape == np.load("image.npy").shape[:2]
    assert main(["predict", "data/images", "--checkpoint", "run", "--overlays"]) == 0
    assert len(list((tmp_path / "masks").glob("*_segmentation.png"))) == NUM_IMAGES
    assert len(list((tmp_path / "masks").glob("*_overlay.jpg"))) == NUM_IMAGES
    assert main(["export", "--to", "hub", "--checkpoint", "run"]) == 0
    exported = tmp_path / "exports" / "run-hub"
    assert EFPForSegmentation.from_pretrained(exported).config.num_channels == 4
    assert len(EFPImageProcessor.from_pretrained(exported).image_std) == 4


@pytest.mark.slow
def test_mask_depends_on_the_second_file(tmp_path, monkeypatch, two_files):
    """The map alone shows the lesion: with the map of another image, its lesion is found."""
    monkeypatch.chdir(tmp_path)
    call = ["train", "--data", str(two_files), "--output", "run", "--encoder", "paper", "--nano", "--image-size", "32"]
    more = ("--num-train-epochs", "25", "--learning-rate", "5e-3", "--encoder-learning-rate", "5e-3")
    assert main([*call, *STEPS, *more]) == 0
    shuffled = write_folder(tmp_path / "shuffled", write_two_files, shuffled=True)
    jaccards = {}
    for name, root in (("right", two_files), ("shuffled", shuffled)):
        split = ("--split", "train", "--output", name)
        assert main(["score", "--checkpoint", "run", "--data", str(root), *split, "--allow-training-images"]) == 0
        (row,) = csv.DictReader((tmp_path / name / "scores.csv").open())
        jaccards[name] = float(row["jaccard"])
    assert jaccards["right"] > 0.6 and jaccards["shuffled"] < jaccards["right"] - 0.3


def test_files_are_put_together_by_names_or_by_a_table(tmp_path, monkeypatch, capsys, tiny_four):
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        photo, found, _ = draw(number)
        write_two_files(np.dstack([photo, found]), tmp_path / f"a{number}")
    call = ["--checkpoint", str(tiny_four)]
    write_bands(np.dstack([photo, found]), tmp_path / "b")
    write_npy(np.dstack([photo, found]), tmp_path / "b_2")  # named so, but each has all channels
    assert main(["predict", "b.tif", "b_2.npy", *call, "--output", "whole"]) == 0
    assert len(list((tmp_path / "whole").glob("*.png"))) == 2
    assert main(["predict", "a0.png", "a0_2.png", "a1.png", "a1_2.png", *call, "--output", "named"]) == 0
    (tmp_path / "table.csv").write_text("image,image_2\na0.png,a0_2.png\na1.png,a1_2.png\n")
    assert main(["predict", "table.csv", *call, "--output", "listed"]) == 0
    (tmp_path / "other.csv").write_text("image,image_2\na0.png,a1_2.png\na1.png,a0_2.png\n")
    assert main(["predict", "other.csv", *call, "--output", "other"]) == 0
    masks = {
        folder: np.stack([np.asarray(Image.open(path)) for path in sorted((tmp_path / folder).glob("*.png"))])
        for folder in ("named", "listed", "other")
    }
    assert len(masks["named"]) == 2 and np.array_equal(masks["named"], masks["listed"])
    (tmp_path / "semicolons.csv").write_text("image;image_2\na0.png;a0_2.png\n")  # as a spreadsheet saves it
    for name in ("b.png", "b.jpg", "b_2.png"):  # two of a name are joined with nothing, and change nothing of others
        shutil.copy(tmp_path / "a1.png", tmp_path / name)
    long = f"{'x' * 300}.png"
    several = ("semicolons.csv", "a1.png", "a1_2.png", "b.png", "b.jpg", "b_2.png", long)
    assert main(["predict", *several, *call, "--output", "several"]) == 1
    error = capsys.readouterr().err
    assert "b.png: the image has 3 channels" in error and "File name too long" in error and error.count("failed") == 4
    again = [np.asarray(Image.open(tmp_path / "several" / f"a{number}_segmentation.png")) for number in range(2)]
    assert np.array_equal(again, masks["named"])
    for text, words in (
        (b"image,image_2\na0.png,a0_2.png,a1_2.png\n", "row 1 has more values than the header"),
        (b"image,image_2\n\xff.png,a0_2.png\n", "must be a table in UTF-8"),
        (b"image,image_2\n" + b"x" * 200_000, "field larger than field limit"),
    ):
        (tmp_path / "bad.csv").write_bytes(text)
        assert main(["predict", "bad.csv", *call, "--output", "none"]) == 2
        assert re.search(f"bad.csv.*{words}", capsys.readouterr().err)
    (tmp_path / "maps.csv").write_text("image,image_2\na0.png,named/a1_segmentation.png\n")  # masks as a channel
    assert main(["predict", "maps.csv", *call, "--output", "named", "--overwrite"]) == 2
    assert "named: --output must not be a folder that images are read from" in capsys.readouterr().err
    assert np.array_equal(masks["named"][1], np.asarray(Image.open(tmp_path / "named" / "a1_segmentation.png")))
    assert not np.array_equal(masks["named"], masks["other"])


def test_other_channels_than_the_checkpoints_are_refused_by_name(
    tmp_path, monkeypatch, capsys, tiny_four, tiny_checkpoint, two_files, synthetic_root
):
    monkeypatch.chdir(tmp_path)
    photo, found, _ = draw(0)
    array = np.dstack([photo, found])
    write_bands(array, tmp_path / "bands")
    write_npy(array, tmp_path / "array")
    tifffile.imwrite(tmp_path / "plain.tif", array, photometric="rgb", extrasamples=["unspecified"])
    tifffile.imwrite(tmp_path / "five.tif", np.dstack([array, found]), photometric="minisblack", planarconfig="contig")
    Image.fromarray(photo).save(tmp_path / "photo.png")
    for name in ("bands.tif", "array.npy", "plain.tif", "five.tif"):
        channels = 5 if name == "five.tif" else 4
        assert main(["predict", name, "--checkpoint", str(tiny_checkpoint), "--output", name + "-masks"]) == 1
        error = capsys.readouterr().err
        assert f"{name}: the image has {channels} channels, the checkpoint takes a photo's three" in error
    assert main(["predict", "photo.png", "--checkpoint", str(tiny_four)]) == 1
    assert (
        "photo.png: the image has 3 channels, the checkpoint takes 4: pass a file of 4, put the"
        in capsys.readouterr().err
    )
    for data, checkpoint, own in ((two_files, tiny_checkpoint, 3), (synthetic_root, tiny_four, 4)):
        assert main(["score", "--data", str(data), "--checkpoint", str(checkpoint)]) == 2
        error = capsys.readouterr().err
        assert f"must take the channels of the data, {7 - own}, got one of {own}" in error
    call = ["train", "--data", str(synthetic_root), "--checkpoint", str(tiny_four), "--output", "run"]
    assert main([*call, *STEPS]) == 2
    assert "must take the channels of the data, 3, or three, got one of 4" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["app", "review", "train --prompts", "train --task structures"])
def test_what_takes_photos_alone_says_so(tmp_path, monkeypatch, capsys, tiny_four, two_files, command):
    monkeypatch.chdir(tmp_path)
    first, *more = command.split()
    if first == "review":
        more = ["photos", "--output", "review"]
        (tmp_path / "photos").mkdir()
        Image.fromarray(draw(0)[0]).save("photos/photo.png")
    if first == "train":
        more += ["--data", str(two_files), "--output", "run", *STEPS]
    assert main([first, *more, "--checkpoint", str(tiny_four)]) == 2
    assert "the model must take the three colours of an image here, got 4 channels" in capsys.readouterr().err


def test_clicks_are_not_taught_on_other_channels(tmp_path, monkeypatch, capsys, tiny_checkpoint, two_files):
    monkeypatch.chdir(tmp_path)
    call = ["train", "--data", str(two_files), "--checkpoint", str(tiny_checkpoint), "--prompts", "--output", "run"]
    assert main([*call, *STEPS]) == 2
    assert "`--prompts` must have images of three colours, got 4 channels" in capsys.readouterr().err
