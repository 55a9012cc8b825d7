import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before the first import of a Hugging Face library
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes: a core each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from efp_hf import EFPConfig, EFPForSegmentation, EFPImageProcessor
from efp_hf.configuration_efp import MULTI_LABEL
from efp_hf.data.structures import STRUCTURE_FOLDERS
from efp_hf.data.synthetic import draw_lesion, write_synthetic_isic
from efp_hf.inference.checkpoint import load_checkpoint
from efp_hf.lesion.structures import MASK_NAME, STRUCTURES
from efp_hf.modeling_efp import EFPScore
from efp_hf.page.photo import SegmentedPhoto
from efp_hf.training.overlap import with_thresholds
from efp_hf.training.structures import with_structures

REPOSITORY = Path(__file__).resolve().parents[1]
CHROMIUM = shutil.which("chromium")
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
TINY = {
    "hidden_sizes": (4, 6, 8, 10),
    "depths": (1, 1, 1, 1),
    "pyramid_size": 6,
    "head_size": 6,
    "cross_scale_kernel_size": 3,
}


def pytest_addoption(parser):
    # here, as pytest reads a conftest of a deeper folder too late for an option when the tests run without a path
    parser.addoption("--record", metavar="PATH", help="append the counts of the tests under tests/hostile to this CSV")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def quiet_cache(tmp_path_factory, monkeypatch):
    """Datasets of the tests leave nothing in the user's cache."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")


def tiny_model(**config) -> EFPForSegmentation:
    """A model of a few thousand parameters whose batch norms and scores are not at their initial state."""
    model = EFPForSegmentation(EFPConfig(**{**TINY, **config}))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, EFPScore):
            torch.nn.init.normal_(module.weight, std=0.7)
    return model.eval()


def tiny_prompted_model(std: float = 1.0, **config) -> EFPForSegmentation:
    """A [`tiny_model`] whose prompts change something."""
    model = tiny_model(prompt_size=4, **config)
    for convolution in model.prompt_encoder.after:
        torch.nn.init.normal_(convolution.weight, std=std)
    return model


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)


@pytest.fixture(scope="session")
def find_violations(tmp_path_factory) -> Callable:
    """A page of Playwright → what breaks WCAG 2.1 AA in it by axe-core, "rule: element"."""
    folder = tmp_path_factory.mktemp("axe")
    try:
        subprocess.run(["npm", "pack", "axe-core@4"], cwd=folder, check=True, capture_output=True, timeout=120)
        shutil.unpack_archive(next(folder.glob("axe-core-*.tgz")), folder)
    except (OSError, subprocess.SubprocessError, StopIteration):
        pytest.skip("axe-core cannot be had from the npm registry")

    def find(page) -> list[str]:
        page.add_script_tag(path=folder / "package" / "axe.min.js")
        violations = page.evaluate("tags => axe.run(document, {runOnly: tags})", WCAG)["violations"]
        return [f"{violation['id']}: {node['html'][:120]}" for violation in violations for node in violation["nodes"]]

    return find


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(8)  # masks that are neither empty nor full
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_model().save_pretrained(folder)
    EFPImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_structures(tmp_path_factory, tiny_checkpoint) -> Path:
    """The tiny checkpoint with a decoder for structures that nothing has trained."""
    model, processor = load_checkpoint(tiny_checkpoint)
    torch.manual_seed(7)  # masks that are neither empty nor full
    folder = tmp_path_factory.mktemp("checkpoint") / "structures"
    with_structures(model).save_pretrained(folder)
    with_thresholds(processor, 6, 1, [0.3, 0.7, 0.5, 0.5, 0.6]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory) -> Path:
    """40 drawn pairs of 64×64 in the layout of ISIC 2018."""
    return write_synthetic_isic(tmp_path_factory.mktemp("data") / "synthetic", num_images=40, height=64, width=64)


@pytest.fixture(scope="session")
def structure_root(synthetic_root, tmp_path_factory) -> Path:
    """The drawn pairs with the masks of Task 2: a square of the k-th structure in each (k + 2)-th image."""
    root = tmp_path_factory.mktemp("structures") / "isic"
    shutil.copytree(synthetic_root, root)
    masks = root / STRUCTURE_FOLDERS[0]
    masks.mkdir()
    for number, path in enumerate(sorted((root / "ISIC2018_Task1-2_Training_Input").iterdir())):
        for k, name in enumerate(STRUCTURES, start=2):
            mask = np.zeros((64, 64), np.uint8)
            mask[: 8 * (number % k == 0), : 8 * k] = 255
            Image.fromarray(mask).save(masks / MASK_NAME.format(path.stem, name))
    return root


@pytest.fixture(scope="session")
def loaded(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def photo_file(tmp_path):
    path = tmp_path / "photo.jpg"
    draw_lesion(3, 90, 120)[0].save(path)
    return path


def square_photo(tmp_path, inside: float = 4.0, size=(8, 8)) -> SegmentedPhoto:
    """An 8×8 photo whose logits of the lesion are `inside` in rows 2..5 and columns 3..6, and -4 elsewhere."""
    path = tmp_path / "square.png"
    Image.new("RGB", size[::-1], (200, 150, 130)).save(path)
    logits = torch.zeros(1, 2, 8, 8)
    logits[:, 1] = -4
    logits[:, 1, 2:6, 3:7] = inside
    return SegmentedPhoto(path, size, Image.open(path).convert("RGB"), logits, {})


@pytest.fixture
def unsure_photo(tmp_path) -> SegmentedPhoto:
    """A square of probability 0.7: lesion at the processor's threshold, skin at 0.9."""
    return square_photo(tmp_path, inside=float(np.log(0.7 / 0.3)))


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path


ORGANS = ("liver", "spleen", "kidney")


def draw_organs(seed: int, height: int = 64, width: int = 80) -> tuple[Image.Image, np.ndarray]:
    """A drawing of three organs, and their labels 1..3; the third is in every second one alone."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.uint8)
    pixels = generator.normal((150, 110, 100), 12, (height, width, 3))
    for label, color in ((1, (90, 40, 40)), (2, (190, 150, 60)), (3, (60, 90, 160))):
        top, left = generator.uniform(0.2, 0.8, 2) * (height, width)
        radius = generator.uniform(0.12, 0.25) * height
        if label == 3 and seed % 2:
            continue
        area = np.hypot(y - top, x - left) < radius
        labels[area] = label
        pixels[area] = generator.normal(color, 12, (area.sum(), 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), labels


@pytest.fixture(scope="session")
def organs_root(tmp_path_factory) -> Path:
    """40 drawings of `ORGANS` in images/ and masks/, with their names in classes.txt."""
    root = tmp_path_factory.mktemp("data") / "organs"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(40):
        image, labels = draw_organs(number)
        image.save(root / "images" / f"organ_{number:02d}.png")
        Image.fromarray(labels).save(root / "masks" / f"organ_{number:02d}.png")
    (root / "classes.txt").write_text("\n".join(ORGANS))
    return root


@pytest.fixture(scope="session")
def organs_checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(35)  # each class is found
    folder = tmp_path_factory.mktemp("checkpoint") / "organs"
    tiny_model(id2label={0: "background", **dict(enumerate(ORGANS, start=1))}).save_pretrained(folder)
    EFPImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


CELL_LABELS = ("membrane", "nucleus")  # in the order of their folders


def draw_cell(seed: int, height: int = 64, width: int = 80) -> tuple[Image.Image, dict[str, np.ndarray]]:
    """A drawing of a cell, and its masks: the membrane is the whole cell; every third one has no nucleus within it."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    top, left = generator.uniform(0.35, 0.65, 2) * (height, width)
    distance = np.hypot(y - top, x - left)
    radius = generator.uniform(0.2, 0.35) * height
    masks = {"membrane": distance < radius}
    if seed % 3:
        masks["nucleus"] = distance < radius / 2
    pixels = generator.normal((200, 180, 190), 12, (height, width, 3))
    for mask, color in zip(masks.values(), ((220, 90, 120), (70, 40, 120)), strict=False):
        pixels[mask] = generator.normal(color, 12, (mask.sum(), 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), masks


def write_cells(root: Path, num_images: int) -> Path:
    """Drawings in images/, and their masks in a folder a label, without those that are empty."""
    (root / "images").mkdir(parents=True)
    for number in range(num_images):
        image, masks = draw_cell(number)
        image.save(root / "images" / f"cell_{number:02d}.png")
        for label, mask in masks.items():
            (root / "masks" / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / "masks" / label / f"cell_{number:02d}.png")
    return root


@pytest.fixture(scope="session")
def cells_root(tmp_path_factory) -> Path:
    """40 drawings of cells, as [`write_cells`] keeps them."""
    return write_cells(tmp_path_factory.mktemp("data") / "cells", 40)


@pytest.fixture(scope="session")
def cells_checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(8)
    folder = tmp_path_factory.mktemp("checkpoint") / "cells"
    config = {"problem_type": MULTI_LABEL, "id2label": dict(enumerate(CELL_LABELS))}
    tiny_model(**config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    EFPImageProcessor(size=size, labels_overlap=True, threshold=[0.5, 0.4]).save_pretrained(folder)
    return folder
