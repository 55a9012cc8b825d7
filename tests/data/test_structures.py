import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from efp_hf.data.folders import load_isic
from efp_hf.data.found import found_line
from efp_hf.data.overlap import label_names
from efp_hf.data.structures import STRUCTURE_FOLDERS
from efp_hf.lesion.structures import LABELS


@pytest.fixture
def isic_root(structure_root, tmp_path):
    """A copy that a test may damage."""
    return Path(shutil.copytree(structure_root, tmp_path / "isic"))


def test_structures_come_beside_the_lesion_with_the_split_of_task_1(isic_root):
    data, lesions = load_isic(isic_root, task="structures"), load_isic(isic_root)
    assert {split: data[split]["image_id"] for split in data} == {
        split: lesions[split]["image_id"] for split in lesions
    }
    row = next(row for row in data["train"] if 1 in row["labels"])
    assert np.asarray(row["globules"])[:8, :16].min() == 255 and (np.asarray(row["globules"]) > 0).sum() == 8 * 16
    assert label_names(data) == LABELS and 0 in row["labels"]
    assert "; labels that overlap: lesion, globules, milia_like_cyst, " in found_line(data)


def test_masks_are_reduced_like_their_images_and_read_once(isic_root, tmp_path):
    data = load_isic(isic_root, max_side=32, cache_dir=tmp_path / "cache", task="structures")
    row = next(row for row in data["train"] if 1 in row["labels"])
    assert row["image"].size == row["globules"].size == (32, 32)
    assert (np.asarray(row["globules"]) > 0).sum() == 4 * 8
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    load_isic(isic_root, max_side=32, cache_dir=tmp_path / "cache", task="structures")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == before


def test_a_mask_that_is_missing_of_another_size_or_damaged_is_named(isic_root):
    folder = isic_root / STRUCTURE_FOLDERS[0]
    path = sorted(folder.glob("*streaks*"))[0]
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"1 masks of structures are not in .*_v3: {path.name}. A structure"):
        load_isic(isic_root, task="structures")
    Image.new("L", (64, 32)).save(path)
    with pytest.raises(ValueError, match=f"{path.name}: image is 64×64, mask 32×64"):
        load_isic(isic_root, task="structures")
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{path.name}.*damaged"):
        load_isic(isic_root, task="structures")


def test_a_folder_without_structures_or_another_task_is_refused(synthetic_root, caplog):
    caplog.set_level(logging.ERROR)
    with pytest.raises(FileNotFoundError, match="no ISIC2018_Task2_Training_GroundTruth_v3 is there"):
        load_isic(synthetic_root, task="structures")
    with pytest.raises(ValueError, match="`task` must be one of lesion, structures, got 'streaks'"):
        load_isic(synthetic_root, task="streaks")
