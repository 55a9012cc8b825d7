import albumentations as A
import numpy as np
import pytest
from datasets import Dataset

from efp_hf.data.folders import load_isic
from efp_hf.data.synthetic import draw_lesion, write_synthetic_isic
from efp_hf.study.robustness import CHANGES, DarkCorners, change_images


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawings")
    images = write_synthetic_isic(folder / "images", 20, 96, 128)
    return load_isic(images, cache_dir=folder / "cache")["test"]


@pytest.mark.parametrize("name", CHANGES)
def test_change_is_visible_and_the_same_every_time(dataset, name):
    row, again, before = change_images(dataset, name)[0], change_images(dataset, name)[0], dataset[0]
    image, mask = np.array(row["image"]), np.array(row["mask"])
    assert np.array_equal(image, np.array(again["image"]))
    assert (image.shape, mask.shape) == ((96, 128, 3), (96, 128)) and row["image_id"] == before["image_id"]
    assert set(np.unique(mask)) <= {0, 255}
    difference = np.abs(image.astype(int) - np.array(before["image"])).mean()
    assert difference == 0 if name == "none" else difference > 1
    if name != "dark corners":
        assert np.array_equal(mask, np.array(before["mask"]))


@pytest.mark.parametrize("name", ["noise", "hairs"])
def test_what_is_drawn_depends_on_the_image_alone(dataset, name):
    forwards, backwards = change_images(dataset, name), change_images(dataset, name)
    images = [np.array(forwards[k]["image"]) for k in (0, 1)]
    for k in (1, 0):
        assert np.array_equal(np.array(backwards[k]["image"]), images[k])
    drawn = [image - np.array(row["image"], dtype=float) for image, row in zip(images, dataset, strict=False)]
    assert not np.array_equal(*drawn)


def test_large_images_are_reduced_before_they_are_changed():
    image, mask = draw_lesion(0, 300, 512)
    row = change_images(Dataset.from_list([{"image_id": "a", "image": image, "mask": mask}]), "out of focus")[0]
    assert row["image"].size == row["mask"].size == (256, 150)


def test_lights_have_their_colours(dataset):
    def mean_colour(name: str) -> np.ndarray:
        return np.array(change_images(dataset, name)[0]["image"]).mean((0, 1))

    plain = mean_colour("none")
    warm, cold = mean_colour("warm light") - plain, mean_colour("cold light") - plain
    assert warm[0] > 5 and warm[2] < -5 and cold[0] < -5 and cold[2] > 5
    assert mean_colour("dark").sum() < plain.sum() - 20 and mean_colour("bright").sum() > plain.sum() + 20
    assert np.ptp(mean_colour("grey")) < 0.5


def test_dark_corners_take_lesion_and_image_alike():
    image, mask = np.full((40, 60, 3), 200, np.uint8), np.ones((40, 60), np.uint8)
    changed = A.Compose([DarkCorners(radius_range=(1.0, 1.0), p=1)])(image=image, mask=mask)
    visible = changed["mask"] == 1
    assert np.array_equal(changed["image"].any(-1), visible)
    assert visible[20, 30] and visible[20, 1] and visible[1, 30] and not visible[0, 0] and not visible[-1, -1]
    assert abs(visible.mean() - np.pi / 4) < 0.03
