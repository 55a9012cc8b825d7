"""The notes on images with one thing wrong."""

import re

import numpy as np
import pytest
from PIL import Image, ImageFilter

from efp_hf.lesion.notes import (
    CUT_FROM,
    MAX_BRIGHTNESS,
    MAX_BURNT_OUT,
    MIN_BRIGHTNESS,
    MIN_CONTRAST,
    MIN_LESION_SHARE,
    MIN_SHARPNESS,
    image_features,
    image_notes,
    reduce,
)

SKIN, LESION = (205, 165, 145), (125, 80, 65)


def draw(
    height: int = 256,
    width: int = 340,
    radius: float = 60,
    centre: tuple[float, float] = (0.5, 0.5),
    skin: tuple = SKIN,
    lesion: tuple = LESION,
) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of a disk on skin, with a grain; the radius is in pixels of an image of 256."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    scale = min(height, width) / 256
    mask = np.hypot(rows - centre[0] * height, columns - centre[1] * width) < radius * scale
    cells = Image.fromarray(rng.normal(0, 8, (100, 100)).astype(np.float32))  # the same grain at any size
    grain = np.asarray(cells.resize((width, height), Image.Resampling.BICUBIC))
    image = np.where(mask[..., None], lesion, skin) + grain[..., None]
    return np.clip(np.round(image), 0, 255).astype(np.uint8), mask


def notes(image: np.ndarray, mask: np.ndarray, probability: float = 0.95) -> list[str]:
    return image_notes(image, mask, np.where(mask, probability, 0.02))


def test_plain_image_has_no_notes():
    assert notes(*draw()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"skin": (70, 50, 40), "lesion": (20, 12, 8)}, "under-exposed, or the skin is darker"),
        ({"skin": (245, 238, 235)}, "over-exposed"),
        ({"lesion": (203, 164, 143)}, "hardly differs in colour"),
        ({"centre": (0.5, 0.05)}, "cut by the image's border"),
        ({"radius": 5}, r"very small: 0\.\d\d% of the image"),
    ],
)
def test_image_with_one_thing_wrong_has_that_one_note(changes, words):
    found = notes(*draw(**changes))
    assert len(found) == 1
    assert re.search(words, found[0])


def test_blurred_image_is_called_blurred():
    image, mask = draw()
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(3)))
    assert notes(blurred, mask) == ["The image is blurred: it shows less detail than nearly all training images."]


def test_burnt_out_patch_is_over_exposed():
    image, mask = draw()
    image[:40, :60] = 255
    assert ["over-exposed" in note for note in notes(image, mask)] == [True]


def test_bright_red_skin_is_not_burnt_out():
    assert notes(*draw(skin=(255, 200, 190))) == []


def test_dark_corners_do_not_make_an_image_dark():
    image, mask = draw()
    rows, columns = np.mgrid[-1:1:256j, -1:1:340j]
    image[np.hypot(rows, columns) > 1.05] = 0
    assert notes(image, mask) == []


def test_no_lesion_is_said_with_the_highest_probability_and_nothing_of_its_shape():
    image, mask = draw()
    probabilities = np.where(mask, 0.31, 0.02)
    found = image_notes(image, np.zeros_like(mask), probabilities)
    assert found == ["No lesion was found: the highest probability is 0.31."]


def test_second_region_is_counted_and_a_speck_is_not():
    image, mask = draw()
    mask[10:13, 10:13] = image[10:13, 10:13, 0] > 0
    assert notes(image, mask) == []
    mask[10:30, 10:30] = True
    assert ["2 separate regions" in note for note in notes(image, mask)] == [True]


def test_lesion_over_the_whole_image_is_cut_and_has_no_skin_to_compare_with():
    image, mask = draw()
    everything = np.ones_like(mask)
    assert ["cut by" in note for note in notes(image, everything)] == [True]
    assert image_features(image, everything)["contrast"] is None


def test_mask_that_only_touches_the_border_is_not_cut():
    image, mask = draw(centre=(60 / 256, 0.5))
    mask[0, 168:172] = True
    assert mask[0].any()
    assert notes(image, mask) == []


def test_each_note_comes_beyond_its_threshold():
    image, mask = draw()
    plain = image_features(image, mask)
    assert plain["sharpness"] > MIN_SHARPNESS and plain["contrast"] > MIN_CONTRAST
    assert MIN_BRIGHTNESS < plain["brightness"] < MAX_BRIGHTNESS
    assert plain["burnt_out"] < MAX_BURNT_OUT and plain["border"] < CUT_FROM
    assert plain["lesion_share"] == mask.mean() > MIN_LESION_SHARE


def test_contrast_is_the_distance_in_cielab_from_the_skin_nearby():
    image, mask = draw(skin=(119, 119, 119), lesion=(0, 0, 0))
    image[mask], image[~mask] = 0, 119
    assert image_features(image, mask)["contrast"] == pytest.approx(50, abs=0.5)  # grey 119 has L* = 50
    image[:, :90] = 255  # far from the lesion
    assert image_features(image, mask)["contrast"] == pytest.approx(50, abs=0.5)


@pytest.mark.parametrize("size", [(512, 680), (1024, 1360), (1360, 1024)])
def test_features_do_not_depend_on_the_size_of_the_image(size):
    small = image_features(*draw(*(length * 256 // min(size) for length in size)))
    large = image_features(*draw(*size))
    assert large["sharpness"] == pytest.approx(small["sharpness"], rel=0.1)
    assert large["brightness"] == pytest.approx(small["brightness"], abs=1)
    assert large["lesion_share"] == pytest.approx(small["lesion_share"], rel=0.02)
    assert large["contrast"] == pytest.approx(small["contrast"], rel=0.05)
    assert large["regions"] == small["regions"] == 1


def test_small_sharp_image_is_judged_at_the_reduced_size_too():
    image, mask = draw(64, 85)
    assert image_features(image, mask)["contrast"] == pytest.approx(image_features(*draw())["contrast"], rel=0.1)


def test_lesion_of_one_pixel_in_a_large_image_is_very_small():
    image, mask = draw(1024, 1360, radius=0)
    mask[500, 600] = True
    assert [note.split(":")[0] for note in notes(image, mask)] == ["The lesion is very small"]


def test_notes_refuse_an_image_of_another_size():
    image, mask = draw()
    with pytest.raises(ValueError, match=r"image is 256×339, mask 256×340\. A mask must have the size of its image"):
        notes(image[:, 1:], mask)


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan])
def test_values_that_are_no_probabilities_are_refused(value):
    probabilities = np.full((4, 4), 0.5)
    probabilities[1, 2] = value
    with pytest.raises(ValueError, match=r"`probabilities` must be in \[0, 1\], got .* Turn logits into"):
        image_notes(np.zeros((4, 4, 3), np.uint8), probabilities > 0.4, probabilities)


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 4)])
def test_probabilities_of_another_shape_are_refused(shape):
    message = f"`probabilities` must have the shape of the mask, got {shape} for (4, 4)."
    with pytest.raises(ValueError, match=re.escape(message)):
        image_notes(np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), dtype=bool), np.zeros(shape))


def test_trust_of_a_strip_is_quick_and_small():
    """Enlarged to 256 pixels of height this strip would have two billion pixels."""
    image, mask = np.zeros((1, 30_000, 3), np.uint8), np.zeros((1, 30_000), bool)
    assert reduce(image, mask)[1].shape == (1, 1024)
