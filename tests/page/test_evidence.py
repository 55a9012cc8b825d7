"""What is said of how well the expected Jaccard was measured to work."""

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from efp_hf.page.evidence import GOOD_FROM, LOOK_FROM, trust_evidence, trust_word


def write_card(folder, measured: dict[str, dict[str, float]]):
    """A folder whose card has these metrics by split."""
    results = [
        EvalResult("image-segmentation", "isic2018", "ISIC 2018", name, value, dataset_split=split)
        for split, metrics in measured.items()
        for name, value in metrics.items()
    ]
    data = ModelCardData(model_name="ours", eval_results=results) if results else ModelCardData(license="apache-2.0")
    ModelCard(f"---\n{data.to_yaml()}\n---\n").save(folder / "README.md")
    return folder


def test_evidence_is_the_test_split_of_the_card(tmp_path):
    test = {
        "images": 519,
        "jaccard": 0.81,
        "expected_jaccard_mean": 0.86,
        "expected_jaccard_rank_correlation": 0.55,
        "failure_auc": 0.8,
        "failures": 60,
    }
    validation = {**dict.fromkeys(test, 0.2), "images": 259}
    evidence = trust_evidence(write_card(tmp_path, {"test": test, "validation": validation}))
    assert "519 test images of ISIC 2018" in evidence and "0.55" in evidence and "80%" in evidence
    assert "mean estimate was 0.860 and the mean Jaccard 0.810" in evidence and "60 of them" in evidence
    assert "259" not in evidence


def test_card_with_scores_alone_and_no_card_are_said(tmp_path):
    assert "not measured for this checkpoint" in trust_evidence(tmp_path)
    for measured in ({}, {"test": {"images": 519, "jaccard": 0.81}}):
        assert "not measured for this checkpoint" in trust_evidence(write_card(tmp_path, measured))


def test_damaged_card_stops_nothing(tmp_path):
    (tmp_path / "README.md").write_text("---\nmodel-index: 5\n---\n")
    assert "not measured" in trust_evidence(tmp_path)


def test_word_changes_at_its_thresholds():
    words = [
        trust_word(expected) for expected in (0.0, LOOK_FROM - 0.001, LOOK_FROM, GOOD_FROM - 0.001, GOOD_FROM, 1.0)
    ]
    assert words == ["likely wrong"] * 2 + ["look again"] * 2 + ["good"] * 2
