"""The model card of a shipped checkpoint, all of it from the rows in `results/` and from the checkpoint itself."""

import re
from math import isqrt
from pathlib import Path

import pandas as pd
import torch
import yaml
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import StrictUndefined
from safetensors.torch import load_file
from transformers.utils import SAFE_WEIGHTS_NAME

from ..configuration_efp import EFPConfig
from ..image_processing_efp import EFPImageProcessor
from ..inference.checkpoint import LESION_CHECKPOINTS, SHIPPED, STRUCTURE_CHECKPOINT, weights_digest
from ..inference.task import class_names_of, has_structures
from ..lesion.structures import STRUCTURES, title_of
from ..metrics.card import (
    DEFINITIONS,
    LABEL_SCORES,
    LABELS,
    LESION_TAGS,
    SCORES,
    TAGS,
    newest_rows,
    render,
    scores_of,
)
from ..metrics.classes import MICRO
from ..metrics.scores import JACCARD_THRESHOLD, NUM_RESAMPLES
from . import image_tables
from .checkpoint_tables import robustness_table, trust_sentence
from .comparison import Run, read_counts
from .comparison_tables import short_ablation_table, short_comparison_table
from .cost import checkpoint_costs
from .prompt_tables import prompt_tables
from .structure_table import expected_sentence, newest_scores, structures_block
from .tables import find_rows, last_row_about, read_results

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
STRUCTURE_TEMPLATE = Path(__file__).with_name("structure_card.md.jinja")
CITATION = Path(__file__).parents[2] / "CITATION.cff"
LICENSE = "apache-2.0"
FEW = 30  # images: of fewer a mean says little

# What the energy is computed with. Nothing was measured: these are assumptions, and the card prints them.
WATTS_OF_A_CORE = 10  # of a server's processor, with its share of memory and cooling
WATTS_OF_A_GPU = 700  # the most that an NVIDIA H200 takes
GRAMS_OF_A_KWH = 450  # of carbon dioxide, about the mean of the world's power plants

# file of rows → type of a metric in a card's metadata → its column, and its name
METRIC_TYPES = {
    SCORES: {name: (name, LABELS[name]) for name in ("jaccard", "threshold_jaccard", "dice")},
    "trust.csv": {
        "expected_jaccard_mean": ("mean_expected", "mean expected Jaccard"),
        "expected_jaccard_rank_correlation": ("rank_correlation", "rank correlation of expected and real Jaccard"),
        "failure_auc": ("failure_auc", "area under the ROC curve of the expected Jaccard for failures"),
        "failures": ("failures", f"failures, images with J < {JACCARD_THRESHOLD}"),
        "images": ("images", "images"),
    },
}


def eval_results(results: Path, checkpoint: Path) -> list[EvalResult]:
    """
    The newest scores of the test split of ISIC 2018, as a card's metadata holds them: those of the lesion's mask and
    how far it can be trusted, or those of the lesion's and the structures' masks.
    """
    structures = has_structures(EFPConfig.from_pretrained(checkpoint))
    found = [
        (metric, name, last_row_about(results / file, checkpoint)[column].item(), {"dataset_name": "ISIC 2018 Task 1"})
        for file, types in METRIC_TYPES.items()
        for metric, (column, name) in types.items()
        if file == SCORES or not structures
    ]
    if structures:
        task = {"dataset_name": "ISIC 2018 Task 2", "dataset_config": "Task 2"}
        for row in newest_rows(results / LABEL_SCORES, checkpoint):
            found += [(metric, name, float(value), task) for metric, name, value, *_ in scores_of(row)]
    return [
        EvalResult(
            task_type="image-segmentation",
            dataset_type="isic2018",
            dataset_split="test",
            metric_type=metric,
            metric_name=name,
            metric_value=value,
            **dataset,
        )
        for metric, name, value, dataset in found
    ]


def training_runs(results: Path, checkpoint: Path) -> list[pd.Series]:
    """
    The rows of `training.csv` and `label_training.csv` that led to a checkpoint's weights, from the first on.

    Raises:
        ValueError: a run that is not there.
    """
    files = [results / "training.csv", results / "label_training.csv"]
    rows = pd.concat([read_results(path, missing_ok=True) for path in files])
    weights, runs = weights_digest(checkpoint), []
    while weights:
        found = find_rows(rows, weights=weights)
        if found.empty:
            raise ValueError(f"{' or '.join(map(str, files))} must have the run that made {weights}. Add its row.")
        runs.insert(0, found.iloc[-1])
        weights = start_of(found.iloc[-1])[1]
    return runs


def start_of(run: pd.Series) -> tuple[str, str]:
    """Name and weights of the checkpoint that a run trained further, "efp-isic 556ca0ff2d9d"; empty without one."""
    name, _, weights = str(run["checkpoint"] if pd.notna(run["checkpoint"]) else "").rpartition(" ")
    return name, weights


def lesion_start(runs: list[pd.Series]) -> tuple[str, list[pd.Series]]:
    """
    The shipped checkpoint for lesions that the last of some runs made, and the runs after it.

    Raises:
        ValueError: none of them made one.
    """
    shipped = {weights_digest(name): name for name in LESION_CHECKPOINTS}
    for number in reversed(range(len(runs))):
        if runs[number]["weights"] in shipped:
            return shipped[runs[number]["weights"]], runs[number + 1 :]
    raise ValueError(
        f"One of the runs must have made {' or '.join(LESION_CHECKPOINTS)}, got the weights "
        f"{', '.join(run['weights'] for run in runs)}. Train the structures from one of them."
    )


def has_weights_of(checkpoint: Path, start: str) -> bool:
    """Whether a checkpoint has all weights of another one, bit for bit, but those for prompts."""
    own, others = (load_file(folder / SAFE_WEIGHTS_NAME) for folder in (checkpoint, SHIPPED / start))
    return all(
        name in own and torch.equal(own[name], values)
        for name, values in others.items()
        if not name.startswith("prompt")
    )


def hours(minutes: float, hardware: str) -> tuple[float, float]:
    """Core hours and GPU hours of a run; `hardware` as a row says it. Of a GPU's machine the cores are not counted."""
    cores = re.search(r"(\d+) cores", hardware)
    return (minutes / 60 * int(cores[1]), 0.0) if cores else (0.0, minutes / 60)


def energy_words(core_hours: float, gpu_hours: float) -> str:
    kwh = (core_hours * WATTS_OF_A_CORE + gpu_hours * WATTS_OF_A_GPU) / 1000
    gpu = f" and {gpu_hours:.2f} GPU hours" if gpu_hours else ""
    return f"{core_hours:.1f} core hours{gpu}, about {kwh:.2f} kWh and {kwh * GRAMS_OF_A_KWH:.0f} g of carbon dioxide"


def cost_text(results: Path, runs: list[pd.Series]) -> str:
    """Hours of the checkpoint's own training and of all trainings of the comparison, with the energy assumed."""
    own = [hours(run["minutes_this_session"], run["hardware"]) for run in runs]
    minutes = read_results(results / "comparison.csv").groupby("hardware")["core_minutes"].sum()
    # the minutes of these rows are a core's, or a GPU's
    study = [hours(value, re.sub(r"\d+ cores", "1 cores", hardware)) for hardware, value in minutes.items()]
    own, study = ([sum(hour) for hour in zip(*pairs, strict=True)] for pairs in (own, study))
    hardware = " and ".join(
        f"{run['hardware']}, {run['minutes_this_session']:.0f} minutes" for run in runs if run["minutes_this_session"]
    )
    return (
        f"- This checkpoint was trained on {hardware}.\n  With all cores of the machine counted that is at most "
        f"{energy_words(*own)}.\n"
        f"- All trainings of the comparison and the ablation took {energy_words(*study)}.\n"
        f"- Energy was not measured. Assumed are {WATTS_OF_A_CORE} W a core, {WATTS_OF_A_GPU} W a GPU, and "
        f"{GRAMS_OF_A_KWH} g of carbon dioxide a kWh. The search over learning rates is not counted, nor is "
        "what the encoder cost."
    )


def commands(results: Path, checkpoint: Path, runs: list[pd.Series]) -> list[tuple[str, str]]:
    """Command and a line about it, of each row that this card is made of, in the order in which they are run."""
    rows = runs[:]
    for name in ("jaccard_temperature", "label_thresholds", "scores", "trust", "images", "robustness", "prompts"):
        of_these = find_rows(read_results(results / f"{name}.csv", missing_ok=True), weights=weights_digest(checkpoint))
        if "split" in of_these:
            of_these = find_rows(of_these, split="test")
        rows += [of_these.iloc[-1]] if len(of_these) else []
    return list({row["command"]: f"{row['date']}, commit {row['commit']}, {row['hardware']}" for row in rows}.items())


def paper() -> dict:
    """The paper's title, authors, year and DOI, of CITATION.cff."""
    cited = yaml.safe_load(CITATION.read_text(encoding="utf-8"))["preferred-citation"]
    authors = [f"{author['given-names']} {author['family-names']}" for author in cited["authors"]]
    return {**cited, "authors": authors}


def metadata(results: Path, checkpoint: Path, base_model: str) -> ModelCardData:
    """What the Hub reads. The images are no data set of the Hub, so that there is no `datasets`."""
    return ModelCardData(
        license=LICENSE,
        library_name="transformers",
        pipeline_tag="image-segmentation",
        base_model=base_model,
        tags=[*LESION_TAGS, *TAGS],
        metrics=["jaccard", "dice"],
        model_name=checkpoint.name,
        eval_results=eval_results(results, checkpoint),
    )


def render_card(results: Path, checkpoint: Path, repo: str | None = None) -> str:
    """
    The card of a shipped checkpoint.

    Args:
        results: the folder of the rows.
        repo: the model's id on the Hub, "OWNER/NAME", which its code lines then use; without it the shipped name.

    Raises:
        ValueError: a row that is not there.
    """
    config = EFPConfig.from_pretrained(checkpoint)
    structures = has_structures(config)
    score = last_row_about(results / SCORES, checkpoint)
    runs = training_runs(results, checkpoint)
    parameters, multiply_adds = checkpoint_costs(checkpoint)
    train, validation, test = (int(number) for number in runs[0]["images"].split("/"))
    counts = read_counts(results / "comparison" / f"{Run('pretrained', 'efp').name}.csv")
    start, structure_runs = lesion_start(runs) if structures else ("", [])
    return render(
        STRUCTURE_TEMPLATE if structures else TEMPLATE,
        metadata(results, checkpoint, start if structures else f"timm/{runs[0]['encoder']}.in1k"),
        undefined=StrictUndefined,
        name=checkpoint.name,
        repo=repo,
        start=start,
        structure_runs=structure_runs,
        lesion_kept=structures and has_weights_of(checkpoint, start),
        classes=class_names_of(config) if structures else (),
        overlap=structures,
        config=config,
        processor=EFPImageProcessor.from_pretrained(checkpoint),
        parameters=parameters,
        multiply_adds=multiply_adds,
        encoder=runs[0]["encoder"],
        nano=bool(runs[0]["nano"]),
        score=score,
        scores=[
            (label, score[name], score.get(f"{name}_low"), score.get(f"{name}_high"), DEFINITIONS[name])
            for name, label in LABELS.items()
        ],
        failure_below=JACCARD_THRESHOLD,
        resamples=NUM_RESAMPLES,
        runs=runs,
        train=train,
        validation=validation,
        test=test,
        total=train + validation + test,
        side=isqrt(int(counts[0].sum())),
        tasks="Tasks 1 and 2" if structures else "Task 1",
        structures=structures_block(results, SHIPPED / STRUCTURE_CHECKPOINT),
        cost=cost_text(results, runs),
        commands=commands(results, checkpoint, runs),
        paper=paper(),
        **(structure_values if structures else lesion_values)(results, checkpoint),
    )


def lesion_values(results: Path, checkpoint: Path) -> dict:
    """What the card of a checkpoint for lesions alone says further."""
    of_weights = {"weights": weights_digest(checkpoint)}
    robustness = find_rows(read_results(results / "robustness.csv", missing_ok=True), **of_weights, split="test")
    native = find_rows(read_results(results / "native.csv", missing_ok=True), **of_weights)
    return {
        "scoring": "of each image at its mask's own size, then their mean",
        "trust": trust_sentence(last_row_about(results / "trust.csv", checkpoint)),
        "robustness": robustness_table(results, checkpoint),
        "changes": dict(zip(robustness["change"], robustness["jaccard"], strict=True)) if len(robustness) else {},
        "native": native.iloc[-1] if len(native) else None,
        "prompts": prompt_tables(results, checkpoint),
        "comparison": short_comparison_table(results),
        "ablation": short_ablation_table(results),
        **image_values(image_tables.read_images(results, checkpoint), checkpoint),
    }


def structure_values(results: Path, checkpoint: Path) -> dict:
    """What the card of a checkpoint with structures says further."""
    return {
        "scoring": "at each mask's own size; of the lesion the mean of the images, of the structures as is told there",
        "structure_names": [title_of(name) for name in STRUCTURES],
        "micro": newest_scores(results, checkpoint).loc[MICRO],
        "expected_error": expected_sentence(results, checkpoint),
        "thresholds": EFPImageProcessor.from_pretrained(checkpoint).threshold,
    }


def image_values(images: pd.DataFrame | None, checkpoint: Path) -> dict:
    """What the card says of the images one by one."""
    if images is None:
        return {"images": None, "not_measured": image_tables.NOT_MEASURED.format(checkpoint.name)}
    brown = list(image_tables.SKIN_GROUPS)[-3]  # the lowest ITA of tan skin: what is below is brown or dark
    return {
        "images": len(images),
        "distribution": image_tables.distribution_table(images),
        "failures": image_tables.failures_sentence(images),
        "groups": image_tables.groups_table(images),
        "worst": image_tables.worst_table(images),
        "worst_number": image_tables.WORST,
        "skin": image_tables.skin_table(images),
        "skin_difference": image_tables.skin_sentence(images),
        "dark": int((images["ita"] <= brown).sum()),
        "few": FEW,
    }
