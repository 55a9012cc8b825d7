"""Train and measure the paper's comparison and EFP nano: every system on the same images, with the same recipe.

    python scripts/compare.py --data ISIC_FOLDER --track pretrained                    # all systems
    python scripts/compare.py --data ISIC_FOLDER --track scratch --systems efp unet --seeds 0 1 2
    python scripts/compare.py --data ISIC_FOLDER --track pretrained --ablation         # EFP with one thing changed

For each system: a search over the learning rate, the training, the threshold on validation, and one look at the test
split. What has a row in `results/` is skipped; what was stopped goes on where it was. Rows go to `comparison.csv` and
`learning_rates.csv`, the scores of each test image to `comparison/<run>.csv`.
"""

import argparse
import sys
from pathlib import Path

from efp_hf.data.lesions import load_lesions
from efp_hf.study.comparison import ABLATIONS, SYSTEMS, TRACKS, VARIANTS, Run, measure_system
from efp_hf.study.tables import find_rows, read_results


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="ISIC or own folder, or the Hub id of a dataset")
    parser.add_argument("--split-seed", type=int, default=0, help="of the 70/10/20 split, where the data has none")
    parser.add_argument("--track", required=True, choices=TRACKS)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS, help="default: all")
    parser.add_argument(
        "--ablation", nargs="*", choices=ABLATIONS, help="EFP's variants instead (default: all of the track)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"), help="unfinished trainings (%(default)s)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the rows (%(default)s)")
    parser.add_argument("--bf16", action="store_true", help="bfloat16, on a processor or GPU that computes in it")
    parser.add_argument("--use-cpu", action="store_true", help="train on the processor where there is a GPU, too")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    settings = {name: True for name in ("bf16", "use_cpu") if getattr(arguments, name)}
    if arguments.ablation is None:
        runs = [Run(arguments.track, system, seed) for seed in arguments.seeds for system in arguments.systems]
    else:
        variants = arguments.ablation or VARIANTS[arguments.track]
        if not variants:
            sys.exit(f"The track {arguments.track} has no variants of its own. Name some: --ablation VARIANT …")
        runs = [Run(arguments.track, "efp", seed, variant) for seed in arguments.seeds for variant in variants]
    results, name, split_seed = arguments.results, Path(arguments.data).name, arguments.split_seed
    try:
        data = load_lesions(arguments.data, seed=split_seed)
        for run in runs:
            measured = read_results(results / "comparison.csv", missing_ok=True)
            if len(find_rows(measured, **vars(run))):
                print(f"{run.name}: has its row", flush=True)
                continue
            measure_system(run, data, name, split_seed, results, arguments.runs, **settings)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
