"""Train and measure the paper's comparison and EFP nano: every system on the same images, with the same recipe.

    python scripts/compare.py --data ISIC_FOLDER --track pretrained                    # all systems
    python scripts/compare.py --data ISIC_FOLDER --track scratch --systems efp unet --seeds 0 1 2
    python scripts/compare.py --data ISIC_FOLDER --track pretrained --ablation         # EFP with one thing changed

For each system: a search over the learning rate, the training, the threshold on validation, and one look at the test
split. What has a row in `results/` is skipped; what was stopped goes on where it was. Rows go to `comparison.csv` and
`learning_rates.csv`, the scores of each test image to `comparison/<run>.csv`.
"""

import argparse
import shutil
import sys
from pathlib import Path

from efp_hf.arguments import add_data_arguments
from efp_hf.comparison import (
    ABLATIONS,
    LEARNING_RATES,
    SYSTEMS,
    TRACKS,
    Run,
    choose_threshold,
    multiply_adds,
    read_counts,
    score_images,
    train_system,
)
from efp_hf.image_processing_efp import EFPImageProcessor
from efp_hf.isic import load_lesions
from efp_hf.metrics import summarize
from efp_hf.results import append_row, provenance, read_rows, write_rows

OF_TRAINING = ("bf16", "use_cpu")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_arguments(parser, split=None)
    parser.add_argument("--track", required=True, choices=TRACKS)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS, help="default: all")
    parser.add_argument(
        "--ablation", nargs="*", choices=ABLATIONS, help="EFP's variants instead (default: all of them)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"), help="unfinished trainings (%(default)s)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the rows (%(default)s)")
    parser.add_argument("--bf16", action="store_true", help="bfloat16, on a processor or GPU that computes in it")
    parser.add_argument("--use-cpu", action="store_true", help="train on the processor where there is a GPU, too")
    return parser.parse_args()


def find_rows(path: Path, **wanted) -> list[dict[str, str]]:
    """The rows of a CSV file that have these values; none where there is no file."""
    rows = read_rows(path, missing_ok=True)
    return [row for row in rows if all(row[name] == str(wanted[name]) for name in wanted)]


def search_learning_rate(run: Run, data, arguments: argparse.Namespace, settings: dict) -> float:
    """The rate with the best validation J after a short training; the seed 0 speaks for all seeds and variants."""
    track, path = TRACKS[run.track], arguments.results / "learning_rates.csv"
    searched = "pretrained" if run.track == "small" else run.track
    key = {"track": searched, "system": run.system, "image_size": track.search_size, "epochs": track.search_epochs}
    for rate in LEARNING_RATES:
        if find_rows(path, **key, learning_rate=rate):
            continue
        output = arguments.runs / f"search-{run.track}-{run.system}-{rate}"
        row = provenance()
        _, score = train_system(
            Run(run.track, run.system),
            data,
            output,
            rate,
            track.search_size,
            track.search_epochs,
            keep_best=False,
            **settings,
        )
        append_row(path, {**row, **key, "learning_rate": rate, "validation_jaccard": round(score["jaccard"], 4)})
        shutil.rmtree(output)
        print(f"{run.track} {run.system}: rate {rate}, validation J {score['jaccard']:.4f}", flush=True)
    return max(LEARNING_RATES, key=lambda rate: find_rows(path, **key, learning_rate=rate)[0]["validation_jaccard"])


def measure(run: Run, data, arguments: argparse.Namespace, settings: dict) -> None:
    """Train, choose the threshold on validation, read the test split once, and write what came out."""
    track, output = TRACKS[run.track], arguments.runs / run.name
    rate = search_learning_rate(run, data, arguments, settings)
    row = provenance()
    model, trained = train_system(run, data, output, rate, run.image_size, track.epochs, **settings)
    processor = EFPImageProcessor(size={"height": run.image_size, "width": run.image_size})
    processor.threshold, validation_jaccard = choose_threshold(model, processor, data["validation"])
    model.save_pretrained(output / "model")
    processor.save_pretrained(output / "model")

    image_scores = arguments.results / "comparison" / f"{run.name}.csv"
    rows = score_images(model, processor, data["test"])
    write_rows(rows, image_scores)
    scores = summarize(read_counts(image_scores))
    for name in ("hd95", "boundary_f1"):
        scores[name] = sum(image[name] for image in rows) / len(rows)
    append_row(
        arguments.results / "comparison.csv",
        {
            **row,
            "data": Path(arguments.data).name,
            "split_seed": arguments.split_seed,
            "track": run.track,
            "system": run.system,
            "variant": run.variant,
            "seed": run.seed,
            "image_size": run.image_size,
            "epochs": track.epochs,
            "images_seen": track.epochs * len(data["train"]),
            "learning_rate": rate,
            "precision": "bf16" if arguments.bf16 else "float32",
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "multiply_adds": multiply_adds(model, run.image_size),
            "core_minutes": round(trained["core_seconds"] / 60, 1),
            "threshold": processor.threshold,
            "validation_jaccard": round(validation_jaccard, 4),
            "images": len(rows),
            **{name: round(value, 6) for name, value in scores.items()},
        },
    )
    for checkpoint in output.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    print(f"{run.name}: validation J {validation_jaccard:.4f}, test J {scores['jaccard']:.4f}", flush=True)


def main() -> None:
    arguments = parse()
    settings = {name: True for name in OF_TRAINING if getattr(arguments, name)}
    if arguments.ablation is None:
        runs = [Run(arguments.track, system, seed) for seed in arguments.seeds for system in arguments.systems]
    else:
        variants = arguments.ablation or list(ABLATIONS)
        runs = [Run(arguments.track, "efp", seed, variant) for seed in arguments.seeds for variant in variants]
    try:
        data = load_lesions(arguments.data, seed=arguments.split_seed)
        for run in runs:
            key = {"track": run.track, "system": run.system, "variant": run.variant, "seed": run.seed}
            if find_rows(arguments.results / "comparison.csv", **key):
                print(f"{run.name}: has its row", flush=True)
                continue
            measure(run, data, arguments, settings)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
