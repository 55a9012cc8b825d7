"""Measure what a score alone does not say of a checkpoint, and append the rows to `results/`.

    python scripts/measure.py robustness --data ISIC_FOLDER     # under other light, cameras and files
    python scripts/measure.py trust --data ISIC_FOLDER          # how far its probabilities can be believed
    python scripts/measure.py images --data ISIC_FOLDER         # each image's score, and what is unusual about it
    python scripts/measure.py attention --data ISIC_FOLDER      # whether M_s finds the lesion
    python scripts/measure.py native NATIVE_FOLDER --data ISIC_FOLDER    # the same images at native size
    python scripts/measure.py runtimes exports/efp-isic-onnx --data ISIC_FOLDER    # an exported model beside it

`robustness`: each change of `efp_hf/study/robustness.py` has one fixed strength, for images of at most 256 pixels, to
which larger ones are reduced. `trust`: how well the expected Jaccard of a mask predicts the real one, calibration
errors, and the bins of the reliability diagram (`reliability.csv`). `images`: a row an image in a file of `images/`,
its pixels and expected Jaccard, the lesion's share, border, regions and contrast, the skin's ITA. `attention`: the area
under the curve of each M_s for the lesion, J with each M_s at its mean and with equal weights of the pairs. `native`:
mean J of the images of a folder at native size and of their copies, and what image, truth and rounding make of the
difference. `runtimes`: J between the masks of both, the largest difference of logits, J with the truth.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from efp_hf.commands.arguments import add_checkpoint_argument, add_data_arguments
from efp_hf.data.lesions import load_lesions
from efp_hf.data.split import get_split
from efp_hf.inference.checkpoint import load_checkpoint, weights_digest
from efp_hf.inference.runtimes import runtime_of
from efp_hf.metrics.rows import append_row, checkpoint_columns, provenance, shorten, split_columns, write_rows
from efp_hf.metrics.scores import jaccard
from efp_hf.study.attention import measure_attention
from efp_hf.study.comparison import COUNTS
from efp_hf.study.images import images_path, measure_images
from efp_hf.study.native import compare_native, load_pairs
from efp_hf.study.reliability import bin_rows, measure_trust
from efp_hf.study.robustness import measure_changes
from efp_hf.study.runtime_agreement import compare_runtimes


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True, metavar=" | ".join(MEASURES))
    for name, measure in MEASURES.items():
        command = commands.add_parser(name, help=measure.__doc__)
        command.set_defaults(measure=measure)
        add_data_arguments(command, split="test" if name in ("robustness", "trust", "images") else "validation")
        add_checkpoint_argument(command)
        command.add_argument("--results", type=Path, default=Path("results"), help="folder of the rows (%(default)s)")
        if name == "runtimes":
            command.add_argument("exported", nargs="+", type=Path, help="folders that `efp export` wrote")
            command.add_argument("--images", type=int, default=200, help="the first of the split (%(default)s)")
            command.add_argument("--bf16", action="store_true", help="folders of OpenVINO, computed in bfloat16")
        if name == "native":
            command.add_argument("native", type=Path, help="folder of images/ and masks/; the split counts those in it")
    return parser.parse_args()


def robustness(arguments: argparse.Namespace) -> None:
    """J, TJ, Dice, failures and expected Jaccard under each change"""
    row, dataset, (model, processor) = start(arguments, max_side=512)
    row |= checkpoint_columns(arguments.checkpoint, model, processor)
    row["jaccard_temperature"] = processor.jaccard_temperature
    measured = []
    for changed in measure_changes(dataset, model, processor):
        print(
            f"{changed['change']:20} J {changed['jaccard']:.4f}  expected {changed['expected_jaccard']:.4f}", flush=True
        )
        measured.append(changed)
    for changed in measured:  # all of a run or none
        append_row(arguments.results / "robustness.csv", {**row, **changed})


def trust(arguments: argparse.Namespace) -> None:
    """rank correlation, failures found, calibration errors"""
    row, dataset, (model, processor) = start(arguments)
    measured, bins = measure_trust(dataset, model, processor)
    for name, value in measured.items():
        print(f"{name:24} {value}")
    columns = checkpoint_columns(arguments.checkpoint, model, processor)
    columns["jaccard_temperature"] = processor.jaccard_temperature
    append_row(arguments.results / "trust.csv", {**row, **columns, **measured})
    of_bin = {**provenance(), "split": arguments.split}
    of_bin |= {"weights": columns["weights"], "temperature": model.config.temperature}
    for counts in bin_rows(bins):
        append_row(arguments.results / "reliability.csv", {**of_bin, **counts})


def images(arguments: argparse.Namespace) -> None:
    """each image's score, and what is unusual about it"""
    row, dataset, (model, processor) = start(arguments)
    row |= checkpoint_columns(arguments.checkpoint, model, processor)
    measured = list(measure_images(dataset, model, processor))
    write_rows(measured, images_path(arguments.results, row["weights"], arguments.split))
    row["jaccard"] = round(
        float(np.mean([jaccard(np.array([image[name] for name in COUNTS])) for image in measured])), 6
    )
    append_row(arguments.results / "images.csv", row)
    print(f"J {row['jaccard']:.4f}")


def attention(arguments: argparse.Namespace) -> None:
    """areas of the attention maps, J without them"""
    row, dataset, (model, processor) = start(arguments)
    path = Path(arguments.checkpoint)
    row["run"] = path.parent.name if path.name == "model" else path.name  # a run of `compare.py`, or a checkpoint
    row["weights"] = weights_digest(arguments.checkpoint)
    for name, value in measure_attention(dataset, model, processor):
        print(f"{name:26} {value}", flush=True)
        row[name] = value
    append_row(arguments.results / "attention.csv", row)


def native(arguments: argparse.Namespace) -> None:
    """J at native size and on the copies"""
    row, dataset, (model, processor) = start(arguments)
    ids = set(dataset["image_id"])
    pairs = load_pairs(arguments.native)
    chosen = pairs.select([place for place, image_id in enumerate(pairs["image_id"]) if image_id in ids])
    row |= checkpoint_columns(arguments.checkpoint, model, processor)
    row |= {"images": len(chosen), **compare_native(chosen, dataset, model, processor)}
    for name, value in row.items():
        print(f"{name:34} {value}")
    append_row(arguments.results / "native.csv", row)


def runtimes(arguments: argparse.Namespace) -> None:
    """agreement of exported models with their checkpoint"""
    row, dataset, reference = start(arguments)
    size = reference[1].size
    row |= {"checkpoint": shorten(str(arguments.checkpoint)), "weights": weights_digest(arguments.checkpoint)}
    row["image_size"] = f"{size['height']}x{size['width']}"
    for folder in arguments.exported:
        agreement = compare_runtimes(dataset, reference, load_checkpoint(folder, bf16=arguments.bf16))
        columns = {
            "exported": folder.name,
            "runtime": runtime_of(folder) + " bf16" * arguments.bf16,
            "megabytes": round(sum(file.stat().st_size for file in folder.iterdir()) / 1e6, 2),
            **{name: float(f"{value:.6g}") for name, value in agreement.items()},
        }
        append_row(arguments.results / "runtimes.csv", {**row, **columns})
        print(f"{folder}: " + ", ".join(f"{name} {value:.6g}" for name, value in agreement.items()))


def start(arguments: argparse.Namespace, max_side: int | None = None):
    """The row's first columns, the images, and the checkpoint; `max_side` of the images, or their own size."""
    row = provenance()  # of the code that measures: the commit may move on while it does
    dataset = get_split(load_lesions(arguments.data, seed=arguments.split_seed, max_side=max_side), arguments.split)
    if "images" in arguments:
        dataset = dataset.select(range(min(arguments.images, len(dataset))))
    row |= split_columns(arguments.data, arguments.split, arguments.split_seed, len(dataset))
    print(f"{arguments.checkpoint}, {arguments.split} split of {Path(arguments.data).name}: {len(dataset)} images")
    return row, dataset, load_checkpoint(arguments.checkpoint)


MEASURES = {
    "robustness": robustness,
    "trust": trust,
    "images": images,
    "attention": attention,
    "native": native,
    "runtimes": runtimes,
}


def main() -> None:
    arguments = parse()
    try:
        arguments.measure(arguments)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
