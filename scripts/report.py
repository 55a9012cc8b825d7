"""Fill the tables of README.md, model_card.md, docs/ and the checkpoints' cards from `results/`, and draw its figures.

    python scripts/report.py                       # tables, and what shows no image: docs/figures/*.svg
    python scripts/report.py --data ISIC_FOLDER    # also masks_<track>.png, levels.png and
                                                   # corrections.png, which show images

What cannot be drawn yet is named with the command that measures it. The pictures with images of the data set go to
another folder, `--output`, that git ignores.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from efp_hf.data.folders import load_isic
from efp_hf.inference.checkpoint import (
    DEFAULT_CHECKPOINT,
    LESION_CHECKPOINTS,
    SHIPPED,
    STRUCTURE_CHECKPOINT,
    load_checkpoint,
)
from efp_hf.study.comparison import TRACKS
from efp_hf.study.comparison_tables import TITLES
from efp_hf.study.figures import (
    accuracy_figure,
    find_image,
    jaccards_figure,
    latency_figure,
    levels_figure,
    masks_figure,
    model_folders,
    reliability_figure,
    save_figure,
)
from efp_hf.study.prompt_figures import clicks_figure, corrections_figure
from efp_hf.study.structure_table import structure_figure
from efp_hf.study.texts import filled_texts

HERE = Path(__file__).resolve().parents[1]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="ISIC or own folder, for the figures that show images")
    parser.add_argument("--split-seed", type=int, default=0, help="of the 70/10/20 split, where the data has none")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the rows (%(default)s)")
    parser.add_argument("--no-texts", action="store_true", help="draw the figures alone")
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"), help="trained models (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the models whose masks are shown (%(default)s)")
    parser.add_argument("--image", help="id of the test image of levels.png (default: the first)")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="of the figures with images (%(default)s)")
    return parser.parse_args()


def draw(path: Path, make: Callable[[], Figure]) -> None:
    try:
        save_figure(make(), path)
    except (OSError, ValueError, ImportError) as error:
        print(f"{path}: not drawn. {error}", flush=True)
    else:
        print(path, flush=True)


def draw_images(arguments: argparse.Namespace) -> None:
    """The figures that show images of the data set."""
    dataset = load_isic(arguments.data, seed=arguments.split_seed)["test"]
    for track in TRACKS:
        path = arguments.output / f"masks_{track}.png"
        folders = model_folders(track, arguments.runs, arguments.seed)
        there = {system: folder for system, folder in folders.items() if (folder / "config.json").is_file()}
        for system, folder in folders.items():
            if system not in there:
                print(f"{path}: without {TITLES[system]}, no model in {folder}", flush=True)
        draw(path, partial(masks_figure, arguments.results, track, dataset, there, arguments.seed))

    checkpoint = load_checkpoint(DEFAULT_CHECKPOINT)

    def draw_levels() -> Figure:
        position = find_image(dataset, arguments.image) if arguments.image else 0
        return levels_figure(dataset[position]["image"], *checkpoint)

    draw(arguments.output / "levels.png", draw_levels)
    draw(arguments.output / "corrections.png", partial(corrections_figure, dataset, *checkpoint))


def main() -> None:
    arguments = parse()
    if not arguments.no_texts:
        for path, text in filled_texts(HERE, arguments.results).items():
            path.write_text(text, encoding="utf-8")
    figures = Path("docs", "figures")
    draw(figures / "accuracy.svg", partial(accuracy_figure, arguments.results))
    draw(figures / "latency.svg", partial(latency_figure, arguments.results))
    draw(figures / "reliability.svg", partial(reliability_figure, arguments.results, SHIPPED / DEFAULT_CHECKPOINT))
    draw(figures / "jaccards.svg", partial(jaccards_figure, arguments.results))
    shipped = tuple(SHIPPED / name for name in LESION_CHECKPOINTS)
    draw(figures / "clicks.svg", partial(clicks_figure, arguments.results, shipped))
    structures = SHIPPED / STRUCTURE_CHECKPOINT
    draw(figures / "structures.svg", partial(structure_figure, arguments.results, structures))
    if arguments.data is not None:
        try:
            draw_images(arguments)
        except (OSError, ValueError) as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
