"""A photo after its one run through the model."""

from types import SimpleNamespace

import numpy as np
from conftest import square_photo
from PIL import Image
from transformers.modeling_outputs import SemanticSegmenterOutput

from efp_hf.data.synthetic import draw_lesion
from efp_hf.page.photo import find_lesion, segment_photo
from efp_hf.page.photo_results import draw_view


def test_threshold_redraws_without_the_model(tmp_path, loaded):
    _, processor = loaded
    photo = square_photo(tmp_path, inside=0.0)  # probability 0.5
    assert find_lesion(photo, processor, threshold=0.49)[0].sum() == 16
    assert find_lesion(photo, processor, threshold=0.51)[0].sum() == 0
    assert "25.0%" in draw_view(photo, processor, threshold=0.49).summary
    assert "No lesion found" in draw_view(photo, processor, threshold=0.51).summary


def test_preview_is_small_and_keeps_the_proportions(tmp_path, loaded):
    path = tmp_path / "large.jpg"
    draw_lesion(3, 150, 200)[0].resize((2400, 1800)).save(path)
    photo = segment_photo(path, *loaded)
    assert photo.size == (1800, 2400)
    assert photo.preview.size == (1024, 768)


def test_small_photo_is_shown_enlarged(tmp_path, loaded):
    path = tmp_path / "small.png"
    image = draw_lesion(3, 192, 256)[0]
    image.save(path)
    photo = segment_photo(path, *loaded)
    assert photo.size == (192, 256) and photo.preview.size == (1024, 768)
    assert draw_view(photo, loaded[1]).after.size == (1024, 768)
    reduced = np.asarray(photo.preview.resize((256, 192), Image.Resampling.BOX)).astype(int)
    assert np.abs(reduced - np.asarray(image)).mean() < 3  # the whole photo, in its place


def test_a_model_that_returns_logits_alone_has_a_mask_and_no_maps(tmp_path, loaded):
    path = tmp_path / "photo.png"
    draw_lesion(3, 48, 64)[0].save(path)
    model, processor = loaded

    class Exported(SimpleNamespace):
        def __call__(self, pixel_values, **kwargs):
            return SemanticSegmenterOutput(logits=model(pixel_values).logits)

    exported = Exported(device=model.device, dtype=model.dtype, config=model.config, prompt_encoder=None)
    photo, whole = (segment_photo(path, found, processor) for found in (exported, model))
    assert not photo.maps and photo.logits.equal(whole.logits)
    assert draw_view(photo, processor, threshold=0.5).summary == draw_view(whole, processor, threshold=0.5).summary
