"""Figures of what clicks and boxes bring: J of the test images, and test images with the masks that they give."""

from pathlib import Path

import numpy as np
from datasets import Dataset

from ..extras import needing
from ..image_processing_efp import EFPImageProcessor, to_upright_rgb
from ..inference.correction import Correction
from ..inference.drawing import AGREEMENT_COLORS, draw_agreement
from ..metrics.correction import CLICKS, jaccard_of
from ..metrics.evaluation import model_masks, truth_mask
from ..modeling_efp import EFPForSegmentation
from ..training.annotator import lesion_box, next_click
from .figures import LOOKS, PURPLE, STYLE, TEXT_BOX, show
from .prompt_tables import newest_rows

with needing("bench", __name__):
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

CLICKED_LOOKS = (LOOKS["efp"], LOOKS["efp_nano"])
QUANTILES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5)  # of the J without a prompt, an image each
SHOWN_CLICKS = (0, 1, 3)


@rc_context(STYLE)
def clicks_figure(results: Path, checkpoints: tuple[Path, ...]) -> Figure:
    """
    J of the test split after clicks into the middle of the largest error, and in a box; GrabCut in the same box.

    Raises:
        FileNotFoundError: a checkpoint without rows, by name.
    """
    figure = Figure(figsize=(7, 4))
    panel, boxes = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1.3))
    for checkpoint, (color, marker, dashes) in zip(checkpoints, CLICKED_LOOKS, strict=True):
        rows = newest_rows(results / "prompts.csv", checkpoint, "prompts")
        if rows.empty:
            raise FileNotFoundError(
                f"{checkpoint.name} has no row: efp score --data ISIC_FOLDER --prompts --checkpoint {checkpoint.name}"
            )
        clicked = rows.loc[[(f"{number} clicks", "in the middle") for number in CLICKS]]
        panel.fill_between(
            CLICKS, clicked["jaccard_low"], clicked["jaccard_high"], color=color, alpha=0.15, linewidth=0
        )
        looks = {"color": color, "marker": marker, "linestyle": dashes, "label": checkpoint.name}
        panel.plot(CLICKS, clicked["jaccard"], **looks)
        boxed = rows.loc["box"]["jaccard"]
        boxes.plot(range(len(boxed)), boxed, **looks)
    grabcut = rows.loc["box, GrabCut"]["jaccard"]
    boxes.plot(range(len(grabcut)), grabcut, color=PURPLE, marker="v", linestyle="dotted", label="GrabCut")
    panel.set(xticks=CLICKS, xlabel="clicks", ylabel="mean J of the test images, 95 % interval")
    panel.legend(loc="lower right")
    boxes.set(xticks=range(len(boxed)), xlabel="box, off by up to", xlim=(-0.4, len(boxed) - 0.6))
    boxes.set_xticklabels([place.removesuffix(" off") for place in boxed.index])
    boxes.legend(loc="center", fontsize="small")
    return figure


@rc_context(STYLE)
def corrections_figure(dataset: Dataset, model: EFPForSegmentation, processor: EFPImageProcessor) -> Figure:
    """Six images, chosen by the J of their automatic masks (`QUANTILES`): these masks, after clicks, and in a box."""
    masks = model_masks(dataset, model, processor)
    jaccards = np.array([jaccard_of(mask, truth) for _, mask, truth in masks])
    order = np.argsort(jaccards, kind="stable")
    chosen = [int(order[int(quantile * (len(order) - 1))]) for quantile in QUANTILES]
    titles = ["no prompt", *(f"{n} click{'s' if n > 1 else ''}" for n in SHOWN_CLICKS[1:]), "box"]
    figure = Figure(figsize=(1.7 * len(titles), 1.7 * len(chosen) + 0.5))
    grid = figure.subplots(len(chosen), len(titles))
    for panel, title in zip(grid[0], titles, strict=True):
        panel.set_title(title, fontsize="medium")
    for panels, row in zip(grid, dataset.select(chosen), strict=True):
        image, truth = to_upright_rgb(row["image"]), truth_mask(row)
        correction, points = Correction(image, model, processor, truth.shape), []
        for number in range(max(SHOWN_CLICKS) + 1):
            mask = correction.segment(points)["segmentation"].numpy(force=True)
            if number in SHOWN_CLICKS:
                panel = panels[SHOWN_CLICKS.index(number)]
                show_mask(panel, image, mask, truth)
                for x, y, label in points:
                    panel.plot(x - 0.5, y - 0.5, "o" if label else "X", color="white", markeredgecolor="black")
            click = next_click(mask, truth)
            points = points if click is None else [*points, click]
        box = lesion_box(truth)
        mask = correction.segment(box=box)["segmentation"].numpy(force=True)
        show_mask(panels[-1], image, mask, truth)
        if box is not None:
            left, top, right, bottom = box
            frame = Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor="white")
            panels[-1].add_patch(frame)
        panels[0].set_ylabel(row["image_id"], fontsize="small")
    patches = [Patch(color=np.array(color) / 255, label=name) for name, color in AGREEMENT_COLORS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3)
    return figure


def show_mask(panel, image, mask: np.ndarray, truth: np.ndarray) -> None:
    """Where mask and truth agree and where not, over the image, with the mask's J."""
    show(panel, draw_agreement(image, mask, truth))
    text = f"J {jaccard_of(mask, truth):.2f}"
    panel.text(0.03, 0.05, text, transform=panel.transAxes, color="white", fontsize="small", bbox=TEXT_BOX)
