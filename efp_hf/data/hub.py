"""Lesion images and masks of a dataset on the Hub, as a `DatasetDict`."""

from ..extras import needing
from ..image_processing_efp import check_sizes, to_upright_rgb
from .duplicates import perceptual_hash
from .pairs import FEATURES, reduce_pair, reduced_size
from .split import GROUP_COLUMNS, SPLITS, draw_split

with needing("train", __name__):
    from datasets import Dataset, DatasetDict, Value, load_dataset
    from datasets import Image as ImageFeature


def load_hub_lesions(
    name: str,
    image_column: str = "image",
    mask_column: str = "mask",
    seed: int = 0,
    max_side: int | None = 512,
    **kwargs,
) -> DatasetDict:
    """
    A dataset of the Hub (or anything that `datasets.load_dataset` takes) as `load_isic` gives one.

    Missing splits are drawn from `train`; the columns `patient_id` and `lesion_id` are respected where present. What is
    larger than `max_side` is reduced once and kept in the cache of `datasets`.

    Raises:
        ValueError: no `train` split, or a missing column, with the columns that there are; a mask of another size than
            its image, by name.
    """
    loaded = load_dataset(name, **kwargs)
    if "train" not in loaded:
        raise ValueError(f"{name}: a `train` split is needed, got {list(loaded)}.")
    unknown = set(loaded) - set(SPLITS)
    if unknown:
        raise ValueError(f"{name}: splits must be among {', '.join(SPLITS)}, got {', '.join(loaded)}. Rename them.")
    splits = {}
    for split in [split for split in SPLITS if split in loaded]:
        dataset = loaded[split]
        for column in (image_column, mask_column):
            if column not in dataset.column_names:
                raise ValueError(
                    f"{name}: no column {column!r}, got {dataset.column_names}. Pass image_column and mask_column."
                )
        dataset = dataset.rename_columns(
            {old: new for old, new in ((image_column, "image"), (mask_column, "mask")) if old != new}
        )
        if "image_id" not in dataset.column_names:
            dataset = dataset.add_column("image_id", [f"{split}_{row:07d}" for row in range(len(dataset))])
        splits[split] = dataset.cast_column("image", ImageFeature()).cast_column("mask", ImageFeature())
        splits[split] = splits[split].cast_column("image_id", Value("string"))

    missing = [split for split in SPLITS if split not in splits]
    if missing:
        train = splits["train"]
        pixels = train.select_columns(["image"])
        entries = [
            {"image_id": image_id, "hash": perceptual_hash(pixels[row]["image"]), "row": row}
            for row, image_id in enumerate(train["image_id"])
        ]
        groups = {
            image_id: [f"{column}:{train[column][row]}" for column in GROUP_COLUMNS if has_value(train, column, row)]
            for row, image_id in enumerate(train["image_id"])
        }
        drawn = draw_split(entries, groups, seed, ["train", *missing])
        splits.update({split: train.select([entry["row"] for entry in drawn[split]]) for split in drawn})
    chosen = {split: splits[split].select_columns(list(FEATURES)) for split in SPLITS}
    if max_side is not None:
        # as files, not as pixels: what is small enough stays the file that it is
        for split, dataset in chosen.items():
            files = cast_images(dataset, ImageFeature(decode=False))
            files = files.map(reduce_row, fn_kwargs={"max_side": max_side}, desc=f"{name}, {split}: reducing")
            chosen[split] = cast_images(files, ImageFeature())
    return DatasetDict(chosen)


def has_value(dataset: Dataset, column: str, row: int) -> bool:
    return column in dataset.column_names and dataset[column][row] not in (None, "")


def cast_images(dataset: Dataset, feature: ImageFeature) -> Dataset:
    return dataset.cast_column("image", feature).cast_column("mask", feature)


def reduce_row(row: dict, max_side: int) -> dict:
    """`image` and `mask` of a row, both as files, reduced; nothing where they are at most `max_side` large."""
    image, mask = (ImageFeature().decode_example(row[column]) for column in ("image", "mask"))
    check_sizes(row["image_id"], image.size[::-1], mask.size[::-1])
    size_to_keep = reduced_size(mask.size[::-1], max_side)
    if size_to_keep == mask.size[::-1]:
        return {}
    return dict(zip(("image", "mask"), reduce_pair(to_upright_rgb(image), mask, size_to_keep), strict=True))
