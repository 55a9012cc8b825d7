import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from transformers.modeling_outputs import SemanticSegmenterOutput

from efp_hf import EFPImageProcessor, image_processing_efp
from efp_hf.image_processing_efp import expected_jaccard, keep_largest_region, to_upright_rgb
from efp_hf.modeling_efp import with_background

SURE = 40.0


def gradient_image(height: int = 30, width: int = 50) -> Image.Image:
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 8 % 256, columns * 5 % 256, (rows + columns) * 3 % 256], -1)
    return Image.fromarray(pixels.astype(np.uint8))


def outputs_of(probabilities: torch.Tensor) -> SemanticSegmenterOutput:
    """Of the lesion, (batch_size, 1, height, width)."""
    return SemanticSegmenterOutput(logits=with_background(torch.logit(probabilities)))


# Image and mask to tensors


def test_pixel_values_are_resized_scaled_and_normalised():
    processor = EFPImageProcessor(size={"height": 4, "width": 8})
    grey = Image.new("RGB", (16, 16), (128, 128, 128))
    pixel_values = processor(grey, return_tensors="pt")["pixel_values"]
    assert pixel_values.shape == (1, 3, 4, 8)
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        torch.testing.assert_close(pixel_values[0, channel].mean(), torch.tensor((128 / 255 - mean) / std))


@pytest.mark.parametrize(
    "mask",
    [
        np.array([[0, 255], [255, 0]], dtype=np.uint8),
        np.array([[False, True], [True, False]]),
        np.array([[0, 1], [1, 0]], dtype=np.uint8),
    ],
    ids=["0/255", "boolean", "0/1"],
)
def test_masks_become_labels_zero_and_one_with_sharp_borders(mask):
    processor = EFPImageProcessor(size={"height": 4, "width": 4})
    inputs = processor(Image.new("RGB", (2, 2)), mask, return_tensors="pt")
    assert inputs["labels"].dtype == torch.int64
    expected = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]])
    assert torch.equal(inputs["labels"], expected[None])


def test_labels_with_ignored_pixels_are_kept():
    labels = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    inputs = EFPImageProcessor(do_resize=False)(Image.new("RGB", (2, 2)), labels, return_tensors="pt")
    assert inputs["labels"].tolist() == [[[0, 1], [2, 255]]]


@pytest.mark.parametrize("size", [5, 17, 40])
def test_resizing_labels_makes_no_new_ones(size):
    labels = np.array([[0, 2, 0], [255, 0, 2], [2, 2, 255]], dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    processor = EFPImageProcessor(size={"height": size, "width": size})
    inputs = processor(Image.new("RGB", (12, 12)), labels, return_tensors="pt")
    assert inputs["labels"].unique().tolist() == [0, 2, 255]


def test_image_and_mask_are_resized_alike():
    """A lesion that is white in the image is where the mask says after both were resized."""
    lesion = np.zeros((60, 90), dtype=np.uint8)
    lesion[12:36, 30:75] = 255
    inputs = EFPImageProcessor(size={"height": 20, "width": 20})(
        Image.fromarray(lesion).convert("RGB"), Image.fromarray(lesion), return_tensors="pt"
    )
    bright = inputs["pixel_values"][0, 0] > 0
    assert (bright == (inputs["labels"][0] == 1)).float().mean() > 0.98


@pytest.mark.parametrize(
    ("images", "masks", "words"),
    [
        (Image.new("RGB", (8, 6)), np.zeros((8, 6), np.uint8), "image is 6×8, mask 8×6. A mask must have the size"),
        ([Image.new("RGB", (8, 8))] * 2, [np.zeros((8, 8), np.uint8)], "one mask an image, got 1 for 2"),
        (np.random.rand(8, 8, 3), None, r"must hold 0..255, got floats in \[0, 1\]"),
        (np.full((8, 8, 3), 4000, dtype=np.int32), None, r"must hold 0..255, got 4000..4000"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(images, masks, words):
    with pytest.raises(ValueError, match=words):
        EFPImageProcessor()(images, masks, return_tensors="pt")


def test_colour_mask_is_refused():
    with pytest.raises(ValueError, match="grey masks"):
        EFPImageProcessor()(Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8)), return_tensors="pt")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_photo_is_seen_upright(tmp_path, orientation):
    upright = gradient_image()
    turned = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if turned is None else upright.transpose(turned)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    processor = EFPImageProcessor(size={"height": 16, "width": 16})
    with Image.open(tmp_path / "photo.png") as photo:
        found = processor(photo, return_tensors="pt")["pixel_values"]
    assert torch.equal(found, processor(upright, return_tensors="pt")["pixel_values"])


def test_every_kind_of_picture_becomes_the_rgb_that_one_sees():
    image = gradient_image()
    grey = image.convert("L")
    sixteen_bits = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    transparent = Image.new("RGBA", (5, 4), (10, 20, 30, 0))
    assert np.array_equal(to_upright_rgb(grey), np.asarray(grey.convert("RGB")))
    assert np.array_equal(to_upright_rgb(sixteen_bits), np.asarray(grey.convert("RGB")))
    assert np.array_equal(to_upright_rgb(grey.convert("P")), np.asarray(grey.convert("RGB")))
    assert np.array_equal(to_upright_rgb(image.convert("RGBA")), np.asarray(image))
    transparent.putpixel((0, 0), (10, 20, 30, 255))
    on_white = np.asarray(to_upright_rgb(transparent))
    assert on_white[0, 0].tolist() == [10, 20, 30] and (on_white.reshape(-1, 3)[1:] == 255).all()
    assert np.abs(np.asarray(to_upright_rgb(image.convert("CMYK"))).astype(int) - np.asarray(image)).max() <= 2
    with pytest.raises(ValueError, match="must have 8 or 16 bits a channel, got mode 'F'"):
        to_upright_rgb(Image.new("F", (4, 4)))


def test_picture_whose_pixels_nobody_can_know_is_refused():
    with pytest.raises(ValueError, match="`image` must not be transparent everywhere"):
        to_upright_rgb(Image.new("RGBA", (5, 4), (10, 20, 30, 0)))
    for brightest in (0, 255, 4095):
        with pytest.raises(ValueError, match=f"`image` must use its 16 bits, got values up to {brightest}: data of 12"):
            to_upright_rgb(Image.fromarray(np.full((4, 5), brightest, dtype=np.uint16)))
    assert to_upright_rgb(Image.fromarray(np.full((4, 5), 4096, dtype=np.uint16))).getpixel((0, 0)) == (16, 16, 16)


def test_orientation_that_is_no_number_is_refused():
    image = gradient_image()
    image.getexif()[0x0112] = "6"
    with pytest.raises(ValueError, match="The EXIF orientation must be a number from 1 to 8, got '6'"):
        to_upright_rgb(image)
    for unknown in (0, 9):
        image.getexif()[0x0112] = unknown
        assert to_upright_rgb(image) is image


# Logits to masks


def test_threshold_acts_on_probabilities():
    probabilities = torch.tensor([[0.2, 0.4], [0.6, 0.8]])[None, None]
    processor = EFPImageProcessor()
    for threshold, expected in ((0.3, [[0, 1], [1, 1]]), (0.5, [[0, 0], [1, 1]]), (0.7, [[0, 0], [0, 1]])):
        mask = processor.post_process_semantic_segmentation(outputs_of(probabilities), threshold=threshold)[0]
        assert mask.tolist() == expected


def test_probabilities_are_resized_and_then_cut():
    """Between probabilities 1 and 0.2 half-way is 0.6: lesion. Between their logits it is far above, of masks half."""
    probabilities = torch.tensor([[1.0 - 1e-7, 0.2]])[None, None]
    result = EFPImageProcessor().post_process_semantic_segmentation(
        outputs_of(probabilities), target_sizes=[(1, 4)], threshold=0.7, return_probabilities=True
    )[0]
    torch.testing.assert_close(result["probabilities"], torch.tensor([[1.0, 0.8, 0.4, 0.2]]), atol=1e-5, rtol=0)
    assert result["segmentation"].tolist() == [[True, True, False, False]]
    assert result["segmentation"].dtype == torch.bool


def test_each_mask_has_the_size_of_its_image():
    outputs = outputs_of(torch.rand(2, 1, 8, 8))
    masks = EFPImageProcessor().post_process_semantic_segmentation(outputs, target_sizes=[(30, 41), (7, 5)])
    assert [tuple(mask.shape) for mask in masks] == [(30, 41), (7, 5)]
    assert all(mask.dtype == torch.int64 for mask in masks)
    assert EFPImageProcessor().post_process_semantic_segmentation(outputs)[0].shape == (8, 8)


def test_largest_region_is_kept_and_its_holes_filled():
    drawing = ["#####..", "#...#..", "#.#.#.#", "#...#.#", "#####.."]
    mask = np.array([[pixel == "#" for pixel in row] for row in drawing])
    expected = np.zeros_like(mask)
    expected[:, :5] = True
    assert np.array_equal(keep_largest_region(mask), expected)
    assert not keep_largest_region(np.zeros((3, 3), bool)).any()
    outputs = SemanticSegmenterOutput(logits=with_background((torch.from_numpy(mask) * 2.0 - 1)[None, None] * SURE))
    processor = EFPImageProcessor(largest_region=True)
    assert np.array_equal(processor.post_process_semantic_segmentation(outputs)[0].numpy(), expected)
    plain = processor.post_process_semantic_segmentation(outputs, largest_region=False)[0]
    assert np.array_equal(plain.numpy(), mask)


def test_largest_region_is_that_of_scipy_on_any_mask():
    generator = np.random.default_rng(0)
    for share in (0.3, 0.45, 0.6, 0.9):
        mask = np.pad(generator.random((40, 50)) < share, ((3, 5), (7, 2)))
        regions, num_regions = ndimage.label(mask, structure=np.ones((3, 3)))
        sizes = ndimage.sum(mask, regions, range(1, num_regions + 1))
        assert np.array_equal(keep_largest_region(mask), ndimage.binary_fill_holes(regions == 1 + sizes.argmax()))


def test_diagonal_neighbours_are_one_region():
    mask = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=bool)
    assert np.array_equal(keep_largest_region(mask), np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=bool))


def test_more_labels_give_the_most_probable_one():
    logits = torch.randn(1, 4, 6, 6)
    result = EFPImageProcessor().post_process_semantic_segmentation(
        SemanticSegmenterOutput(logits=logits), return_probabilities=True
    )[0]
    assert torch.equal(result["segmentation"], logits[0].argmax(0))
    torch.testing.assert_close(result["probabilities"], logits[0].softmax(0))


def test_processor_is_saved_with_its_threshold_and_region_choice(tmp_path):
    choices = {"threshold": 0.4, "largest_region": True, "jaccard_temperature": 0.7}
    EFPImageProcessor(**choices, size={"height": 96, "width": 128}).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert {name: saved[name] for name in choices} == choices
    loaded = EFPImageProcessor.from_pretrained(tmp_path)
    assert {name: getattr(loaded, name) for name in choices} == choices
    assert (loaded.size["height"], loaded.size["width"]) == (96, 128)
    mask = loaded.post_process_semantic_segmentation(outputs_of(torch.full((1, 1, 2, 2), 0.45)))[0]
    assert mask.all()


@pytest.mark.parametrize("threshold", [0, 1, 1.5, -0.2])
def test_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(ValueError, match=f"`threshold` must be a probability between 0 and 1, got {threshold}"):
        EFPImageProcessor(threshold=threshold)
    with pytest.raises(ValueError, match="`threshold` must be a probability"):
        EFPImageProcessor().post_process_semantic_segmentation(outputs_of(torch.rand(1, 1, 2, 2)), threshold=threshold)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_impossible_jaccard_temperature_is_refused(temperature):
    message = f"temperature` must be a finite number above 0, got {temperature}"
    with pytest.raises(ValueError, match=f"`jaccard_{message}"):
        EFPImageProcessor(jaccard_temperature=temperature)
    processor = EFPImageProcessor()
    processor.jaccard_temperature = temperature
    with pytest.raises(ValueError, match=message):
        processor.post_process_semantic_segmentation(outputs_of(torch.rand(1, 1, 2, 2)), return_probabilities=True)


def test_another_number_of_target_sizes_is_refused():
    with pytest.raises(ValueError, match="`target_sizes` must be one .* an image, got 1 for 2"):
        EFPImageProcessor().post_process_semantic_segmentation(
            outputs_of(torch.rand(2, 1, 2, 2)), target_sizes=[(4, 4)]
        )


def test_expected_jaccard_of_a_drawing():
    """Inside 0.9 + 0.7 of 2 pixels, outside 0.2 + 0.4: overlap 1.6 over a union of 2 + 0.6."""
    probabilities = torch.tensor([[0.9, 0.2], [0.7, 0.4]])
    assert expected_jaccard(probabilities, probabilities > 0.5) == pytest.approx(1.6 / 2.6)
    assert expected_jaccard(probabilities, probabilities > 0.95) == pytest.approx(1 - 0.9)


def test_probabilities_come_with_the_expected_jaccard_of_their_mask():
    logits = with_background(torch.randn(2, 1, 8, 8))
    results = EFPImageProcessor().post_process_semantic_segmentation(
        SimpleNamespace(logits=logits), target_sizes=[(16, 12)] * 2, threshold=0.4, return_probabilities=True
    )
    for result in results:
        expected = expected_jaccard(result["probabilities"], result["segmentation"].bool())
        assert result["expected_jaccard"] == expected
    assert results[0]["expected_jaccard"] != results[1]["expected_jaccard"]


def test_expected_jaccard_is_that_of_probabilities_with_divided_logits():
    logits = torch.randn(1, 2, 8, 8)
    outputs = SimpleNamespace(logits=logits)
    result = EFPImageProcessor(jaccard_temperature=0.5).post_process_semantic_segmentation(
        outputs, return_probabilities=True
    )[0]
    lesion = logits[0, 1] - logits[0, 0]
    expected = expected_jaccard((2 * lesion).sigmoid(), result["segmentation"])
    assert result["expected_jaccard"] == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(result["probabilities"], logits[0].softmax(0)[1])
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    assert expected_jaccard(torch.full((2, 2), 0.2), nothing, temperature=0.5) == pytest.approx(0.8)
    certain = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert expected_jaccard(certain, torch.tensor([[True, False, False, False]]), 0.7) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("radius", [0.02, 0.3, 0.9])
def test_expected_jaccard_of_a_photo_is_that_of_all_its_pixels(radius, monkeypatch):
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 1600), torch.linspace(-1, 1, 2100), indexing="ij")
    probabilities = (8 * (radius - (rows - 0.3).hypot(columns)) / radius).sigmoid()
    mask = probabilities > 0.4
    read = expected_jaccard(probabilities, mask, 0.7)
    monkeypatch.setattr(image_processing_efp, "MIN_POINTS", 10**9)
    assert read == pytest.approx(expected_jaccard(probabilities, mask, 0.7), abs=2e-3)


def test_of_a_photo_some_rows_and_columns_are_read():
    probabilities = torch.full((1024, 1536), 0.1)
    probabilities[256:768] = 0.9
    mask = probabilities > 0.5
    expected = expected_jaccard(probabilities, mask)
    probabilities[::2] = torch.nan  # every second row is read, from the second on
    assert expected_jaccard(probabilities, mask) == pytest.approx(expected) == pytest.approx(0.9 / 1.1)


@pytest.mark.parametrize("row", [500, 501])
@pytest.mark.parametrize("point", [(0, 0), (1, 1)])
def test_expected_jaccard_of_a_photo_sees_a_thin_line(row, point):
    probabilities = torch.full((1024, 4096), 0.01)
    probabilities[row] = 0.9
    probabilities[point] = 0.9
    mask = probabilities > 0.5
    inside, outside = 4097 * 0.9, (mask.numel() - 4097) * 0.01
    assert expected_jaccard(probabilities, mask) == pytest.approx(inside / (4097 + outside))


def test_logits_of_one_channel_are_refused():
    with pytest.raises(ValueError, match="`outputs.logits` must have one channel a label, got 1. Export"):
        EFPImageProcessor().post_process_semantic_segmentation(SimpleNamespace(logits=torch.zeros(1, 1, 4, 4)))


def test_reduced_labels_are_refused_in_words():
    with pytest.raises(ValueError, match=r"`do_reduce_labels` must not be set: it would turn skin \(0\) into ignored"):
        EFPImageProcessor()(gradient_image(), do_reduce_labels=True)
    assert "pixel_values" in EFPImageProcessor()(gradient_image(), do_reduce_labels=False)


def test_upright_rgb_image_is_handed_on_without_a_copy():
    image = gradient_image()
    assert to_upright_rgb(image) is image
