import shutil

import pytest

from efp_hf import EFPImageProcessor
from efp_hf.metrics.calibration import JACCARD_TEMPERATURES


def test_postprocessing_is_chosen_on_validation_and_kept(efp, tmp_path, synthetic_root, tiny_checkpoint, rows_of):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    arguments = ("--data", synthetic_root, "--image-sizes", 32, 48)
    assert efp("calibrate", "--checkpoint", "copy", *arguments).code == 0
    tried = rows_of(tmp_path / "calibration" / "postprocessing.csv")
    assert len(tried) == 2 * 7 * 2
    best = max(tried, key=lambda row: float(row["validation_jaccard"]))
    chosen = EFPImageProcessor.from_pretrained(folder)
    assert (chosen.size["height"], chosen.threshold, str(chosen.largest_region)) == (
        int(best["image_size"]),
        float(best["threshold"]),
        best["largest_region"],
    )
    temperatures = rows_of(tmp_path / "calibration" / "jaccard_temperature.csv")
    assert [float(row["jaccard_temperature"]) for row in temperatures] == list(JACCARD_TEMPERATURES)
    closest = min(temperatures, key=lambda row: float(row["jaccard_error"]))
    assert chosen.jaccard_temperature == float(closest["jaccard_temperature"]) != 1
    assert float(closest["mean_real"]) == pytest.approx(float(best["validation_jaccard"]), abs=1e-5)


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [("efp-isic", "efp-isic is shipped with the package and stays as it is"), ("nowhere", "nowhere: no such folder")],
)
def test_calibrate_changes_only_a_folder_of_the_users(efp, checkpoint, words):
    ran = efp("calibrate", "--checkpoint", checkpoint, "--data", "/nowhere")
    assert ran.code == 2 and words in ran.err
