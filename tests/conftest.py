import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before the first import of a Hugging Face library
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from pathlib import Path

import pytest
import torch

from efp_hf import EFPConfig, EFPForSegmentation, EFPImageProcessor
from efp_hf.synthetic import write_synthetic_isic

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = {
    "hidden_sizes": (4, 6, 8, 10),
    "depths": (1, 1, 1, 1),
    "pyramid_size": 6,
    "head_size": 6,
    "cross_scale_kernel_size": 3,
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def quiet_cache(tmp_path_factory, monkeypatch):
    """Datasets of the tests leave nothing in the user's cache."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")


def tiny_model(**config) -> EFPForSegmentation:
    """A model of a few thousand parameters whose batch norms are not at their initial state."""
    model = EFPForSegmentation(EFPConfig(**{**TINY, **config}))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_model().save_pretrained(folder)
    EFPImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory) -> Path:
    """40 drawn pairs of 64×64 in the layout of ISIC 2018."""
    return write_synthetic_isic(tmp_path_factory.mktemp("data") / "synthetic", num_images=40, height=64, width=64)
