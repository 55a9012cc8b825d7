"""The table of a review, from rows as `scripts/review.py` writes them."""

from efp_hf.inference.checkpoint import weights_digest
from efp_hf.metrics.rows import append_row
from efp_hf.study.review_table import SHARES, review_block


def test_newest_rows_of_these_weights_are_shown_in_both_orders(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert review_block(tmp_path, tmp_path).startswith("Nothing is measured yet")
    row = {"split": "test", "images": 40, "data": "isic", "target": 0.85, "clicks_an_image": 1.77, "reached": 0.95}
    for weights, lie, gain in (("other", "middle", 0.9), (digest := weights_digest(tmp_path), "anywhere", 0.8)):
        append_row(tmp_path / "review.csv", row | about(weights, lie, "random", 1.0, gain))
    for gain in (0.1, 0.2):  # the second time counts
        for order in ("worst first", "random"):
            for share in SHARES:
                append_row(tmp_path / "review.csv", row | about(digest, "middle", order, share, gain * share))
    lines = review_block(tmp_path, tmp_path).splitlines()
    assert "takes 1.8 clicks" in lines[0] and "5% of the masks" in lines[0]
    assert (
        lines[6] == "| none | 0.600 | 0.600 | 40.0% | 40.0% |"
        and lines[-1] == "| all | 0.800 | 0.800 | 20.0% | 20.0% |"
    )
    assert len(lines) == 6 + len(SHARES)


def about(weights, lie, order, share, gain):
    jaccard = {"jaccard": 0.6 + gain, "failure_rate": 0.4 - gain}
    return {"weights": weights, "clicks_lie": lie, "order": order, "share": share} | jaccard
