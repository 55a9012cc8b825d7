"""How well the expected Jaccard predicts the real one."""

import numpy as np
import pytest

from efp_hf.metrics.trust import failure_auc, rank_correlation, summarize_trust

REAL = np.array([0.9, 0.8, 0.7, 0.6, 0.2])
EXPECTED = np.array([0.95, 0.7, 0.9, 0.8, 0.3])


def test_rank_correlation_is_spearmans():
    # ranks 5 4 3 2 1 and 5 2 4 3 1: 1 - 6 · Σd² / (n(n² - 1)), with Σd² = 0 + 4 + 1 + 1 + 0
    assert rank_correlation(EXPECTED, REAL) == pytest.approx(1 - 6 * 6 / (5 * 24))


def test_failure_auc_is_the_share_of_pairs_in_the_right_order():
    # failures expect 0.8 and 0.3, successes 0.95, 0.7 and 0.9: five of six pairs
    assert failure_auc(EXPECTED, REAL) == pytest.approx(5 / 6)
    assert failure_auc(1 - EXPECTED, REAL) == pytest.approx(1 / 6)


def test_ties_count_half():
    assert failure_auc(np.array([0.5, 0.5, 0.9]), np.array([0.3, 0.8, 0.9])) == pytest.approx(1.5 / 2)


def test_jaccard_at_the_threshold_is_a_success():
    assert failure_auc(np.array([0.4, 0.9]), np.array([0.649, 0.65])) == 1
    assert summarize_trust(np.array([0.4, 0.9]), np.array([0.649, 0.65]))["failures"] == 1


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_computed_is_none():
    assert failure_auc(EXPECTED, REAL + 1) is None
    assert failure_auc(EXPECTED, REAL - 1) is None
    assert rank_correlation(np.full(5, 0.7), REAL) is None
    assert rank_correlation(EXPECTED[:1], REAL[:1]) is None


def test_summary_holds_both_means():
    summary = summarize_trust(EXPECTED, REAL)
    assert summary["mean_expected"] == pytest.approx(3.65 / 5)
    assert summary["mean_real"] == pytest.approx(3.2 / 5)
    assert summary["failures"] == 2
    assert summary["rank_correlation"] == rank_correlation(EXPECTED, REAL)
    assert summary["failure_auc"] == failure_auc(EXPECTED, REAL)


@pytest.mark.parametrize(("expected", "real"), [([], []), ([0.5], [0.5, 0.6]), ([[0.5]], [[0.5]])])
def test_pairs_that_are_not_one_an_image_are_refused(expected, real):
    with pytest.raises(ValueError, match="`expected` and `real` must be one number an image, got shapes"):
        summarize_trust(expected, real)
