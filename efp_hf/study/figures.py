"""Figures of `results/`, and of test images with the models' masks."""

import json
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from transformers import PreTrainedModel

from ..configuration_efp import NUM_LEVELS, EFPConfig
from ..data.files import write_atomically
from ..extras import needing
from ..image_processing_efp import EFPImageProcessor, to_upright_rgb
from ..inference.checkpoint import weights_digest
from ..inference.drawing import AGREEMENT_COLORS, draw_agreement, tint_lesion
from ..metrics import bootstrap_interval, confusion_counts, jaccard
from ..metrics.calibration import NUM_BINS, calibration_error
from ..metrics.evaluation import model_masks, truth_mask
from ..metrics.scores import JACCARD_THRESHOLD
from ..modeling_efp import EFPForSegmentation
from .baselines import BaselineConfig, BaselineForSegmentation
from .benchmark.systems import FLOAT_RUNTIMES
from .comparison import COUNTS, SYSTEMS, TRACKS, Run
from .comparison_tables import TITLES, Trained, read_comparison
from .frontier_table import COMPARED
from .speed_tables import newest_run, runtime_name
from .tables import find_rows, read_results

with needing("bench", __name__):
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

# Of the palette of Okabe and Ito 2008, "Color universal design": told apart under every colour blindness
GREEN, RED, BLUE, SKY, PURPLE, ORANGE = "#009e73", "#d55e00", "#0072b2", "#56b4e9", "#cc79a7", "#e69f00"
# system → colour, marker, dashes: also without colours told apart
LOOKS = {
    "unet": (BLUE, "s", (0, (5, 1.5))),
    "unet_attention": (SKY, "D", (0, (1.5, 1))),
    "segformer": (GREEN, "^", (0, (5, 1, 1, 1))),
    "maskformer": (PURPLE, "v", (0, (3, 1, 1, 1, 1, 1))),
    "efp": (RED, "o", "solid"),
    "efp_nano": (ORANGE, "*", (0, (1, 1))),
}
TRACK_TITLES = {"pretrained": "encoder from ImageNet", "scratch": "from scratch"}
RANKS = {"best": 1.0, "median": 0.5, "lower quartile": 0.25, "worst": 0.0}  # quantiles of EFP's J, two images each
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "legend.frameon": False,
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "efp_hf",  # else the ids in a file are other ones in each run
}


@rc_context(STYLE)
def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure by the ending of `path`, SVG or PNG; equal figures give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    write_atomically(path, lambda partial: figure.savefig(partial, format=path.suffix[1:], metadata=metadata))


# --------------------------------------------------------------------------------------------------- The comparison


def read_systems(results: Path) -> dict[str, dict[str, Trained]]:
    """
    track → system → its runs, in the order of `SYSTEMS`, without EFP's variants.

    Raises:
        FileNotFoundError: no system has a row, or a row's image scores are missing.
    """
    tracks = {}
    for track in TRACK_TITLES:
        try:
            runs = read_comparison(results, track)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error.filename}: {how_to_measure(track)}") from error
        measured = {system: runs[system, ""] for system in SYSTEMS if (system, "") in runs}
        if measured:
            tracks[track] = measured
    if not tracks:
        raise FileNotFoundError(f"{results / 'comparison.csv'}: {how_to_measure(next(iter(TRACKS)))}")
    return tracks


def how_to_measure(track: str) -> str:
    return f"no such file or row. Run `python scripts/compare.py --data ISIC_FOLDER --track {track}`."


def new_panels(tracks: dict[str, dict]) -> tuple[Figure, list]:
    """A figure with one panel a track, and the panels."""
    figure = Figure(figsize=(1.2 + 4.2 * len(tracks), 4.2))
    panels = list(figure.subplots(1, len(tracks), squeeze=False)[0])
    for panel, track in zip(panels, tracks, strict=True):
        panel.set_title(f"{TRACK_TITLES[track]}, {TRACKS[track].image_size}² pixels", fontsize="medium")
    return figure, panels


def add_legend(figure: Figure, panels: list) -> None:
    """One legend below all panels, each system once."""
    handles = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    ordered = [TITLES[system] for system in SYSTEMS if TITLES[system] in handles]
    figure.legend(
        [handles[label] for label in ordered], ordered, loc="outside lower center", ncols=min(5, 1 + 2 * len(panels))
    )


def add_point(panel, system: str, cost: float, trained: Trained) -> None:
    """J of the test split with its 95 % interval at what the system costs."""
    jaccards = trained.image_means(jaccard)
    low, high = bootstrap_interval(jaccards)
    color, marker, _ = LOOKS[system]
    panel.errorbar(
        cost,
        jaccards.mean(),
        yerr=[[jaccards.mean() - low], [high - jaccards.mean()]],
        color=color,
        marker=marker,
        markersize=11 if system == "efp" else 7,
        linestyle="none",
        linewidth=2.5 if system == "efp" else 1.2,
        capsize=3,
        label=TITLES[system],
        zorder=3 if system == "efp" else 2,
    )


def scale_cost(panel, subdivisions: tuple[int, ...], label: str) -> None:
    panel.set_xscale("log")
    panel.margins(x=0.15)
    panel.xaxis.set_major_locator(LogLocator(subs=subdivisions))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.set_xlabel(f"{label} (log scale)")


@rc_context(STYLE)
def accuracy_figure(results: Path) -> Figure:
    """J of the test split against the parameters of every system, one panel a track."""
    tracks = read_systems(results)
    figure, panels = new_panels(tracks)
    for panel, systems in zip(panels, tracks.values(), strict=True):
        for system, trained in systems.items():
            add_point(panel, system, trained.rows["parameters"].iloc[0] / 1e6, trained)
        scale_cost(panel, (1, 2, 3, 4, 6, 8), "millions of parameters")
    panels[0].set_ylabel("J on the test images (mean, 95 % interval)")
    add_legend(figure, panels)
    return figure


def read_latencies(results: Path) -> dict[str, dict[str, float]]:
    """
    Runtime → system of the comparison → median milliseconds of one image of the size that its J is stated for, of the
    benchmark's last run.

    Raises:
        FileNotFoundError: there was none.
    """
    latencies = {}
    for row in newest_run(results, "frontier").itertuples():
        if row.system in COMPARED and row.runtime in FLOAT_RUNTIMES:
            latencies.setdefault(row.runtime, {})[COMPARED[row.system]] = row.median_ms
    if not latencies:
        raise FileNotFoundError(f"{results}: no latency is measured. Run `python scripts/benchmark.py frontier`.")
    return latencies


@rc_context(STYLE)
def latency_figure(results: Path) -> Figure:
    """J of the test split against the time of one image, systems on the same encoder, one panel a runtime."""
    systems, latencies = read_systems(results).get("pretrained", {}), read_latencies(results)
    if not any(systems.keys() & milliseconds.keys() for milliseconds in latencies.values()):
        raise FileNotFoundError(f"{results / 'comparison.csv'}: {how_to_measure('pretrained')}")
    figure = Figure(figsize=(1.2 + 3.4 * len(latencies), 4.2))
    panels = list(figure.subplots(1, len(latencies), squeeze=False, sharey=True)[0])
    for panel, (runtime, milliseconds) in zip(panels, latencies.items(), strict=True):
        panel.set_title(runtime_name(runtime), fontsize="medium")
        for system, trained in systems.items():
            if system in milliseconds:
                add_point(panel, system, milliseconds[system], trained)
        scale_cost(panel, (1, 1.5, 2, 3, 4, 5, 6, 8), f"ms an image of {TRACKS['pretrained'].image_size}²")
    panels[0].set_ylabel("J on the test images (mean, 95 % interval)")
    add_legend(figure, panels)
    return figure


@rc_context(STYLE)
def jaccards_figure(results: Path) -> Figure:
    """The share of test images below each J, of every system, one panel a track; of several seeds all images."""
    tracks = read_systems(results)
    figure, panels = new_panels(tracks)
    for panel, systems in zip(panels, tracks.values(), strict=True):
        for system, trained in systems.items():
            jaccards = jaccard(trained.counts).ravel()
            color, _, dashes = LOOKS[system]
            width, order = (4, 2) if system == "efp" else (1.3, 3)  # the thin lines show on the thick one
            panel.ecdf(jaccards, color=color, linestyle=dashes, linewidth=width, label=TITLES[system], zorder=order)
        panel.axvline(JACCARD_THRESHOLD, color="0.3", linewidth=1)
        panel.text(JACCARD_THRESHOLD - 0.01, 0.97, f"failure:\nJ < {JACCARD_THRESHOLD}", ha="right", va="top")
        panel.set_xlim(0, 1)
        panel.set_ylim(0, 1)
        panel.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        panel.set_xlabel("J of a test image")
    panels[0].set_ylabel("share of the images below this J (%)")
    add_legend(figure, panels)
    return figure


# ------------------------------------------------------------------------------------------------------ Reliability


def read_bins(path: Path, checkpoint: Path, split: str = "test") -> dict[str, np.ndarray]:
    """
    The newest reliability diagram of these very weights at the temperature of the checkpoint's config: `all` and
    `border`, each as [`count_bins`] gives it.

    Raises:
        FileNotFoundError, ValueError: there is none.
    """
    command = f"Run `python scripts/measure.py trust --data ISIC_FOLDER --split {split} --checkpoint {checkpoint}`."
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. {command}")
    digest, temperature = weights_digest(checkpoint), EFPConfig.from_pretrained(checkpoint).temperature
    rows = find_rows(read_results(path), weights=digest, split=split, temperature=temperature)
    if rows.empty:
        raise ValueError(
            f"{path}: no row of the {split} split for {checkpoint} ({digest}, temperature {temperature}). {command}"
        )
    bins = {}
    for region in ("all", "border"):
        newest = find_rows(rows, pixels_of=region)[-NUM_BINS:]
        pixels = newest[["pixels"]].to_numpy(float)
        bins[region] = np.hstack([pixels, pixels * newest[["mean_probability", "lesion_share"]].fillna(0).to_numpy()])
    return bins


@rc_context(STYLE)
def reliability_figure(results: Path, checkpoint: Path) -> Figure:
    """The share of lesion pixels against the mean probability of each bin, and below the share of all pixels in it."""
    figure = Figure(figsize=(4.8, 6))
    panel, histogram = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    panel.plot((0, 1), (0, 1), color="0.5", linewidth=1, linestyle="dashed", label="as they should be")
    looks = {"all": ("all pixels", BLUE, "o"), "border": ("pixels near the true border", RED, "s")}
    for number, (region, bins) in enumerate(read_bins(results / "reliability.csv", checkpoint).items()):
        name, color, marker = looks[region]
        pixels, probability, lesion = bins[bins[:, 0] > 0].T
        label = f"{name}: calibration error {calibration_error(bins):.3f}"
        points = probability / pixels, lesion / pixels
        panel.plot(*points, color=color, marker=marker, markersize=5, label=label, clip_on=False, zorder=3)
        left = (np.arange(NUM_BINS) + number / 2) / NUM_BINS
        shares = bins[:, 0] / bins[:, 0].sum()
        histogram.bar(left, shares, 0.5 / NUM_BINS, align="edge", color=color, alpha=0.4)
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1)
    panel.set_ylabel("share of lesion among the pixels")
    panel.legend(loc="upper left", fontsize="small")
    histogram.set_ylabel("pixels (%)")
    histogram.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    histogram.set_xlabel("probability of lesion (mean of a bin)")
    return figure


# ------------------------------------------------------------------------------------------------- Masks of a track


def choose_images(jaccards: np.ndarray) -> list[tuple[str, int]]:
    """
    (rank, position) of eight images, best first: the two that lie at each quantile of `RANKS` when sorted by J. Of
    equal ones the later ranks higher.

    Raises:
        ValueError: so few images that one would be chosen twice.
    """
    order = np.argsort(jaccards, kind="stable")
    chosen = []
    for rank, quantile in RANKS.items():
        lower = min(int(quantile * (len(order) - 1)), len(order) - 2)
        chosen += [(rank, int(order[lower + 1])), (rank, int(order[lower]))]
    if len(dict(map(reversed, chosen))) < len(chosen):
        raise ValueError(f"`jaccards` must be of at least 9 images, got {len(order)}.")
    return chosen


def model_folders(track: str, runs: Path, seed: int = 0) -> dict[str, Path]:
    """system → the folder where `scripts/compare.py` saves its model, be it there or not."""
    return {system: runs / Run(track, system, seed).name / "model" for system in SYSTEMS}


def load_system(folder: Path) -> tuple[PreTrainedModel, EFPImageProcessor]:
    """EFP or a baseline, by the `model_type` of its config, in evaluation mode, and its image processor."""
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    classes = {EFPConfig.model_type: EFPForSegmentation, BaselineConfig.model_type: BaselineForSegmentation}
    if model_type not in classes:
        raise ValueError(f"{folder}: `model_type` must be one of {', '.join(classes)}, got {model_type!r}.")
    return classes[model_type].from_pretrained(folder).eval(), EFPImageProcessor.from_pretrained(folder)


def read_ranks(path: Path, track: str) -> list[tuple[str, str]]:
    """(rank, image_id) of [`choose_images`] from a run's image scores."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {how_to_measure(track)}")
    images = read_results(path)
    ranks = choose_images(jaccard(images[COUNTS].to_numpy()))
    return [(rank, images["image_id"].iloc[position]) for rank, position in ranks]


def find_image(dataset: Dataset, image_id: str) -> int:
    """
    The position of an image.

    Raises:
        ValueError: it is not there.
    """
    image_ids = dataset["image_id"][:]
    if image_id not in image_ids:
        raise ValueError(
            f"{image_id}: not among the {len(image_ids)} test images. Pass the data of its row in results."
        )
    return image_ids.index(image_id)


@rc_context(STYLE)
def masks_figure(results: Path, track: str, dataset: Dataset, folders: dict[str, Path], seed: int = 0) -> Figure:
    """
    Eight test images, chosen by EFP's J of this seed (`RANKS`), with the truth and the mask of each system.

    Args:
        dataset: the test split.
        folders: system → the folder of its trained model.

    Raises:
        FileNotFoundError: EFP's image scores.
        ValueError: no model, or an image that is not in the dataset.
    """
    if not folders:
        raise ValueError(
            f"`folders` must have a trained model of the track {track}. See `--runs` of scripts/compare.py."
        )
    ranks = read_ranks(results / "comparison" / f"{Run(track, 'efp', seed).name}.csv", track)
    rows = dataset.select([find_image(dataset, image_id) for _, image_id in ranks])
    images = [row["image"].convert("RGB") for row in rows]
    columns = {
        "image": [(image, "") for image in images],
        "truth": [(np.uint8(255) * truth_mask(row)[..., None].repeat(3, 2), "") for row in rows],
    }
    for system, folder in folders.items():
        model, processor = load_system(folder)
        columns[TITLES[system]] = [
            (draw_agreement(image, mask, truth), f"J {jaccard(confusion_counts(mask, truth)):.2f}")
            for image, (_, mask, truth) in zip(images, model_masks(rows, model, processor), strict=True)
        ]

    widest = max(image.width / image.height for image in images)
    figure = Figure(figsize=(1.3 * widest * len(columns) + 0.5, 1.3 * len(ranks) + 0.6))
    grid = figure.subplots(len(ranks), len(columns))
    for panels, (title, cells) in zip(grid.T, columns.items(), strict=True):
        panels[0].set_title(title, fontsize="medium", fontweight="bold" if title == TITLES["efp"] else "normal")
        for panel, (picture, text) in zip(panels, cells, strict=True):
            show(panel, picture)
            panel.text(0.03, 0.05, text, transform=panel.transAxes, color="white", fontsize="small", bbox=TEXT_BOX)
    for panel, (rank, image_id) in zip(grid[:, 0], ranks, strict=True):
        panel.set_ylabel(f"{rank}\n{image_id}", fontsize="small")
    patches = [Patch(color=np.array(color) / 255, label=name) for name, color in AGREEMENT_COLORS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3)
    return figure


TEXT_BOX = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "boxstyle": "round,pad=0.15"}


def show(panel, picture, **scale):
    """The picture without axes; → what a colour bar needs."""
    panel.grid(False)
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
    return panel.imshow(picture, interpolation="nearest", **scale)


# ----------------------------------------------------------------------------------------------------------- Levels


@rc_context(STYLE)
@torch.inference_mode()
def levels_figure(image: Image.Image, model: EFPForSegmentation, processor: EFPImageProcessor) -> Figure:
    """
    An image on its way through the network: F1..F4 and the enhanced levels (means over the channels, each in its own
    range), the attention maps M_s, and the probabilities and the mask that come of them.
    """
    image = to_upright_rgb(image)
    inputs = processor([image], return_tensors="pt").to(model.device)
    outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
    (result,) = processor.post_process_semantic_segmentation(outputs, [image.size[::-1]], return_probabilities=True)
    mask, probabilities = (result[name].numpy(force=True) for name in ("segmentation", "probabilities"))
    names = (r"$F_i$", r"$F^{\ast}_i$ (enhanced)", r"$M_s$ (attention)")
    hidden, attentions = outputs.hidden_states, outputs.attentions or ()
    groups = (hidden[:NUM_LEVELS], hidden[NUM_LEVELS:], attentions)
    rows = [
        (name, [level.mean(1)[0].numpy(force=True) for level in group])
        for name, group in zip(names, groups, strict=True)
        if group
    ]

    figure = Figure(figsize=(2.1 * (NUM_LEVELS + 1) + 0.6, 6.2))
    grid = figure.subplots(3, NUM_LEVELS + 1)
    left = {"image": image, "probability of lesion": probabilities, "mask": tint_lesion(image, mask)}
    for panel, (title, picture) in zip(grid[:, 0], left.items(), strict=True):
        drawn = show(panel, picture, vmin=0, vmax=1)
        panel.set_title(title, fontsize="medium")
        if title.startswith("probability"):
            figure.colorbar(drawn, ax=grid, shrink=0.6, label="probability, $M_s$;  $F$: from lowest to highest")
    for panels, (name, levels) in zip(grid, rows, strict=False):
        for number, (panel, values) in enumerate(zip(panels[1:], levels, strict=True), start=1):
            low, high = (0, 1) if name == names[2] else (values.min(), values.max())
            show(panel, values, vmin=low, vmax=high)
            panel.set_xlabel(f"{values.min():.2f} … {values.max():.2f}", fontsize="small")
            if name == names[0]:
                panel.set_title(f"level {number}, {values.shape[1]} × {values.shape[0]}", fontsize="medium")
        panels[1].set_ylabel(name)
    for panel in grid[len(rows) :, 1:].flat:  # a model without attention has no M_s
        panel.remove()
    return figure
