"""The page's HTML."""

from conftest import square_photo
from PIL import Image

from efp_hf.page.batch import segment_batch
from efp_hf.page.markup import (
    MEASURES,
    batch_html,
    comparison_html,
    grid_html,
    measures_html,
    probability_html,
    status_html,
    trust_html,
    view_html,
)
from efp_hf.page.photo import segment_photo
from efp_hf.page.photo_results import compare_photo, draw_probabilities, draw_view, measure_photo
from efp_hf.page.pictures import draw_maps


def test_measures_table_has_every_measure_with_what_it_is(tmp_path, loaded):
    _, processor = loaded
    measures = measure_photo(square_photo(tmp_path), processor, pixels_per_mm=2)
    html = measures_html(measures)
    named = {name.removesuffix("_mm2").removesuffix("_mm") for name in measures}
    assert named == set(MEASURES) - {"structure_variety"}  # of a checkpoint with structures alone
    assert all(name in html for name in named) and "number of structures" not in html
    assert "4.00 mm² (16 px)" in html
    assert "longest diameter" in html and ">feret_diameter_max<" in html
    in_pixels = measures_html(measure_photo(square_photo(tmp_path), processor))
    assert ">16 px<" in in_pixels and " mm" not in in_pixels


def test_no_lesion_has_an_empty_measures_table(tmp_path, loaded):
    _, processor = loaded
    html = measures_html(measure_photo(square_photo(tmp_path, inside=-4.0), processor))
    assert "No lesion found" in html and "None" not in html


def test_names_are_text_and_not_html(tmp_path, loaded, photo_file):
    model, processor = loaded
    path = photo_file.rename(tmp_path / "<img src=x onerror=alert(1)>.jpg")
    photo = segment_photo(path, model, processor)
    view = draw_view(photo, processor)
    batch = segment_batch([path], model, processor, tmp_path)
    trusted = trust_html({"expected_jaccard": 0.8, "notes": [path.name]}, evidence=path.name)
    for html in (view_html(view), status_html(view), batch_html(batch), trusted):
        assert "&lt;img src=x" in html and "<img src=x" not in html


def test_every_picture_has_an_alternative_text(tmp_path, loaded, photo_file):
    model, processor = loaded
    photo = segment_photo(photo_file, model, processor)
    view = draw_view(photo, processor)
    Image.new("L", (120, 90), 255).save(tmp_path / "truth.png")
    for html in (
        view_html(view),
        probability_html(draw_probabilities(photo, processor), 0.5),
        grid_html(draw_maps(photo), "Network map"),
        comparison_html(compare_photo(photo, processor, tmp_path / "truth.png")),
    ):
        assert html.count("<img ") == html.count('alt="') > 0
        assert 'alt=""' not in html
