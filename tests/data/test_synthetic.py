"""Synthetic images: the mask is the lesion that the eye sees, and a seed is a picture."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from efp_hf.data.files import read_image, read_mask
from efp_hf.data.folders import find_folders
from efp_hf.data.names import find_pairs
from efp_hf.data.synthetic import EXAMPLE_SEEDS, EXAMPLE_SIZE, draw_lesion, write_examples, write_synthetic_isic

SEEDS = range(40)


def to_arrays(drawing) -> tuple[np.ndarray, np.ndarray]:
    """Brightness in 0..255 and boolean mask."""
    image, mask = drawing
    return np.asarray(image.convert("L"), dtype=float), np.asarray(mask) > 0


def contrast(brightness: np.ndarray, mask: np.ndarray) -> float:
    """Brightness of the skin in a ring around the mask minus that within the mask."""
    ring = ndimage.binary_dilation(mask, iterations=8) & ~mask
    return brightness[ring].mean() - brightness[mask].mean()


@pytest.fixture(scope="module")
def drawings():
    return [to_arrays(draw_lesion(seed, 128, 128)) for seed in SEEDS]


@pytest.fixture(scope="module")
def isic_root(tmp_path_factory):
    return write_synthetic_isic(tmp_path_factory.mktemp("data") / "synthetic", num_images=3, height=48, width=64)


def test_same_seed_gives_the_same_pixels():
    for first, second in zip(draw_lesion(7, 96, 128), draw_lesion(7, 96, 128), strict=True):
        np.testing.assert_array_equal(np.asarray(first), np.asarray(second))


def test_other_seeds_give_other_images_and_masks():
    drawn = [draw_lesion(seed, 64, 64) for seed in range(10)]
    assert len({image.tobytes() for image, _ in drawn}) == 10
    assert len({mask.tobytes() for _, mask in drawn}) == 10


def test_same_seed_is_the_same_scene_at_another_size():
    for seed in range(5):
        (small, small_mask), (large, large_mask) = draw_lesion(seed, 96, 128), draw_lesion(seed, 192, 256)
        difference = np.asarray(small, dtype=float) - np.asarray(large.reduce(2), dtype=float)
        assert np.abs(difference).mean() < 5
        enlarged = np.asarray(small_mask.resize(large.size, Image.Resampling.NEAREST)) > 0
        assert (enlarged != (np.asarray(large_mask) > 0)).mean() < 0.02


def test_mask_is_0_and_255_and_has_the_size_of_the_image():
    for seed in range(5):
        image, mask = draw_lesion(seed, height=60, width=90)
        assert (image.mode, image.size) == ("RGB", (90, 60))
        assert (mask.mode, mask.size) == ("L", (90, 60))
        assert np.unique(np.asarray(mask)).tolist() == [0, 255]


def test_lesions_are_small_and_large():
    shares = [to_arrays(draw_lesion(seed, 64, 64))[1].mean() for seed in SEEDS]
    assert 0.02 < min(shares) < 0.1
    assert 0.35 < max(shares) < 0.46
    assert 0.15 < np.mean(shares) < 0.25


def test_some_lesions_are_cut_by_the_border_of_the_image(drawings):
    num_cut = sum(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any() for _, mask in drawings)
    assert 0 < num_cut < len(drawings) / 2


def test_lesion_is_darker_than_the_skin_around_it(drawings):
    contrasts = [contrast(brightness, mask) for brightness, mask in drawings]
    assert np.mean(np.array(contrasts) > 5) > 0.95
    assert min(contrasts) < 35 < 80 < max(contrasts)  # faint lesions and plain ones


@pytest.mark.parametrize("shift", [(10, 0), (-10, 0), (0, 10), (0, -10)])
def test_mask_lies_on_the_lesion_and_not_beside_it(drawings, shift):
    is_better = [
        contrast(brightness, mask) > contrast(brightness, ndimage.shift(mask, shift, order=0))
        for brightness, mask in drawings
    ]
    assert np.mean(is_better) > 0.95


def test_too_small_a_drawing_is_refused():
    with pytest.raises(ValueError, match="`height` and `width` must be at least 32, got 31×64"):
        draw_lesion(0, 31, 64)


def test_written_folder_is_read_as_isic_2018(isic_root):
    assert sorted(folder.name for folder in isic_root.iterdir()) == [
        "ISIC2018_Task1-2_Training_Input",
        "ISIC2018_Task1_Training_GroundTruth",
    ]
    images, masks = find_folders(isic_root)["train"]
    pairs = find_pairs(isic_root / images, isic_root / masks)
    assert [image_id for image_id, _, _ in pairs] == ["ISIC_9000000", "ISIC_9000001", "ISIC_9000002"]
    assert pairs[0][2].name == "ISIC_9000000_segmentation.png"
    for _, image_path, mask_path in pairs:
        assert read_image(image_path).size == (64, 48)
        assert read_mask(mask_path).shape == (48, 64)


def test_written_pair_is_the_drawing_of_its_number(isic_root):
    image, mask = draw_lesion(2, 48, 64)
    written = read_mask(isic_root / "ISIC2018_Task1_Training_GroundTruth" / "ISIC_9000002_segmentation.png")
    np.testing.assert_array_equal(written, np.asarray(mask) > 0)
    written = read_image(isic_root / "ISIC2018_Task1-2_Training_Input" / "ISIC_9000002.jpg")
    assert np.abs(np.asarray(written, dtype=float) - np.asarray(image)).mean() < 6


def test_written_image_says_that_it_is_synthetic(isic_root):
    with Image.open(isic_root / "ISIC2018_Task1-2_Training_Input" / "ISIC_9000000.jpg") as image:
        assert b"synthetic" in image.info["comment"]


def test_another_seed_writes_other_images(isic_root, tmp_path):
    other = write_synthetic_isic(tmp_path / "synthetic", num_images=1, height=48, width=64, seed=1)
    name = "ISIC2018_Task1_Training_GroundTruth/ISIC_9000000_segmentation.png"
    assert (other / name).read_bytes() != (isic_root / name).read_bytes()


def test_existing_folder_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=rf"`root` must be a new or an empty folder, got {tmp_path}\. Remove it"):
        write_synthetic_isic(tmp_path, num_images=1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_existing_empty_folder_is_filled(tmp_path):
    root = tmp_path / "synthetic"
    root.mkdir()
    write_synthetic_isic(root, num_images=1, height=32, width=32)
    assert len(list(root.rglob("ISIC_9*"))) == 2


def test_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="at least 32"):
        write_synthetic_isic(tmp_path / "synthetic", height=16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_images", [0, 1_000_001])
def test_number_of_images_that_has_no_ids_is_refused(tmp_path, num_images):
    with pytest.raises(ValueError, match=f"`num_images` must be in 1..1000000, got {num_images}"):
        write_synthetic_isic(tmp_path / "synthetic", num_images=num_images)


def test_committed_examples_are_what_the_command_draws(pytestconfig, tmp_path):
    examples = pytestconfig.rootpath / "examples"
    write_examples(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in examples.iterdir() if path.suffix in (".jpg", ".png"))
    assert len(names) == 2 * len(EXAMPLE_SEEDS)
    for name in names:
        drawn, committed = (np.asarray(Image.open(folder / name), dtype=float) for folder in (tmp_path, examples))
        assert drawn.shape[:2] == EXAMPLE_SIZE
        if name.endswith("_segmentation.png"):
            np.testing.assert_array_equal(drawn, committed)
        else:
            assert np.abs(drawn - committed).mean() < 1  # of 255: another JPEG library rounds otherwise
