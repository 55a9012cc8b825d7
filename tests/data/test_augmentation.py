from collections import Counter

import albumentations as A
import numpy as np

from efp_hf.data.augmentation import Hairs, spoiling, training_augmentation


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A white lesion on dark skin, so that the image shows where the mask has to be."""
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[14:38, 20:52] = 1
    return np.repeat(mask[:, :, None] * 200 + 30, 3, axis=2).astype(np.uint8), mask


def augmented(seed: int) -> tuple[np.ndarray, np.ndarray]:
    augmentation = training_augmentation()
    augmentation.set_random_seed(seed)
    image, mask = scene()
    changed = augmentation(image=image, mask=mask)
    return changed["image"], changed["mask"]


def test_mask_goes_with_its_image():
    overlaps = []
    for seed in range(40):
        image, mask = augmented(seed)
        bright = image.astype(int).sum(2) > 330
        overlaps.append((bright & (mask == 1)).sum() / (bright | (mask == 1)).sum())
    assert min(overlaps) > 0.7 and np.mean(overlaps) > 0.93  # hairs cross the lesion


def test_mask_keeps_its_values_and_the_image_its_type():
    for seed in range(20):
        image, mask = augmented(seed)
        assert set(np.unique(mask)) <= {0, 1}
        assert (image.dtype, image.shape, mask.shape) == (np.uint8, (64, 64, 3), (64, 64))


def test_mask_gets_no_values_between_its_own():
    image, mask = scene()
    for seed in range(10):
        augmentation = training_augmentation()
        augmentation.set_random_seed(seed)
        assert set(np.unique(augmentation(image=image, mask=mask * 9)["mask"])) <= {0, 9}


def test_lesion_is_moved_turned_scaled_and_recoloured():
    areas, centres, colours = [], [], []
    for seed in range(40):
        image, mask = augmented(seed)
        areas.append(mask.sum())
        centres.append(np.argwhere(mask).mean(0))
        colours.append(image[mask == 1].mean())
    original = scene()[1].sum()
    assert min(areas) < 0.7 * original and max(areas) > 1.4 * original
    assert np.std(centres, axis=0).min() > 3
    assert np.std(colours) > 5


def test_same_seed_gives_the_same_change():
    for one, other in zip(augmented(7), augmented(7), strict=True):
        assert np.array_equal(one, other)
    assert not np.array_equal(augmented(7)[0], augmented(8)[0])


def test_a_quarter_of_the_images_is_spoilt_in_one_of_six_ways():
    image, mask = np.full((64, 64, 3), (200, 120, 90), np.uint8), np.ones((64, 64), np.uint8)
    chosen = Counter()
    for seed in range(400):
        spoil = A.Compose([spoiling()], save_applied_params=True)
        spoil.set_random_seed(seed)
        changed = spoil(image=image, mask=mask)
        assert changed["mask"].all()
        chosen.update(name for name, _ in changed["applied_transforms"] if name != "OneOf")
    assert set(chosen) == {"Hairs", "GaussNoise", "ImageCompression", "ToGray", "GaussianBlur", "Downscale"}
    assert 0.19 < chosen.total() / 400 < 0.31


def test_hairs_are_thin_and_dark_and_leave_the_mask():
    image, mask = np.full((256, 256, 3), 220, np.uint8), np.ones((256, 256), np.uint8)
    hairs = A.Compose([Hairs(number_range=(6, 6), p=1)])
    hairs.set_random_seed(1)
    changed = hairs(image=image, mask=mask)
    drawn = (changed["image"] < 200).all(-1)
    assert 0.003 < drawn.mean() < 0.05 and changed["image"][drawn].min() < 80
    assert changed["mask"].all() and (image == 220).all()
