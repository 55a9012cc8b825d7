"""
Reads or scores generated images in a process of its own, and prints its peak memory after the first 1,000 and in the
end, in megabytes.

    python tests/hostile/scale_process.py stream FOLDER
"""

import resource
import sys
from pathlib import Path

import evaluate
import numpy as np

import efp_hf
from efp_hf.data.folders import load_isic
from efp_hf.data.lesions import load_lesions
from efp_hf.metrics.evaluation import boundary_scores, folder_masks

FIRST = 1000


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def stream(folder: Path) -> tuple[int, float]:
    for number, row in enumerate(load_lesions(folder, streaming=True)["train"], start=1):
        assert row["image"].size == row["mask"].size
        if number == FIRST:
            first = peak_megabytes()
    return number, first


def load(folder: Path) -> tuple[int, float]:
    load_isic(folder / "few", cache_dir=folder / "cache")
    first = peak_megabytes()
    data = load_isic(folder / "many", cache_dir=folder / "cache")
    return sum(len(data[split]) for split in data), first


def score(folder: Path) -> tuple[int, float]:
    """As `efp score --masks`, the images of a small folder again and again."""
    metric = evaluate.load(str(Path(efp_hf.__file__).parent / "metrics" / "lesion_segmentation"))
    dataset = load_isic(folder / "few", max_side=None, cache_dir=folder / "cache")["train"]
    dataset = dataset.select(np.arange(int(folder.joinpath("count").read_text())) % len(dataset))
    boundary = []
    for number, (_, mask, truth) in enumerate(folder_masks(dataset, folder / "few" / "masks"), start=1):
        metric.add(prediction=mask, reference=truth)
        boundary.append(boundary_scores(mask, truth))
        if number == FIRST:
            first = peak_megabytes()
    assert metric.compute()["jaccard"] == 1
    return number, first


if __name__ == "__main__":
    count, first = {"stream": stream, "load": load, "score": score}[sys.argv[1]](Path(sys.argv[2]))
    print(count, round(first, 1), round(peak_megabytes(), 1))
