"""The scores of `efp_hf.metrics` as a metric of the `evaluate` library."""

import datasets
import evaluate
import numpy as np

from efp_hf.metrics import confusion_counts, summarize

_DESCRIPTION = """
Scores of lesion masks as the ISIC 2018 challenge defines them (Jaccard, threshold Jaccard, Dice, sensitivity,
specificity, accuracy: means over images, with bootstrap intervals), the pooled scores beside them, and failures.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: masks (height, width), each of its own size: boolean, labels 0 and 1, or grey 0..255 where above 128 is
        lesion.
    references: the true masks, each of the size of its prediction.
    num_resamples, confidence, seed: of the bootstrap, in `compute` only.

Returns:
    The dictionary of `efp_hf.metrics.summarize`.

Example:
    >>> metric = evaluate.load("efp_hf/metrics/lesion_segmentation")
    >>> metric.add_batch(predictions=[[[True, True], [False, False]]], references=[[[True, False], [False, False]]])
    >>> metric.compute()["jaccard"]
    0.5
"""

_CITATION = """
@article{codella2019skin,
    title={Skin Lesion Analysis Toward Melanoma Detection 2018: A Challenge Hosted by the International Skin Imaging
        Collaboration (ISIC)},
    author={Codella, Noel and Rotemberg, Veronica and Tschandl, Philipp and others},
    journal={arXiv preprint arXiv:1902.03368},
    year={2019}
}
"""


class LesionSegmentation(evaluate.Metric):
    """
    A mask is reduced to its four counts when it is added; pixels are not kept. `evaluate` has one column for each of
    its two inputs: `predictions` holds TP and FP (what was called lesion), `references` FN and TN (what was left).
    """

    def _info(self) -> evaluate.MetricInfo:
        pair = datasets.Sequence(datasets.Value("int64"), length=2)
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": pair, "references": pair}),
            reference_urls=["https://github.com/ImageMarkup/isic-challenge-scoring"],
        )

    def add(self, *, prediction=None, reference=None):
        """Add one mask and its truth."""
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions=None, references=None):
        """Add masks and their truths, in the same order. When one of them is refused, none is added."""
        if predictions is None or references is None:
            raise ValueError("`predictions` and `references` must both be given: masks and their truths.")
        if len(predictions) != len(references):
            raise ValueError(
                f"`references` must be one truth a prediction, got {len(references)} for {len(predictions)}."
            )
        counts = []
        for index, (mask, truth) in enumerate(zip(predictions, references, strict=True)):
            try:
                counts.append(confusion_counts(mask, truth).tolist())
            except ValueError as error:
                raise ValueError(f"Mask {index} of the batch: {error}") from error
        if counts:
            super().add_batch(predictions=[row[:2] for row in counts], references=[row[2:] for row in counts])

    def compute(self, *, predictions=None, references=None, num_resamples=10_000, confidence=0.95, seed=0):
        """The scores of everything added since the last call."""
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        if self.writer is None:
            raise ValueError(
                "There is nothing to score. Call `add` or `add_batch`, or pass predictions and references."
            )
        return super().compute(num_resamples=num_resamples, confidence=confidence, seed=seed)

    def _compute(self, predictions, references, num_resamples, confidence, seed):
        return summarize(
            np.hstack((predictions, references)), num_resamples=num_resamples, confidence=confidence, seed=seed
        )
