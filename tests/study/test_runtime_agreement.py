import pytest
from conftest import tiny_model

from efp_hf import EFPImageProcessor
from efp_hf.data.lesions import load_lesions
from efp_hf.inference.checkpoint import load_checkpoint, segment
from efp_hf.metrics.evaluation import grid_jaccards
from efp_hf.study.runtime_agreement import compare_runtimes


@pytest.fixture
def checkpoint(tmp_path, synthetic_root):
    """A tiny checkpoint with a threshold that some pixels of each test image pass."""
    model, processor = tiny_model(), EFPImageProcessor(size={"height": 40, "width": 56})
    results = segment(list(load_lesions(synthetic_root)["test"]["image"]), model, processor)
    processor.threshold = round(min(float(result["probabilities"].quantile(0.7)) for result in results), 6)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


def test_checkpoint_agrees_with_itself(checkpoint, synthetic_root):
    dataset, loaded = load_lesions(synthetic_root)["test"], load_checkpoint(checkpoint)
    agreement = compare_runtimes(dataset, loaded, loaded, batch_size=3)
    assert (agreement["jaccard_between"], agreement["lowest_jaccard_between"]) == (1, 1)
    assert agreement["largest_logit_difference"] == 0
    assert 0 < agreement["reference_from_float64"] == agreement["exported_from_float64"] < 1e-4
    expected = grid_jaccards(dataset, *loaded, [loaded[1].threshold])[loaded[1].threshold, False]
    assert agreement["jaccard_reference"] == agreement["jaccard_exported"] == pytest.approx(expected)


def test_masks_of_another_threshold_disagree(checkpoint, synthetic_root):
    dataset, (model, processor) = load_lesions(synthetic_root)["test"], load_checkpoint(checkpoint)
    stricter = EFPImageProcessor.from_pretrained(checkpoint, threshold=0.999999)
    agreement = compare_runtimes(dataset, (model, processor), (model, stricter))
    assert agreement["jaccard_between"] == agreement["lowest_jaccard_between"] == agreement["jaccard_exported"] == 0
    assert agreement["largest_logit_difference"] == 0 < agreement["jaccard_reference"]


def test_rounding_is_the_distance_from_float64(checkpoint, synthetic_root):
    dataset, (model, processor) = load_lesions(synthetic_root)["test"], load_checkpoint(checkpoint)
    coarse = load_checkpoint(checkpoint)[0].bfloat16()
    agreement = compare_runtimes(dataset, (model, processor), (coarse, processor))
    assert agreement["exported_from_float64"] > 100 * agreement["reference_from_float64"]
    assert agreement["exported_from_float64"] == pytest.approx(agreement["largest_logit_difference"], rel=0.01)
