"""
Synthetic dermoscopy-like images and their masks, drawn by code, for examples, tests and a first training run.

    python -m efp_hf.data.synthetic examples
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.spatial import KDTree
from scipy.special import expit, softmax

EXAMPLE_SEEDS = (26, 19, 15, 24)  # hairs, a ruler, dark corners, low contrast
EXAMPLE_SIZE = (450, 600)  # height, width
JPEG = {"quality": 92, "comment": b"synthetic: drawn by code, not a photograph"}
OVERSAMPLING = 3  # lines and discs are drawn this much larger and reduced, for smooth edges

SKIN_TONES = np.array([[238, 198, 186], [224, 174, 150], [196, 146, 116], [126, 84, 64]])  # RGB, light to dark
STICKERS = np.array([[60, 110, 190], [70, 160, 90], [225, 195, 70], [200, 60, 60]])  # RGB
# share of red, green and blue light that passes, and how often: light, dark and black brown, blue-grey, red
PIGMENTS = np.array(
    [[0.62, 0.46, 0.38], [0.42, 0.30, 0.26], [0.27, 0.21, 0.21], [0.50, 0.50, 0.56], [0.80, 0.56, 0.55]]
)
PIGMENT_SHARES = (0.3, 0.25, 0.17, 0.1, 0.18)


def draw_lesion(seed: int, height: int = 256, width: int = 256) -> tuple[Image.Image, Image.Image]:
    """
    A synthetic image (RGB) and its mask (L, 0 and 255): the lesion as drawn, also below hairs.

    The same seed gives the same pixels, and the same scene at another size of the same proportions.

    Raises:
        ValueError: a side below 32 pixels.
    """
    if min(height, width) < 32:
        raise ValueError(f"`height` and `width` must be at least 32, got {height}×{width}. Draw it larger.")
    rng = np.random.default_rng(seed)
    view = rng.random()  # an off-centre lesion gets no dark corners, which would hide it
    distance = draw_shape(rng, height, width, spread=0.22 if view < 0.2 else 0.05)
    image = add_pigment(rng, draw_skin(rng, height, width), distance)
    for add, probability in ((add_bubbles, 0.3), (add_sticker, 0.12), (add_hairs, 0.45), (add_ruler, 0.25)):
        if rng.random() < probability:
            image = add(rng, image)
    if view > 0.65:
        image = add_dark_corners(rng, image)
    image = np.clip(np.round(image), 0, 255).astype(np.uint8)
    return Image.fromarray(image), Image.fromarray((distance < 0).astype(np.uint8) * 255)


def write_synthetic_isic(
    root: str | Path, num_images: int = 60, height: int = 128, width: int = 128, seed: int = 0
) -> Path:
    """
    Writes synthetic pairs in the layout of the ISIC 2018 training archives → `root`.

    The ids start with ISIC_9, as no real one does. With seed 0, `ISIC_9000012` is `draw_lesion(12)`.

    Raises:
        FileExistsError: `root` is a file or a folder with files. It is left as it is.
        ValueError: `num_images` outside 1..1000000, or a side below 32 pixels.
    """
    root = Path(root).expanduser().absolute()
    if not 1 <= num_images <= 1_000_000:
        raise ValueError(f"`num_images` must be in 1..1000000, got {num_images}. The ids have six free digits.")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"`root` must be a new or an empty folder, got {root}. Remove it or pass another one.")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as partial:
        images = Path(partial, root.name, "ISIC2018_Task1-2_Training_Input")
        masks = Path(partial, root.name, "ISIC2018_Task1_Training_GroundTruth")
        images.mkdir(parents=True)
        masks.mkdir()
        for number in range(num_images):
            image, mask = draw_lesion(seed * 1_000_000 + number, height, width)
            image.save(images / f"ISIC_9{number:06d}.jpg", **JPEG)
            mask.save(masks / f"ISIC_9{number:06d}_segmentation.png")
        if root.exists():
            root.rmdir()  # empty
        images.parent.rename(root)
    return root


def write_examples(folder: str | Path) -> None:
    """Writes `synthetic_<n>.jpg` and `synthetic_<n>_segmentation.png`, over those that are there."""
    for number, seed in enumerate(EXAMPLE_SEEDS, start=1):
        image, mask = draw_lesion(seed, *EXAMPLE_SIZE)
        image.save(Path(folder, f"synthetic_{number}.jpg"), **JPEG)
        mask.save(Path(folder, f"synthetic_{number}_segmentation.png"))


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Noise of about unit size: `cells` blobs along each side, however large the image is."""
    noise = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    return np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)


def centred_grid(height: int, width: int) -> np.ndarray:
    """y and x from the image's centre `(2, height, width)`, in units of √(height · width)."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([y - height / 2, x - width / 2]) / np.sqrt(height * width)


def draw_shape(rng: np.random.Generator, height: int, width: int, spread: float) -> np.ndarray:
    """
    Distance of every pixel from the lesion's border over its radius: -1 in its centre, 0 on the border.

    An ellipse whose radius is a random Fourier series of the angle, on a plane warped by noise, cut at the level that
    gives the lesion its share of the image.
    """
    share = 0.025 + 0.425 * rng.beta(1.2, 1.8)
    centre = np.clip(rng.normal(0, spread, (2, 1, 1)), -0.36, 0.36)
    warp = [0.05 * smooth_noise(rng, height, width, 8) + 0.009 * smooth_noise(rng, height, width, 40) for _ in "yx"]
    y, x = centred_grid(height, width) - centre + np.sqrt(share) * np.stack(warp)
    angle, elongation = rng.uniform(0, np.pi), np.exp(np.abs(rng.normal(0, 0.2)))
    along = (np.cos(angle) * x + np.sin(angle) * y) / elongation
    across = (np.cos(angle) * y - np.sin(angle) * x) * elongation
    order = np.arange(2, 8)[:, None, None]
    phase = order * np.arctan2(across, along) + rng.uniform(0, 2 * np.pi, order.shape)
    waves = rng.uniform(0.05, 0.25) * rng.normal(0, 1, order.shape) / order * np.cos(phase)
    distance = np.hypot(along, across) / np.clip(1 + waves.sum(0), 0.5, None)
    return distance / np.quantile(distance, share) - 1


def draw_skin(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """RGB `(height, width, 3)` in 0..255: one tone in uneven light, redder patches, fine grain."""
    tone = (len(SKIN_TONES) - 1) * rng.random() ** 1.3  # dark skin is rarer in the archives
    colour = [np.interp(tone, np.arange(len(SKIN_TONES)), channel) for channel in SKIN_TONES.T]
    light, patches, relief, grain = (smooth_noise(rng, height, width, cells) for cells in (3, 10, 50, 240))
    light = 1 + 0.06 * light + 0.02 * relief + 0.03 * grain
    redness = 1 - patches[..., None] * [0, 0.02, 0.018]
    return colour * rng.normal(1, 0.03, 3) * light[..., None] * redness


def add_pigment(rng: np.random.Generator, image: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Two or three pigments within the border, with network or dots. Half of each is left on the border itself."""
    height, width = distance.shape
    contrast = rng.uniform(0.3, 0.45) if rng.random() < 0.2 else rng.uniform(0.65, 1.1)
    pigments = PIGMENTS[rng.choice(len(PIGMENTS), rng.integers(2, 4), p=PIGMENT_SHARES)]
    shares = softmax([4 * smooth_noise(rng, height, width, 5) for _ in pigments], axis=0)
    absorption = sum(share[..., None] * -np.log(pigment) for share, pigment in zip(shares, pigments, strict=True))
    gradient = rng.uniform(-0.5, 0.3) * np.clip(distance + 0.5, -0.5, 0.5)  # a darker centre or a darker rim
    grain = 0.1 * smooth_noise(rng, height, width, 30) + 0.12 * smooth_noise(rng, height, width, 110)
    depth = contrast * np.clip(1 + gradient + grain + draw_texture(rng, distance), 0.2, None)
    softness = rng.uniform(0.02, 0.07) * np.exp(0.4 * smooth_noise(rng, height, width, 5))
    return image * np.exp(-(depth * expit(-distance / softness))[..., None] * absorption)


def draw_texture(rng: np.random.Generator, distance: np.ndarray) -> np.ndarray:
    """Extra pigment in patches: the lines of a honeycomb (a pigment network), or dots in its cells."""
    cells, strength, is_network = rng.integers(34, 60), rng.uniform(0.2, 0.6), rng.random() < 0.6
    points = np.argwhere(np.ones((cells, cells))) + rng.uniform(0, 0.8, (cells**2, 2))
    pixels = np.argwhere(distance < 0.3)
    nearest, second = KDTree(points).query((pixels + 0.5) / distance.shape * cells, k=2)[0].T
    texture = np.zeros(distance.shape)
    texture[tuple(pixels.T)] = np.exp(-(((second - nearest if is_network else nearest) / 0.25) ** 2))
    return strength * texture * expit(3 * smooth_noise(rng, *distance.shape, 5))


def add_marks(image: np.ndarray, colour: np.ndarray, lines: list = (), discs: list = ()) -> np.ndarray:
    """Lines (points, width, opacity) and discs (centre, radius, opacity): points as x, y in 0..1, opacity to 255."""
    size = np.array(image.shape[1::-1]) * OVERSAMPLING
    unit = np.sqrt(size.prod())
    canvas = Image.new("L", tuple(size.tolist()))
    pen = ImageDraw.Draw(canvas)
    for points, line_width, opacity in lines:
        pen.line((points * size).ravel().tolist(), fill=opacity, width=max(1, round(unit * line_width)))
    for centre, radius, opacity in discs:
        pen.circle((centre * size).tolist(), unit * radius, fill=opacity)
    return image + (colour - image) * (np.asarray(canvas.reduce(OVERSAMPLING)) / 255)[..., None]


def add_hairs(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Dark quadratic Bézier curves, mostly along one direction."""
    step = np.linspace(0, 1, 24)[:, None]
    growth = rng.uniform(0, np.pi)
    hairs = []
    for _ in range(rng.integers(3, 18)):
        angle, middle = rng.normal(growth, 0.4), rng.uniform(0, 1, 2)
        half = rng.uniform(0.15, 0.6) * np.array([np.cos(angle), np.sin(angle)])
        bend = middle + rng.normal(0, 0.15, 2)
        points = (1 - step) ** 2 * (middle - half) + 2 * step * (1 - step) * bend + step**2 * (middle + half)
        hairs.append((points, rng.uniform(0.003, 0.007), 225))
    return add_marks(image, np.array([52, 36, 30]) * rng.uniform(0.4, 1.5), lines=hairs)


def add_ruler(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """White or black ticks along one side, every fifth one longer."""
    axis, is_far, inset = rng.integers(0, 2), rng.random() < 0.5, rng.uniform(0.01, 0.05)
    ticks = []
    for number, at in enumerate(np.arange(0.02, 0.98, rng.uniform(0.018, 0.035))):
        tick = np.full((2, 2), at)  # two ends, x and y
        tick[:, axis] = np.abs(is_far - np.array([inset, inset + (0.035 if number % 5 else 0.065)]))
        ticks.append((tick, 0.004, 220))
    return add_marks(image, np.full(3, rng.choice([25, 240])), lines=ticks)


def add_sticker(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A coloured disc around one of the corners."""
    disc = (rng.integers(0, 2, 2), rng.uniform(0.12, 0.2), 245)
    return add_marks(image, rng.choice(STICKERS) * rng.uniform(0.8, 1.1), discs=[disc])


def add_bubbles(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Bubbles of the immersion gel: bright rims with a highlight."""
    discs = []
    for _ in range(rng.integers(4, 20)):
        centre, radius = rng.uniform(0, 1, 2), rng.uniform(0.004, 0.02)
        discs += [(centre, radius, 90), (centre, 0.8 * radius, 25), (centre - 0.35 * radius, 0.3 * radius, 200)]
    return add_marks(image, np.full(3, 250), discs=discs)


def add_dark_corners(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Black outside of the round view of the dermatoscope."""
    radius = np.hypot(*(centred_grid(*image.shape[:2]) - rng.normal(0, 0.02, (2, 1, 1))))
    return image * expit((rng.uniform(0.52, 0.66) - radius) / rng.uniform(0.004, 0.03))[..., None]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draws the synthetic examples.")
    parser.add_argument("folder", help="existing folder; the examples in it are replaced")
    write_examples(parser.parse_args().folder)
