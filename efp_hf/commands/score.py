"""Score a checkpoint, or a folder of masks, with the ISIC metrics at the masks' own size.

  efp score --data ISIC_FOLDER                         the shipped checkpoint on the test split
  efp score --data ISIC_FOLDER --split validation --checkpoint runs/mine
  efp score --data ISIC_FOLDER --masks masks           files named <id>_segmentation.png
  efp score --data ISIC_FOLDER --prompts               simulated clicks and boxes, GrabCut beside
  efp score --data ISIC_FOLDER --task structures --checkpoint runs/structures

Prints every score with its 95 % bootstrap interval over images, and adds a row to scores.csv in
--output; of several classes a row for each and one for their mean, to class_scores.csv, and of
labels that overlap, to label_scores.csv, with the official micro-average of ISIC 2018's Task 2;
the lesion beside structures has its row in scores.csv. A test split that holds images on which the
checkpoint was trained or chosen is refused.
"""

import argparse
from pathlib import Path

from ..extras import require
from ..inference.checkpoint import FIGURE, TRAINING_IMAGES, load_checkpoint, weights_digest
from .arguments import (
    InputError,
    add_batch_size_argument,
    add_checkpoint_argument,
    add_data_arguments,
    add_labels_overlap_argument,
    add_output_argument,
    check_output,
    check_table,
    check_task,
    command_provenance,
    load_data,
    one_line_errors,
    own_checkpoint,
    own_path,
    write_errors,
)

SETTINGS = ("weights", "image_size", "threshold", "largest_region")  # columns of a checkpoint's row
PROMPT_TABLES = ("prompts.csv", "number_of_clicks.csv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    scored = parser.add_mutually_exclusive_group()
    add_checkpoint_argument(scored)
    scored.add_argument("--masks", metavar="DIR", type=own_path, help="score the masks of this folder instead")
    parser.add_argument(
        "--allow-training-images", action="store_true", help="score a test split with training images in it, too"
    )
    parser.add_argument(
        "--card",
        action="store_true",
        help="also write the README.md of a checkpoint of yours, as `efp card`, with images of the split in masks.png",
    )
    parser.add_argument(
        "--task",
        choices=("lesion", "structures"),
        default="lesion",
        help="structures: those of ISIC 2018, Task 2; masks <id>_attribute_<name>.png",
    )
    add_labels_overlap_argument(parser)
    parser.add_argument("--prompts", action="store_true", help="score under simulated clicks and boxes; minutes")
    add_batch_size_argument(parser)
    add_output_argument(parser, "scores", "scores.csv")


def count_training_images(
    arguments: argparse.Namespace, dataset, fingerprint: set[tuple[str, str]] | None
) -> int | str:
    """
    How many of the images the checkpoint was trained or chosen on; "" where it does not say.

    Raises:
        InputError: there are some in a split that is called test.
    """
    from ..training.fingerprint import image_hashes, shared_images

    if fingerprint is None:
        print(f"{arguments.checkpoint} has no {TRAINING_IMAGES}: whether these images trained it is not known.")
        return ""
    shared = shared_images(image_hashes(dataset), fingerprint)
    if not shared:
        return 0
    found = f"{len(shared)} of the {len(dataset)} images are among those that {arguments.checkpoint} was trained on"
    if arguments.split == "test" and not arguments.allow_training_images:
        ids = ", ".join(dataset["image_id"][position] for position in shared[:5])
        raise InputError(
            f"{arguments.data}: {found} ({ids}{', …' if len(shared) > 5 else ''}). Score other images, or pass "
            "--allow-training-images: the row then says how many there are."
        )
    print(f"{found}.")
    return len(shared)


def run(arguments: argparse.Namespace) -> int:
    from ..metrics.card import figure_of

    check_output(arguments.output)
    if arguments.allow_training_images and arguments.masks is not None:
        raise InputError("`--allow-training-images` must be used with a checkpoint, got --masks. Leave one out.")
    if arguments.prompts and arguments.masks is not None:
        raise InputError("`--prompts` must be used with a checkpoint, got --masks. Leave one out.")
    if arguments.card and (arguments.prompts or arguments.masks is not None):
        raise InputError("`--card` must be used with a checkpoint's own masks. Leave out --prompts and --masks.")
    card = own_checkpoint(arguments.checkpoint) / "README.md" if arguments.card else None
    if card is not None and card.exists():
        raise InputError(f"{card} is there. Leave out --card, and replace it with `efp card --overwrite`.")
    if card is not None and (figure := card.with_name(FIGURE)).exists() and figure_of(card.parent) is None:
        raise InputError(f"{figure} is there, and no card's. Move it away, or leave out --card.")
    with one_line_errors():
        require("train", "this command")
    if arguments.prompts and (arguments.labels_overlap or arguments.task == "structures"):
        raise InputError("`--prompts` must have one class, and no labels that overlap. Leave it out.")
    code = score_prompts(arguments) if arguments.prompts else score_masks(arguments)
    if card is not None:
        add_card(card, arguments)
    return code


def add_card(card: Path, arguments: argparse.Namespace) -> None:
    from ..metrics.card import newest_rows, scores_for, write_card

    with write_errors():
        scores = arguments.output / scores_for(card.parent)
        write_card(card.parent.resolve(), newest_rows(scores, card.parent, arguments.split))
    print(card)


def score_prompts(arguments: argparse.Namespace) -> int:
    """The masks of simulated clicks and boxes → a row a kind of prompts, and a row a target of J."""
    from ..data.split import SPLITS, get_split
    from ..metrics.correction import PERFECT, correct_images, summarize_corrections
    from ..metrics.evaluation import check_channels
    from ..metrics.rows import append_row, checkpoint_columns, split_columns
    from ..training.fingerprint import read_fingerprint

    row = command_provenance(arguments)
    with one_line_errors():
        get_split(dict.fromkeys(SPLITS), arguments.split)
        model, processor = load_checkpoint(arguments.checkpoint, runtime="torch")
        if model.prompt_encoder is None:
            raise ValueError(
                f"{arguments.checkpoint} must take prompts to be scored with them, and does not. Train it with "
                "`efp train --prompts`."
            )
        fingerprint = read_fingerprint(arguments.checkpoint)
        dataset = get_split(load_data(arguments), arguments.split)
        check_channels(dataset, model, arguments.checkpoint)
        row |= split_columns(arguments.data, arguments.split, arguments.split_seed, len(dataset))
        row["training_images"] = count_training_images(arguments, dataset, fingerprint)
        row |= checkpoint_columns(arguments.checkpoint, model, processor)
        columns = [[*row, *rows[0]] for rows in summarize_corrections([PERFECT])]
        for name, table_columns in zip(PROMPT_TABLES, columns, strict=True):
            check_table(arguments.output / name, table_columns)
        prompts, clicks = summarize_corrections(list(correct_images(dataset, model, processor)))
    with write_errors():
        for name, rows in zip(PROMPT_TABLES, (prompts, clicks), strict=True):
            for scores in rows:
                append_row(arguments.output / name, row | scores)
    for scores in prompts:
        print(
            f"{scores['prompts']:12} {scores['place']:14} J {scores['jaccard']:.4f}  [{scores['jaccard_low']:.4f}, "
            f"{scores['jaccard_high']:.4f}]  Dice {scores['dice']:.4f}  failures {scores['failure_rate']:.1%}"
        )
    for scores in clicks:
        print(
            f"NoC@{100 * scores['target']:.0f}       {scores['place']:14} {scores['clicks']:.2f}  "
            f"[{scores['clicks_low']:.2f}, {scores['clicks_high']:.2f}]  never {scores['never']:.1%}"
        )
    print(f"rows in {' and '.join(str(arguments.output / name) for name in PROMPT_TABLES)}")
    return 0


def score_masks(arguments: argparse.Namespace) -> int:
    """A checkpoint's masks, or those of a folder, with every metric → a row."""
    import evaluate
    import numpy as np
    from tqdm import tqdm

    from ..data.classes import class_names
    from ..data.overlap import label_names
    from ..data.split import SPLITS, get_split
    from ..inference.task import labels_overlap
    from ..metrics.card import CLASS_SCORES, SCORES, Extremes
    from ..metrics.classes import summarize_classes
    from ..metrics.evaluation import boundary_scores, check_classes, folder_masks, model_masks
    from ..metrics.rows import append_row, shorten, split_columns
    from ..metrics.scores import confusion_counts, jaccard, summarize
    from ..training.fingerprint import read_fingerprint

    row = {
        **command_provenance(arguments),
        **split_columns(arguments.data, arguments.split, arguments.split_seed, 0),
        "training_images": "",
        "scored": shorten(arguments.checkpoint if arguments.masks is None else str(arguments.masks)),
        **dict.fromkeys(SETTINGS, ""),
    }
    table = arguments.output / SCORES
    perfect = summarize(np.array([[1, 0, 0, 1]]), hd95s=np.zeros(1), boundary_f1s=np.ones(1), num_resamples=1)
    check_table(table, [*row, *perfect])
    with one_line_errors():
        get_split(dict.fromkeys(SPLITS), arguments.split)  # before the images are read
        overlap = arguments.labels_overlap or arguments.task == "structures"
        if arguments.masks is None:
            model, processor = load_checkpoint(arguments.checkpoint, allow_overlap=True, allow_channels=True)
            check_task(arguments, model)
            overlap = overlap or labels_overlap(model.config)
            fingerprint = read_fingerprint(arguments.checkpoint)
        dataset = get_split(load_data(arguments, overlap), arguments.split)
        classes = class_names(dataset)
        if arguments.masks is None:
            check_classes(dataset, model, arguments.checkpoint)
            row |= {"weights": weights_digest(arguments.checkpoint)}
            row["image_size"] = f"{processor.size['height']}x{processor.size['width']}"
            row["training_images"] = count_training_images(arguments, dataset, fingerprint)
        if label_names(dataset):
            checkpoint = (model, processor) if arguments.masks is None else None
            return score_labels(arguments, dataset, checkpoint, row)
        if len(classes) > 1:
            table = arguments.output / CLASS_SCORES
            of_classes = summarize_classes(np.ones((1, len(classes), 4), np.int64), classes, num_resamples=1)
            check_table(table, [*row, *of_classes[0]])
        if arguments.masks is not None:
            masks = folder_masks(dataset, arguments.masks)
        else:
            if len(classes) < 2:
                row |= {"threshold": processor.threshold, "largest_region": processor.largest_region}
            masks = model_masks(dataset, model, processor, arguments.batch_size)
        extremes = Extremes()
        if len(classes) > 1:
            return score_classes(arguments, masks, dataset, classes, row, table, extremes)
        metric = evaluate.load(str(Path(__file__).parents[1] / "metrics" / "lesion_segmentation"))
        boundary = {"hd95": [], "boundary_f1": []}
        for number, (_, mask, truth) in enumerate(tqdm(masks, total=len(dataset), unit="image", disable=None)):
            metric.add(prediction=mask, reference=truth)
            if arguments.card:
                extremes.add(float(jaccard(confusion_counts(mask, truth))), number, mask, truth)
            for name, value in boundary_scores(mask, truth).items():
                boundary[name].append(value)
    scores = metric.compute()
    scores.update({name: sum(values) / len(values) for name, values in boundary.items()})

    row["images"] = len(dataset)
    try:
        print(f"{row['scored']}, {arguments.split} split of {Path(arguments.data).name}: {len(dataset)} images")
        for name, value in scores.items():
            if not name.endswith(("_low", "_high")):
                low, high = scores.get(f"{name}_low"), scores.get(f"{name}_high")
                print(f"{name:24} {value:.4f}" + ("" if low is None else f"  [{low:.4f}, {high:.4f}]"))
    finally:  # also where nobody reads what is printed
        with write_errors():
            append_row(table, {**row, **{name: round(value, 6) for name, value in scores.items()}})
    print(f"row in {table}")
    add_figure(arguments, extremes, dataset, classes)
    return 0


def add_figure(arguments: argparse.Namespace, extremes, dataset, classes: tuple[str, ...]) -> None:
    """Of a card: the images of the split whose masks are the worst and the best."""
    from ..metrics.card import draw_extremes, save_figure

    if arguments.card:
        with write_errors():
            picture = draw_extremes(extremes, dataset, classes)
            save_figure(picture, own_checkpoint(arguments.checkpoint).resolve(), arguments.split)


def score_classes(
    arguments: argparse.Namespace, masks, dataset, classes: tuple[str, ...], row: dict, table: Path, extremes
) -> int:
    """Masks of several classes → a row a class and one of their mean."""
    import numpy as np
    from tqdm import tqdm

    from ..metrics.classes import class_counts, class_scores, nan_mean, summarize_classes
    from ..metrics.rows import append_row

    counts = []
    for number, (_, mask, truth) in enumerate(tqdm(masks, total=len(dataset), unit="image", disable=None)):
        counts.append(class_counts(mask, truth, len(classes)))
        if arguments.card:
            of_image = float(np.nan_to_num(nan_mean(class_scores(counts[-1])), nan=1.0))  # nothing there, none found
            extremes.add(of_image, number, mask, truth)
    row["images"] = len(dataset)
    rows = summarize_classes(np.array(counts), classes)
    try:
        print(f"{row['scored']}, {row['split']} split of {row['data']}: {len(dataset)} images")
        width = max(len(scores["class"]) for scores in rows)
        for scores in rows:
            j, dice = (
                f"{title} {scores[name]:.4f}  [{scores[f'{name}_low']:.4f}, {scores[f'{name}_high']:.4f}]"
                for title, name in (("J", "jaccard"), ("Dice", "dice"))
            )
            print(f"{scores['class']:{width}}  {j}  {dice}  in {scores['class_images']} images")
    finally:  # also where nobody reads what is printed
        with write_errors():
            for scores in rows:
                numbers = {name: round(value, 6) if name != "class" else value for name, value in scores.items()}
                append_row(table, row | numbers)
    print(f"rows in {table}")
    add_figure(arguments, extremes, dataset, classes)
    return 0


def score_labels(arguments: argparse.Namespace, dataset, checkpoint: tuple | None, row: dict) -> int:
    """
    The masks of labels that overlap, of a checkpoint's model and processor or of a folder → a row a label, one of the
    micro-average and one of the mean. The lesion of a checkpoint with structures gets a row of `scores.csv`.
    """
    import numpy as np
    from tqdm import tqdm

    from ..data.overlap import label_names
    from ..image_processing_efp import value_of_each
    from ..inference.task import num_first_labels
    from ..lesion.structures import LABELS
    from ..metrics.card import LABEL_SCORES, SCORES
    from ..metrics.evaluation import boundary_scores
    from ..metrics.overlap import label_counts, label_masks_of_folder, presence_of, segment_labels, summarize_labels
    from ..metrics.rows import append_row
    from ..metrics.scores import summarize

    labels, table = label_names(dataset), arguments.output / LABEL_SCORES
    row["images"] = len(dataset)
    presences, thresholds = [], {}
    if checkpoint is None:
        first = int(labels == LABELS)  # of a folder with the masks of Task 2 alone
        masks = label_masks_of_folder(dataset, arguments.masks, first)
    else:
        model, processor = checkpoint
        first = num_first_labels(model.config)
        thresholds = dict(zip(labels, value_of_each("threshold", processor.threshold, len(labels)), strict=True))
        masks = segment_labels(dataset, model, processor, arguments.batch_size)
    scored = labels[first:]
    check_table(table, [*row, *summarize_labels(np.ones((1, len(scored), 4), int), scored, num_resamples=1)[0]])
    counts, boundaries = [], []
    for _, found, truths in tqdm(masks, total=len(dataset), unit="image", disable=None):
        if checkpoint is not None:
            presences.append(presence_of(found["probabilities"].cpu().numpy()))
            found = found["segmentation"].cpu().numpy()
            boundaries += [boundary_scores(found[0], truths[0])] if first else []
        counts.append(label_counts(found, truths))
    counts = np.array(counts)
    scores = summarize_labels(counts[:, -len(scored) :], scored, np.array(presences)[:, first:] if presences else None)
    lesion = {}
    if boundaries:
        of_each = {f"{name}s": np.array([of_one[name] for of_one in boundaries]) for name in boundaries[0]}
        lesion = {name: round(value, 6) for name, value in summarize(counts[:, 0], **of_each).items()}
    try:
        print(f"{row['scored']}, {row['split']} split of {row['data']}: {row['images']} images")
        width = max(len(of_one["label"]) for of_one in scores) + 2
        print(f"{'':{width}}{'J (official)':26}{'Dice':8}{'J an image':12}{'present: AUC':26}images")
        for of_one in scores:
            official, auc = (
                f"{of_one[name]:.4f}  [{of_one[f'{name}_low']:.4f}, {of_one[f'{name}_high']:.4f}]"
                for name in ("jaccard", "auc")
            )
            dice, per_image = (f"{of_one[name]:.4f}" for name in ("dice", "image_jaccard"))
            print(f"{of_one['label']:{width}}{official:26}{dice:8}{per_image:12}{auc:26}{of_one['images_with_it']}")
        if lesion:
            interval = f"[{lesion['jaccard_low']:.4f}, {lesion['jaccard_high']:.4f}]"
            print(f"the {labels[0]}'s own J: {lesion['jaccard']:.4f}  {interval}, row in {table.with_name(SCORES)}")
    finally:  # also where nobody reads what is printed
        with write_errors():
            for of_one in scores:
                numbers = {name: value if isinstance(value, str) else round(value, 6) for name, value in of_one.items()}
                append_row(table, row | {"threshold": thresholds.get(of_one["label"], "")} | numbers)
            if lesion:
                settings = {"threshold": thresholds[labels[0]], "largest_region": processor.largest_region}
                append_row(table.with_name(SCORES), row | settings | lesion)
    print(f"rows in {table}")
    return 0
