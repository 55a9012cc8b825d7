"""The page's HTML."""

from conftest import square_photo

from efp_hf.page.batch import segment_batch
from efp_hf.page.markup import (
    MEASURES,
    batch_html,
    grid_html,
    measures_html,
    probability_html,
    trust_evidence,
    view_html,
)
from efp_hf.page.photo import segment_photo
from efp_hf.page.pictures import draw_maps
from efp_hf.page.tabs import draw_view, measure_photo

TRUST_COLUMNS = "data,split,images,weights,threshold,rank_correlation,failure_auc,failures,mean_expected,mean_real"


def test_measures_table_has_every_measure_with_what_it_is(tmp_path, loaded):
    _, processor = loaded
    measures = measure_photo(square_photo(tmp_path), processor, pixels_per_mm=2)
    html = measures_html(measures)
    named = {name.removesuffix("_mm2").removesuffix("_mm") for name in measures}
    assert named == set(MEASURES)
    assert all(name in html for name in MEASURES)
    assert "4.00 mm²" in html


def test_no_lesion_has_an_empty_measures_table(tmp_path, loaded):
    _, processor = loaded
    html = measures_html(measure_photo(square_photo(tmp_path, inside=-4.0), processor))
    assert "No lesion found" in html and "None" not in html


def test_evidence_is_the_newest_test_row(tmp_path):
    results = tmp_path / "trust.csv"
    results.write_text(
        f"{TRUST_COLUMNS}\nisic,test,500,ours,0.4,0.1,0.6,90,0.9,0.7\nisic,test,519,ours,0.45,0.55,0.8,60,0.86,0.81\n"
        "isic,validation,259,ours,0.5,0.2,0.7,30,0.8,0.8\nisic,test,777,another,0.5,0.2,0.7,30,0.8,0.8\n"
    )
    evidence = trust_evidence(results, "ours")
    assert "threshold 0.45" in evidence
    assert "519 test images" in evidence and "0.55" in evidence and "80%" in evidence and "0.810" in evidence
    assert not any(images in evidence for images in ("500", "259", "777"))
    assert "not measured for this checkpoint" in trust_evidence(results, "unknown")


def test_missing_evidence_is_said(tmp_path):
    assert "not measured" in trust_evidence(tmp_path / "trust.csv", "ours")


def test_names_are_text_and_not_html(tmp_path, loaded, photo_file):
    model, processor = loaded
    path = photo_file.rename(tmp_path / "<img src=x onerror=alert(1)>.jpg")
    photo = segment_photo(path, model, processor)
    view = draw_view(photo, processor)
    batch = segment_batch([path], model, processor, tmp_path)
    for html in (view_html(view), probability_html(view, 0.5), batch_html(batch)):
        assert "<img src=x" not in html


def test_every_picture_has_an_alternative_text(tmp_path, loaded, photo_file):
    model, processor = loaded
    photo = segment_photo(photo_file, model, processor)
    view = draw_view(photo, processor)
    for html in (
        view_html(view),
        probability_html(view, 0.5),
        grid_html(draw_maps(photo), "Network map"),
    ):
        assert html.count("<img ") == html.count('alt="') > 0
        assert 'alt=""' not in html
