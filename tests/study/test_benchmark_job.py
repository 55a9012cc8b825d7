"""From photos to mask files."""

import os

import numpy as np
import pytest
from PIL import Image

from efp_hf.study.benchmark.job import NUM_PHOTOS, draw_photos, efp_job, job_rows, pipeline_job
from efp_hf.study.benchmark.systems import EFP, SEGFORMER


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job") / "photos"
    draw_photos(folder, NUM_PHOTOS + 2, height=160, width=240)
    return sorted(folder.iterdir())


def test_photos_have_their_size_and_more_than_a_few_are_links(photos):
    assert len(photos) == NUM_PHOTOS + 2
    assert {Image.open(photo).size for photo in photos} == {(240, 160)}
    assert len({photo.stat().st_ino for photo in photos}) == NUM_PHOTOS
    assert os.path.samefile(photos[1], photos[NUM_PHOTOS + 1])


@pytest.mark.parametrize("system", [EFP, SEGFORMER])
def test_job_writes_a_mask_of_its_own_size_for_every_photo(system, photos, tiny_checkpoint, tmp_path):
    job = efp_job(tiny_checkpoint, threads=1) if system == EFP else pipeline_job()
    job(photos[:3], tmp_path)
    for photo in photos[:3]:
        mask = Image.open(tmp_path / f"{photo.stem}_segmentation.png")
        assert mask.size == (240, 160) and set(np.unique(mask)) <= {0, 255}


def test_job_that_fails_for_a_photo_is_no_measurement(tiny_checkpoint, tmp_path):
    (tmp_path / "bad.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"bad\.jpg: not an image"):
        efp_job(tiny_checkpoint, threads=1)([tmp_path / "bad.jpg"], tmp_path)


def test_job_row_has_the_ratio_of_medians_and_the_highest_memory():
    runs = [{"images_per_second": rate, "peak_mb": peak} for rate, peak in ((3, 700.2), (6, 800.4), (9, 600))]
    measured = {(EFP, "torch"): runs, (SEGFORMER, "pipeline"): [{"images_per_second": 2, "peak_mb": 900}]}
    efp, peer = job_rows(measured, num_images=50, photo_mb=3.456)
    assert (efp["median_images_per_second"], efp["over_pipeline"], efp["peak_mb"]) == (6, 3, 800)
    assert peer["over_pipeline"] == 1 and list(efp) == list(peer)
