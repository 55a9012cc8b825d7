"""Say what is in a folder of images and masks, and what is wrong with it.

  efp data MY_FOLDER
  efp data MY_FOLDER --sheet sheet.png        and draw the pairs, smallest lesion first
  efp data COCO_FOLDER --labels-overlap       each category has a mask of its own
  efp data MY_FOLDER --all > problems.txt     name all pairs that cannot be used, not ten

Every image and mask is read. Printed are the form in which they were found, the pairs of each
split, the lesion's share of the pixels, sizes and mask values; then, by name, empty and full masks,
copies of an image, and all for which a training would refuse the data. Then the exit code is 1.
"""

import argparse

from ..extras import require
from .arguments import (
    InputError,
    add_labels_overlap_argument,
    add_split_seed_argument,
    check_output,
    one_line_errors,
    own_path,
    write_errors,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="folder in one of the forms of docs/data.md, or a Hub id")
    parser.add_argument("--sheet", metavar="FILE", type=own_path, help="PNG of a contact sheet to draw")
    parser.add_argument("--overwrite", action="store_true", help="replace a sheet that is there")
    parser.add_argument("--all", action="store_true", help="name each pair that cannot be used")
    add_split_seed_argument(parser)
    add_labels_overlap_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    sheet = arguments.sheet
    if sheet is not None:
        if sheet.suffix.lower() != ".png":
            raise InputError(f"`--sheet` must be the name of a PNG file, got {sheet}. Choose another one.")
        if sheet.exists() and not arguments.overwrite:
            raise InputError(f"{sheet} is there. Pass --overwrite to replace it.")
        check_output(sheet.parent)
    with one_line_errors():
        require("train", "this command")
    from ..data.survey import draw_sheet, survey_lesions, survey_lines

    with one_line_errors():
        survey = survey_lesions(arguments.data, arguments.split_seed, arguments.labels_overlap)
    print(*survey_lines(survey, arguments.all), sep="\n")
    if sheet is not None:
        with write_errors():
            sheet.parent.mkdir(parents=True, exist_ok=True)
            draw_sheet(survey).save(sheet)
        print(sheet)
    return 1 if survey.problems or survey.bad_pairs else 0
