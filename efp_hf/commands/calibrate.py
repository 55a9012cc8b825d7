"""Choose a checkpoint's input size, temperatures, threshold and region filter on validation.

  efp calibrate --checkpoint runs/efp --data ISIC_FOLDER
  efp calibrate --checkpoint runs/efp --data ISIC_FOLDER --image-sizes 192 256

At each size the temperature that calibrates the probabilities is fitted first. Of the best setting
by mean J the temperature is found whose expected Jaccards are the closest to the real ones, and
where the checkpoint takes clicks and boxes, another one for masks with them. Writes it all into the
checkpoint's config.json and preprocessor_config.json. Every setting that was tried goes to
postprocessing.csv in --output, every temperature of the expected Jaccard to
jaccard_temperature.csv. The test split is not read.

A checkpoint of several classes has no threshold, no region filter and no expected Jaccard: its
input size and the temperature of its probabilities are all that is chosen. Fewer than 50 validation
images choose nothing, unless --allow-few-images is passed.

Labels that overlap get a threshold each, at which their Jaccards and that of all are the best, and
the temperature of each expected Jaccard: a row a label in label_thresholds.csv.
"""

import argparse

from ..extras import require
from ..inference.checkpoint import check_prompted_size, load_checkpoint
from ..inference.task import is_lesion, labels_overlap, shows_lesions
from .arguments import (
    InputError,
    add_data_arguments,
    add_output_argument,
    add_own_checkpoint_argument,
    check_output,
    check_table,
    check_task,
    command_provenance,
    load_data,
    one_line_errors,
    own_checkpoint,
    positive_integer,
    write_errors,
)

FEW_IMAGES = 50  # of validation: with fewer what is chosen is chance
# behind the columns of the provenance, in the two tables
SETTING_COLUMNS = (
    "checkpoint",
    "validation_images",
    "image_size",
    "temperature",
    "threshold",
    "largest_region",
    "validation_jaccard",
)
TEMPERATURE_COLUMNS = (
    "validation_images",
    "checkpoint",
    "weights",
    "image_size",
    "temperature",
    "threshold",
    "largest_region",
    "jaccard_temperature",
    "jaccard_error",
    "mean_expected",
    "mean_real",
    "prompted",
)

LABEL_TABLE = "label_thresholds.csv"
LABEL_COLUMNS = (
    "label",
    "threshold",
    "jaccard",
    "jaccard_temperature",
    "jaccard_error",
    "mean_expected",
    "mean_real",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_own_checkpoint_argument(parser)
    add_data_arguments(parser, split=None)
    parser.add_argument(
        "--image-sizes", metavar="N", type=positive_integer, nargs="+", help="to try (default: the checkpoint's)"
    )
    parser.add_argument(
        "--allow-few-images", action="store_true", help=f"choose on fewer than {FEW_IMAGES} validation images, too"
    )
    parser.add_argument(
        "--task",
        choices=("lesion", "structures"),
        default="lesion",
        help="structures: refuse a checkpoint that is not for those of ISIC 2018, Task 2",
    )
    add_output_argument(parser, "calibration", "the two tables")


def run(arguments: argparse.Namespace) -> int:
    folder = own_checkpoint(arguments.checkpoint)
    check_output(arguments.output)
    with one_line_errors():
        require("train", "this command")
    from tqdm import tqdm

    from ..metrics.calibration import (
        JACCARD_TEMPERATURES,
        fit_temperature,
        grid_jaccard_temperatures,
        pixel_probabilities,
    )
    from ..metrics.correction import prompted_rows
    from ..metrics.evaluation import THRESHOLDS, check_classes, grid_jaccards, segment_rows
    from ..metrics.rows import append_row, checkpoint_columns, shorten
    from ..training.fingerprint import chosen_on, read_fingerprint, write_fingerprint

    row = command_provenance(arguments)
    settings_table = arguments.output / "postprocessing.csv"
    temperatures_table = arguments.output / "jaccard_temperature.csv"
    check_table(settings_table, [*row, *SETTING_COLUMNS])
    check_table(temperatures_table, [*row, *TEMPERATURE_COLUMNS])
    with one_line_errors():
        model, processor = load_checkpoint(folder, runtime="torch", allow_overlap=True, allow_channels=True)
        overlap = labels_overlap(model.config)
        check_task(arguments, model)
        if overlap and arguments.image_sizes is not None:
            raise InputError("`--image-sizes` must be left out where labels overlap: their thresholds are chosen.")
        for image_size in arguments.image_sizes or ():
            check_prompted_size(model, {"height": image_size, "width": image_size})
        fingerprint = read_fingerprint(folder)
        validation = load_data(arguments, overlap)["validation"]
        check_classes(validation, model, arguments.checkpoint)
    if len(validation) < FEW_IMAGES and not arguments.allow_few_images:
        kept = f"temperature {model.config.temperature}"
        if overlap:
            kept = f"thresholds {processor.threshold}"
        elif is_lesion(model.config):
            kept += f", threshold {processor.threshold}, largest_region {processor.largest_region}"
        print(
            f"{len(validation)} validation images are fewer than {FEW_IMAGES}: what they choose would be chance. "
            f"{arguments.checkpoint} keeps {kept}. Add images, or pass --allow-few-images."
        )
        return 0
    if overlap:
        return calibrate_labels(arguments, row, folder, model, processor, validation, fingerprint)
    if not is_lesion(model.config):
        return calibrate_classes(arguments, row, folder, model, processor, validation, fingerprint)

    image_sizes = arguments.image_sizes or [processor.size["height"]]
    # two passes over the images a size, and one of the best setting
    progress = tqdm(total=(2 * len(image_sizes) + 1) * len(validation), unit="image", disable=None)

    def counted(rows):
        for found in rows:
            yield found
            progress.update()

    regions = (False, True) if shows_lesions(model.config) else (False,)  # a lesion is one region, what else is?
    tried = {}
    with one_line_errors():  # as of masks without a border, or logits that are not finite
        for image_size in image_sizes:
            processor.size = {"height": image_size, "width": image_size}
            model.config.temperature = 1.0
            probabilities = counted(pixel_probabilities(validation, model, processor))
            model.config.temperature = round(fit_temperature(probabilities), 3)
            for (threshold, region), value in grid_jaccards(
                validation, model, processor, THRESHOLDS, regions=regions
            ).items():
                tried[image_size, model.config.temperature, threshold, region] = value
                setting = (image_size, model.config.temperature, threshold, region)
                values = (shorten(arguments.checkpoint), len(validation), *setting, round(value, 5))
                with write_errors():
                    append_row(settings_table, row | dict(zip(SETTING_COLUMNS, values, strict=True)))
            progress.update(len(validation))
    best = max(tried, key=tried.get)
    image_size, model.config.temperature, threshold, region = best
    processor.size = {"height": image_size, "width": image_size}
    processor.threshold = threshold
    processor.largest_region = region
    row |= {"validation_images": len(validation), **checkpoint_columns(arguments.checkpoint, model, processor)}
    kinds = {"jaccard_temperature": counted(segment_rows(validation, model, processor))}
    if model.prompt_encoder is not None:
        kinds["prompted_jaccard_temperature"] = prompted_rows(validation, model, processor)
    for name, rows in kinds.items():
        with one_line_errors():
            temperatures = grid_jaccard_temperatures(rows)
        for temperature, errors in temperatures.items():
            columns = {"jaccard_temperature": temperature, **{key: round(value, 6) for key, value in errors.items()}}
            with write_errors():
                append_row(temperatures_table, {**row, **columns, "prompted": name.startswith("prompted")})
        best_temperature = min(temperatures, key=lambda value: temperatures[value]["jaccard_error"])
        setattr(processor, name, best_temperature)
        if best_temperature in (JACCARD_TEMPERATURES[0], JACCARD_TEMPERATURES[-1]):
            print(f"{name} is at the end of what is tried: expected Jaccards may be far from the real ones.")
    progress.close()
    with write_errors():
        if fingerprint is not None:
            write_fingerprint(folder, chosen_on(fingerprint, validation))
        processor.save_pretrained(folder)
        model.config.save_pretrained(folder)
    chosen = ", ".join(f"{name} {getattr(processor, name)}" for name in kinds)
    print(
        f"{image_size}×{image_size}, temperature {model.config.temperature}, threshold {threshold}, "
        f"largest_region {region}, {chosen}: validation J {tried[best]:.4f}, in {arguments.checkpoint}"
    )
    return 0


def calibrate_classes(
    arguments: argparse.Namespace, row: dict, folder, model, processor, validation, fingerprint
) -> int:
    """Of several classes: the input size with the best mean J, and the temperature that calibrates at it."""
    from ..metrics.calibration import fit_class_temperature, pixel_probabilities
    from ..metrics.evaluation import mean_class_jaccard
    from ..metrics.rows import append_row, shorten
    from ..training.fingerprint import chosen_on, write_fingerprint

    print("Several classes have no threshold, largest region or expected Jaccard: size and temperature are chosen.")
    tried = {}
    for image_size in arguments.image_sizes or [processor.size["height"]]:
        processor.size = {"height": image_size, "width": image_size}
        model.config.temperature = 1.0
        with one_line_errors():
            temperature = round(fit_class_temperature(pixel_probabilities(validation, model, processor)), 3)
            model.config.temperature = temperature
            value = mean_class_jaccard(validation, model, processor)
        tried[image_size, temperature] = value
        values = (shorten(arguments.checkpoint), len(validation), image_size, temperature, "", "", round(value, 5))
        with write_errors():
            append_row(arguments.output / "postprocessing.csv", row | dict(zip(SETTING_COLUMNS, values, strict=True)))
    image_size, model.config.temperature = max(tried, key=tried.get)
    processor.size = {"height": image_size, "width": image_size}
    with write_errors():
        if fingerprint is not None:
            write_fingerprint(folder, chosen_on(fingerprint, validation))
        processor.save_pretrained(folder)
        model.config.save_pretrained(folder)
    print(
        f"{image_size}×{image_size}, temperature {model.config.temperature}: validation J {max(tried.values()):.4f}, "
        f"the mean of the classes, in {arguments.checkpoint}"
    )
    return 0


def calibrate_labels(
    arguments: argparse.Namespace, row: dict, folder, model, processor, validation, fingerprint
) -> int:
    """Of labels that overlap: chosen at the masks' own size, and written into the checkpoint; a row a label."""
    import numpy as np
    from tqdm import tqdm

    from ..image_processing_efp import expected_jaccard, value_of_each
    from ..inference.task import class_names_of, num_first_labels
    from ..metrics.calibration import JACCARD_TEMPERATURES
    from ..metrics.overlap import THRESHOLDS, best_thresholds, label_counts, pooled_jaccard, segment_labels
    from ..metrics.rows import append_row, checkpoint_columns
    from ..metrics.scores import jaccard
    from ..training.fingerprint import chosen_on, write_fingerprint

    table = arguments.output / LABEL_TABLE
    first, num_labels = num_first_labels(model.config), model.config.num_labels
    names = class_names_of(model.config)[first:]
    columns = checkpoint_columns(arguments.checkpoint, model, processor)
    row |= {name: columns[name] for name in ("checkpoint", "weights", "image_size")}
    check_table(table, [*row, "images", *LABEL_COLUMNS])
    counts, expected, real = [], [], []
    with one_line_errors():
        progress = tqdm(total=2 * len(validation), unit="image", disable=None)
        for _, result, truths in segment_labels(validation, model, processor):
            probabilities = result["probabilities"].cpu().numpy()[first:]
            counts.append([label_counts(probabilities > threshold, truths[first:]) for threshold in THRESHOLDS])
            progress.update()
        thresholds, shares = best_thresholds(np.array(counts))
        jaccards = pooled_jaccard(shares)
        of_first = value_of_each("threshold", processor.threshold, num_labels)[:first]
        processor.threshold = [*of_first, *thresholds]
        for _, result, truths in segment_labels(validation, model, processor):
            masks, probabilities = result["segmentation"][first:], result["probabilities"][first:]
            real.append(jaccard(label_counts(masks.cpu().numpy(), truths[first:])))
            pairs = list(zip(probabilities, masks, strict=True))
            expected.append([[expected_jaccard(*pair, value) for value in JACCARD_TEMPERATURES] for pair in pairs])
            progress.update()
        progress.close()
    expected, real = np.array(expected), np.array(real)  # (num_images, num_labels, …)
    errors = np.sqrt(np.mean((expected - real[..., None]) ** 2, axis=0))
    best = errors.argmin(1)
    temperatures = [JACCARD_TEMPERATURES[number] for number in best]
    of_first = value_of_each("jaccard_temperature", processor.jaccard_temperature, num_labels)[:first]
    processor.jaccard_temperature = [*of_first, *temperatures]
    width = max(map(len, names))
    with write_errors():
        for number, name in enumerate(names):
            chosen = (thresholds[number], jaccards[number], temperatures[number], errors[number, best[number]])
            chosen += (expected[:, number, best[number]].mean(), real[:, number].mean())
            values = dict(zip(LABEL_COLUMNS, (name, *(round(float(value), 5) for value in chosen)), strict=True))
            append_row(table, row | {"images": len(validation)} | values)
            print(
                f"{name:{width}}  threshold {values['threshold']}: validation J {values['jaccard']:.4f}; temperature "
                f"of the expected J {values['jaccard_temperature']}, error {values['jaccard_error']:.3f}"
            )
        if fingerprint is not None:
            write_fingerprint(folder, chosen_on(fingerprint, validation))
        processor.save_pretrained(folder)
    print(f"rows in {table}; written into {arguments.checkpoint}")
    return 0
