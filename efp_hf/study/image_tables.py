"""Tables of the images of a split one by one: how their scores are distributed, which fail, and on which skin."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from ..inference.checkpoint import weights_digest
from ..lesion.notes import CUT_FROM
from ..metrics import bootstrap_interval, jaccard
from ..metrics.scores import JACCARD_THRESHOLD
from .comparison import COUNTS
from .images import images_path
from .tables import to_table

EDGES = (0.0, 0.5, JACCARD_THRESHOLD, 0.8, 0.9, 1.0)  # of the bins of J
WORST = 10  # images that are named
TENTH = 0.1
MISSED_BELOW = 0.05  # of the lesion's pixels found: its mask is somewhere else
# the lowest ITA of a group, in degrees, and its name (Chardon et al. 1991; Del Bino and Bernerd 2013)
SKIN_GROUPS = {55: "very light", 41: "light", 28: "intermediate", 10: "tan", -30: "brown", -180: "dark"}
NOT_MEASURED = "Not measured yet: `python scripts/measure.py images --data ISIC_FOLDER --checkpoint {}`."


def read_images(results: Path, checkpoint: Path) -> pd.DataFrame | None:
    """The test images that [`measure_images`] measured with these very weights, with their `jaccard`; or `None`."""
    path = images_path(results, weights_digest(checkpoint))
    if not path.is_file():
        return None
    images = pd.read_csv(path)
    return images.assign(jaccard=jaccard(images[COUNTS].to_numpy()))


def unusual(images: pd.DataFrame) -> dict[str, pd.Series]:
    """What may be unusual about a lesion → whether it is so of each image, by the true masks."""
    share, contrast = images["lesion_share"], images["contrast"]
    return {
        "among the smallest tenth": share <= share.quantile(TENTH),
        "among the largest tenth": share >= share.quantile(1 - TENTH),
        "among the palest tenth": contrast <= contrast.quantile(TENTH),
        "leaves the picture": images["border"] > CUT_FROM,
        "has several regions": images["regions"] > 1,
    }


def fault(tp: float, fp: float, fn: float) -> str:
    """What is wrong with a mask of these counts."""
    if tp < MISSED_BELOW * (tp + fn):
        return "misses the lesion"
    return "too large" if fp > fn else "too small"


def group_cells(name: str, images: pd.DataFrame) -> list[str]:
    """Name, number of images, J with its interval, failures."""
    if images.empty:
        return [name, "0", "–", "–"]
    mean, failures = f"{images['jaccard'].mean():.3f}", int((images["jaccard"] < JACCARD_THRESHOLD).sum())
    if len(images) > 1:  # of one image an interval would say that nothing is unsure
        low, high = bootstrap_interval(images["jaccard"].to_numpy())
        mean += f" [{low:.3f} … {high:.3f}]"
    return [name, str(len(images)), mean, f"{failures} ({failures / len(images):.0%})"]


def distribution_table(images: pd.DataFrame) -> str:
    """How many images have which J, and which J was expected of them."""
    lines = []
    for low, high in pairwise(EDGES):
        is_last = high == EDGES[-1]
        found = images[(images["jaccard"] >= low) & ((images["jaccard"] < high) | is_last)]
        expected = f"{found['expected_jaccard'].mean():.2f}" if len(found) else "–"
        lines.append([f"{low:g} to {high:g}", str(len(found)), f"{len(found) / len(images):.1%}", expected])
    return to_table("J | images | share | expected J, mean", lines)


def groups_table(images: pd.DataFrame) -> str:
    """J and failures of the images whose lesion is unusual in one way."""
    lines = [group_cells("all images", images)]
    lines += [group_cells(f"lesion {name}", images[is_so]) for name, is_so in unusual(images).items()]
    return to_table("images | number | J [95 %] | failures", lines)


def worst_table(images: pd.DataFrame) -> str:
    """The images with the lowest J: what is wrong with their masks, and what is unusual about them."""
    ways = unusual(images)
    lines = []
    for position, row in images.nsmallest(WORST, "jaccard").iterrows():
        why = "; ".join(name for name, is_so in ways.items() if is_so[position])
        numbers = [f"{row['jaccard']:.2f}", f"{row['expected_jaccard']:.2f}", f"{row['lesion_share']:.1%}"]
        lines.append([f"`{row['image_id']}`", *numbers, fault(row["tp"], row["fp"], row["fn"]), why or "–"])
    return to_table("image | J | expected J | lesion's share of the image | the mask | the lesion", lines)


def failures_sentence(images: pd.DataFrame) -> str:
    """What is wrong with the masks that failed, and how many of their lesions are unusual."""
    failed = images["jaccard"] < JACCARD_THRESHOLD
    faults = pd.Series(
        [fault(*row) for row in images.loc[failed, ["tp", "fp", "fn"]].itertuples(index=False)], dtype=str
    )
    counts = ", ".join(f"{count} {what}" for what, count in faults.value_counts().items())
    is_unusual = np.any(list(unusual(images).values()), axis=0)
    with_one, others = (is_unusual & failed).sum(), (is_unusual & ~failed).sum()
    return (
        f"The {failed.sum()} masks that failed: {counts}. {with_one} of them have a lesion that is unusual in a way of "
        f"the next table, as {others} of the {(~failed).sum()} others."
    )


def skin_sentence(images: pd.DataFrame) -> str:
    """J on the lightest skin beside that on all other."""
    lightest = images["ita"] > next(iter(SKIN_GROUPS))
    (_, _, light, _), (_, number, other, _) = (group_cells("", images[is_so]) for is_so in (lightest, ~lightest))
    return f"On the lightest skin J is {light}, on the other {number} images {other}."


def skin_table(images: pd.DataFrame) -> str:
    """J and failures by the individual typology angle of the skin around the lesion."""
    lines, above = [], 180
    for lowest, name in SKIN_GROUPS.items():
        words = (
            f"above {lowest}°" if above == 180 else f"up to {above}°" if lowest == -180 else f"{lowest}° to {above}°"
        )
        is_in = (images["ita"] > lowest) & (images["ita"] <= above)
        lines.append(group_cells(f"{name}, ITA {words}", images[is_in]))
        above = lowest
    return to_table("skin around the lesion | images | J [95 %] | failures", lines)
