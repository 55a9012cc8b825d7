from pathlib import Path

import pytest
import torch
from conftest import tiny_prompted_model

from efp_hf import EFPImageProcessor
from efp_hf.data.synthetic import draw_lesion
from efp_hf.inference.checkpoint import load_checkpoint


@pytest.fixture(scope="session")
def prompted_checkpoint(tmp_path_factory) -> Path:
    """A tiny checkpoint that takes clicks, and in which they change something."""
    torch.manual_seed(8)
    folder = tmp_path_factory.mktemp("prompted") / "tiny"
    tiny_prompted_model(std=0.3).save_pretrained(folder)
    EFPImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def prompted(prompted_checkpoint):
    return load_checkpoint(prompted_checkpoint)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six drawn photos."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(6):
        draw_lesion(number, 72, 96)[0].save(photos / f"p{number}.jpg")
    return photos
