import albumentations as A
import numpy as np

from efp_hf.data.augmentation import DarkCorners, Hairs, training_augmentation


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
    assert min(overlaps) > 0.8 and np.mean(overlaps) > 0.93


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


def test_other_cameras_changes_more_than_the_light():
    def colour_balances(other_cameras: bool) -> np.ndarray:
        """Red over green of a grey scene, under forty seeds."""
        balances = []
        for seed in range(40):
            augmentation = training_augmentation(other_cameras)
            augmentation.set_random_seed(seed)
            image = augmentation(image=scene()[0], mask=scene()[1])["image"].astype(float)
            balances.append(image[..., 0].sum() / image[..., 1].sum())
        return np.array(balances)

    assert colour_balances(False).std() < 0.01 < 0.03 < colour_balances(True).std()
    names = {type(change).__name__ for change in training_augmentation(other_cameras=True)}
    assert {"Hairs", "DarkCorners", "Downscale", "GaussNoise"} <= names


def test_dark_corners_take_lesion_and_image_alike():
    image, mask = np.full((40, 60, 3), 200, np.uint8), np.ones((40, 60), np.uint8)
    changed = A.Compose([DarkCorners(radius_range=(1.0, 1.0), p=1)])(image=image, mask=mask)
    visible = changed["mask"] == 1
    assert np.array_equal(changed["image"].any(-1), visible)
    assert visible[20, 30] and visible[20, 1] and visible[1, 30] and not visible[0, 0] and not visible[-1, -1]
    assert abs(visible.mean() - np.pi / 4) < 0.03


def test_hairs_are_thin_and_dark_and_leave_the_mask():
    image, mask = np.full((256, 256, 3), 220, np.uint8), np.ones((256, 256), np.uint8)
    hairs = A.Compose([Hairs(number_range=(6, 6), p=1)])
    hairs.set_random_seed(1)
    changed = hairs(image=image, mask=mask)
    drawn = (changed["image"] < 200).all(-1)
    assert 0.003 < drawn.mean() < 0.05 and changed["image"][drawn].min() < 80
    assert changed["mask"].all() and (image == 220).all()
