"""Image and mask to tensors; logits to a mask of the image's own size."""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import validate_typed_dict
from PIL import Image, ImageOps
from torchvision.transforms.v2 import InterpolationMode
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_transforms import convert_to_rgb
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    ImageInput,
    PILImageResampling,
    SizeDict,
)
from transformers.processing_utils import ImagesKwargs, Unpack
from transformers.utils import IMAGE_PROCESSOR_NAME

from .configuration_efp import MAX_TEMPERATURE, PADDING, check_fields, damage_named, with_code_files

NUM_ROWS = 128  # of an image that are added up at a time
MIN_POINTS = 512  # more than the logits have
SHARE_TOLERANCE = 0.05  # by which the lesion's share of what is read may be wrong
NUM_COLOURS = 3
# least and most that pixels of 0..255 or 0..1 need
PIXEL_RANGES = {"rescale_factor": (1e-5, 1), "image_mean": (0, 255), "image_std": (1e-3, 255)}
MAX_SIDE = 2048  # of what the network is given: 8 times the default, 64 times its memory
ORIENTATION_TAG = 0x0112  # of EXIF
# defaults of the pipeline "image-segmentation": of a label's score, of its mask's pixels, and of masks in one another
PIPELINE_THRESHOLDS = (0.9, 0.5, 0.5)
MIN_PROBABILITY = 1e-6  # a probability of 0 in float32 has no logit


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """
    The picture that a person sees, as 8-bit RGB: rotated as its EXIF tag says, 16-bit grey scaled to 8 bits,
    transparency on white, palette and CMYK converted. The image itself where it is that already.

    Raises:
        ValueError: pixels whose white level nobody knows: 32-bit integers, floats, or 16 bits with data of 12 or fewer;
            an image that is transparent everywhere; an orientation that is no number.
    """
    if 2 <= orientation_of(image) <= 8:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        grey = np.asarray(image)
        if grey.max() < 4096:
            raise ValueError(
                f"`image` must use its 16 bits, got values up to {grey.max()}: data of 12 or fewer bits, whose white "
                "level the file does not say. Save it as 8-bit RGB."
            )
        image = Image.fromarray(np.round(grey.astype(np.float64) / 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(
            f"`image` must have 8 or 16 bits a channel, got mode {image.mode!r} (32 bits). Save it as 8-bit RGB."
        )
    if image.has_transparency_data and image.convert("RGBA").getextrema()[3] == (0, 0):
        raise ValueError(
            "`image` must not be transparent everywhere: nothing of it is to be seen. Save it without alpha."
        )
    return Image.fromarray(convert_to_rgb(image, return_numpy=True))


def orientation_of(image: Image.Image) -> int:
    """
    The number 1..8 of EXIF, 1 upright, 5..8 with swapped axes; 1 where there is none.

    Raises:
        ValueError: a tag that is no number.
    """
    orientation = image.getexif().get(ORIENTATION_TAG, 1)
    if not isinstance(orientation, int):
        raise ValueError(
            f"The EXIF orientation must be a number from 1 to 8, got {orientation!r}. Save the image without EXIF data."
        )
    return orientation


def check_sizes(image_id: str, size: tuple[int, int], mask_size: tuple[int, int]) -> None:
    """
    Raises:
        ValueError: (height, width) of a mask is not that of its image, with `image_id`.
    """
    if tuple(size) != tuple(mask_size):
        raise ValueError(
            f"{image_id}: image is {size[0]}×{size[1]}, mask {mask_size[0]}×{mask_size[1]}. "
            "A mask must have the size of its image."
        )


def keep_largest_region(mask: np.ndarray) -> np.ndarray:
    """The largest 8-connected region of a boolean `(height, width)` mask, its holes filled. An empty mask stays so."""
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError("`largest_region` needs SciPy: pip install scipy") from error
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return mask
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)  # a photo is mostly skin
    regions, num_regions = ndimage.label(mask[box], structure=np.ones((3, 3)))
    largest = 1 if num_regions == 1 else np.bincount(regions.ravel())[1:].argmax() + 1
    # what is not in the region and joins the frame around the box lies outside, all else is a hole
    around, _ = ndimage.label(np.pad(regions != largest, 1, constant_values=True))
    kept = np.zeros_like(mask)
    kept[box] = around[1:-1, 1:-1] != around[0, 0]
    return kept


def expected_jaccard(probabilities: torch.Tensor, mask: torch.Tensor, temperature: float = 1.0) -> float:
    """
    The Jaccard that this mask will have with the truth if the probabilities are right, from them alone.

    The expected overlap over the expected union: Σ p inside the mask, over the mask's pixels + Σ p outside. It is the
    Jaccard's counterpart of the soft Dice confidence (Borges et al. 2024, arXiv:2402.10665), which is close to the true
    expectation for independent pixels. Two things it does not know: probabilities that are too sure of themselves make
    it too high, so they have to be calibrated (`EFPConfig.temperature`); and real pixels err together, so that one
    image is further from its expectation than independent pixels would be. A temperature that is right near the border,
    where pixels are uncertain, makes the many pixels far from it less sure than they should be, and their sum counts
    here: `temperature` makes up for that.

    An empty mask has the Jaccard 1 or 0: that there is no lesion, or that there is one. The sum would give 0 and
    independent pixels ∏ (1 - p), which falls to 0 with the number of pixels; a lesion is a region and not a pixel, so
    it is 1 - the highest probability, at any size of the image.

    Of a large mask every n-th row and column is read, at least `MIN_POINTS` of the shorter side and of the lesion; all
    of it where that would miss or exaggerate the lesion, as a thin one.

    Args:
        probabilities: of the lesion, `(height, width)`, in [0, 1].
        mask: boolean, of the same shape.
        temperature: by which the logits of the probabilities that are added up are divided before; below 1 they become
            surer.

    Raises:
        ValueError: a temperature that is not a finite number above 0.
    """
    check_temperature(temperature)
    num_lesion_pixels = int(torch.count_nonzero(mask))
    if num_lesion_pixels == 0:
        return 1 - float(probabilities.max())
    step = max(1, min(min(mask.shape) // MIN_POINTS, math.isqrt(num_lesion_pixels // MIN_POINTS)))
    read = (slice(step // 2, None, step),) * 2
    num_read = int(torch.count_nonzero(mask[read]))
    if abs(num_read * step**2 - num_lesion_pixels) <= SHARE_TOLERANCE * num_lesion_pixels:
        probabilities, mask, num_lesion_pixels = probabilities[read], mask[read], num_read
    # Each row in its own precision, the rows in float64, some rows at a time: a whole photo would be copied first.
    total = overlap = 0.0
    for rows, rows_of_mask in zip(probabilities.split(NUM_ROWS), mask.split(NUM_ROWS), strict=True):
        rows = divide_logits(rows, temperature)
        total += float(rows.sum(1).double().sum())
        overlap += float(torch.where(rows_of_mask, rows, 0).sum(1).double().sum())
    return overlap / (num_lesion_pixels + total - overlap)


def divide_logits(probabilities: torch.Tensor, temperature: float) -> torch.Tensor:
    """The probabilities with their logits divided by a temperature."""
    return probabilities if temperature == 1 else (probabilities.logit(eps=MIN_PROBABILITY) / temperature).sigmoid()


def check_temperature(temperature: float, name: str = "temperature"):
    if not 0 < temperature <= MAX_TEMPERATURE:
        raise ValueError(
            f"`{name}` must be a finite number above 0, got {temperature}. More than {MAX_TEMPERATURE} is no use."
        )


def value_of_each(name: str, value: float | list[float] | tuple[float, ...], num_labels: int) -> list[float]:
    """
    Of labels that overlap: one number for all, or one each.

    Raises:
        ValueError: another number of them.
    """
    values = list(value) if isinstance(value, list | tuple) else [value] * num_labels
    if len(values) != num_labels:
        raise ValueError(f"`{name}` must be one number, or one each of {num_labels} labels, got {value}.")
    return values


def check_side_lengths(name: str, size: int | list[int] | tuple[int, ...] | dict[str, int] | SizeDict):
    sides = (
        dict(size).values() if isinstance(size, dict | SizeDict) else size if isinstance(size, list | tuple) else [size]
    )
    if not sides or not all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
        raise ValueError(f"`{name}` must be of whole numbers from 1 to {MAX_SIDE}, got {size}.")


class EFPImageProcessorKwargs(ImagesKwargs, total=False):
    r"""
    rescale_factor (`float` or `int`, *optional*, defaults to `self.rescale_factor`):
        By which pixels are multiplied.
    image_mean (`float` or `list[float]`, *optional*, defaults to `self.image_mean`):
        Of each channel, after the rescaling.
    image_std (`float` or `list[float]`, *optional*, defaults to `self.image_std`):
        Of each channel, after the rescaling.
    labels_overlap (`bool`, *optional*, defaults to `self.labels_overlap`):
        Each label has a mask of its own, as of a model for multi-label classification.
    threshold (`float` or `list[float]`, *optional*, defaults to `self.threshold`):
        Probability above which a pixel is lesion; of labels that overlap one for all, or one each.
    largest_region (`bool`, *optional*, defaults to `self.largest_region`):
        Keep only the largest connected region of the lesion and fill its holes.
    jaccard_temperature (`float` or `list[float]`, *optional*, defaults to `self.jaccard_temperature`):
        By which the probabilities' logits are divided before a mask's expected Jaccard is computed; of labels that
        overlap one for all, or one each.
    prompted_jaccard_temperature (`float`, *optional*, defaults to `self.prompted_jaccard_temperature`):
        The same for a mask that was made with points or a box; `None` is `jaccard_temperature`.
    """

    rescale_factor: float | int | None
    image_mean: float | int | list[float | int] | tuple[float | int, ...] | None
    image_std: float | int | list[float | int] | tuple[float | int, ...] | None
    labels_overlap: bool | None
    threshold: float | int | list[float | int] | tuple[float | int, ...] | None
    largest_region: bool | None
    jaccard_temperature: float | int | list[float | int] | tuple[float | int, ...] | None
    prompted_jaccard_temperature: float | int | None


def nesting(values) -> int:
    """How deep lists lie in each other, at the deepest place: an image may have none of what another has."""
    if isinstance(values, np.ndarray | torch.Tensor):
        return values.ndim
    return 1 + max(map(nesting, values), default=0) if isinstance(values, list | tuple) else 0


def per_image(name: str, values, depth: int, num_images: int) -> list[np.ndarray]:
    """
    What a person says of each image, as arrays of `depth` dimensions.

    Args:
        values: of one image, of each, or of each with a further level of one object, as Transformers' SAM has it.

    Raises:
        ValueError: another number of images or objects, another nesting, or what is no number.
    """
    if isinstance(values, torch.Tensor | np.ndarray):
        values = values.tolist()
    if isinstance(values, list | tuple):  # an image may have none of what another has
        values = [[] if value is None else value for value in values]
    levels = nesting(values)
    if levels == depth == 2 and all(isinstance(value, list | tuple) and not value for value in values):  # no clicks
        levels = depth + 1
    if levels == depth:
        values = [values]
    elif levels == depth + 2 and all(len(objects) == 1 for objects in values):
        values = [objects[0] for objects in values]
    elif levels != depth + 1:
        raise ValueError(
            f"`{name}` must be nested {depth} to {depth + 2} lists deep, with one object an image, got {levels}."
        )
    if len(values) != num_images:
        raise ValueError(f"`{name}` must be of each image, got {len(values)} for {num_images}.")
    try:
        return [np.asarray(value, dtype=np.float64) for value in values]
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be numbers, got {values!r:.80}.") from error


def scaled_prompts(
    prompts: dict[str, list | None], scales: list[tuple[float, float]], sizes: list[tuple[int, int]]
) -> dict[str, torch.Tensor]:
    """
    The prompts of [`EFPImageProcessor.preprocess`] in pixels of the resized images, by the factors of x and y.

    Args:
        sizes: (width, height) of the images that the prompts count pixels of.

    Raises:
        ValueError: as there.
    """
    scaled = {}
    if prompts["input_points"] is not None:
        points = per_image("input_points", prompts["input_points"], 2, len(scales))
        labels = per_image("input_labels", prompts["input_labels"], 1, len(scales))
        most = max(map(len, points))
        scaled["input_points"] = torch.full((len(scales), most, 2), float(PADDING))
        scaled["input_labels"] = torch.full((len(scales), most), PADDING)
        for number, (clicks, values, scale, size) in enumerate(zip(points, labels, scales, sizes, strict=True)):
            clicks = clicks if clicks.size else clicks.reshape(0, 2)
            if clicks.shape != (len(values), 2):
                raise ValueError(
                    f"`input_points` must be an (x, y) for each label, got {len(clicks)} for {len(values)}."
                )
            if not np.isin(values, (0, 1, PADDING)).all():
                wrong = values[~np.isin(values, (0, 1, PADDING))][0]
                raise ValueError(
                    f"`input_labels` must be 1 (foreground), 0 (background) or {PADDING} (no point), got {wrong}."
                )
            given = values != PADDING
            inside = ((clicks >= 0) & (clicks <= size)).all(-1)  # NaN is nowhere
            if (given & ~inside).any():
                x, y = clicks[given & ~inside][0]
                raise ValueError(
                    f"`input_points` must lie in the photo of {size[0]}×{size[1]} pixels, got ({x:g}, {y:g})."
                )
            scaled["input_points"][number, : len(clicks)] = torch.from_numpy(
                np.where(given[:, None], clicks * scale, PADDING)
            )
            scaled["input_labels"][number, : len(clicks)] = torch.from_numpy(values)
    if prompts["input_boxes"] is not None:
        boxes = per_image("input_boxes", prompts["input_boxes"], 1, len(scales))
        if any(box.shape != (4,) for box in boxes):
            raise ValueError("`input_boxes` must be (left, top, right, bottom) of each image.")
        for box, size in zip(boxes, sizes, strict=True):
            (left, top, right, bottom), (width, height) = box, size
            is_inside = 0 <= left < right <= width and 0 <= top < bottom <= height
            if not is_inside and not (box == PADDING).all():
                raise ValueError(
                    f"`input_boxes` must be (left, top, right, bottom) in the photo of {width}×{height} pixels, with "
                    f"an area, got ({left:g}, {top:g}, {right:g}, {bottom:g}). Give two opposite corners."
                )
        scaled["input_boxes"] = torch.from_numpy(
            np.stack(
                [
                    box if (box == PADDING).all() else box * np.tile(scale, 2)
                    for box, scale in zip(boxes, scales, strict=True)
                ]
            )
        ).float()
    return scaled


def stacked_masks(masks: np.ndarray | torch.Tensor | list[np.ndarray | torch.Tensor]) -> list[torch.Tensor]:
    """
    The masks of labels that overlap, `(num_labels, height, width)` of each image, from those of one image or several.

    Raises:
        ValueError: of another number of dimensions, or of images with different numbers of labels.
    """
    masks = [masks] if np.ndim(masks) == 3 and not isinstance(masks, list) else masks
    masks = [mask if isinstance(mask, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(mask)) for mask in masks]
    shapes = [tuple(mask.shape) for mask in masks]
    if any(len(shape) != 3 or shape[0] != shapes[0][0] for shape in shapes):
        raise ValueError(
            f"`segmentation_maps` must be (num_labels, height, width) of each image where labels overlap, got {shapes}."
        )
    return masks


class EFPImageProcessor(TorchvisionBackend):
    """
    Resizes images to `size` (the aspect ratio is not kept, as in the ISIC 2018 literature), scales them to [0, 1] and
    normalises them with ImageNet's mean and standard deviation; turns logits into masks of the image's own size.

    Images are PIL images, arrays or tensors of 0..255. PIL images are made upright 8-bit RGB first
    ([`to_upright_rgb`]). Of a network with other channels than three, `image_mean` and `image_std` have a number each,
    `do_convert_rgb` is false, and images are arrays or tensors.

    Args:
        labels_overlap (`bool`, defaults to `False`): each label has a mask of its own, as of a model with
            `problem_type="multi_label_classification"`.
        threshold (`float` or `list[float]`, defaults to 0.5): probability above which a pixel is lesion, in (0, 1); of
            labels that overlap one for all, or one each.
        largest_region (`bool`, defaults to `False`): keep the lesion's largest region only and fill its holes.
        jaccard_temperature (`float` or `list[float]`, defaults to 1.0): by which the probabilities' logits are divided
            before a mask's expected Jaccard is computed ([`expected_jaccard`]); above 0; of labels that overlap one for
            all, or one each. The probabilities that are returned do not change.
        prompted_jaccard_temperature (`float`, *optional*): the same for masks made with points or a box, of which the
            probabilities are surer; by default `jaccard_temperature`.

    Raises:
        ValueError: a size above `MAX_SIDE`, a mean, a standard deviation or a factor that no pixels have, a threshold
            outside (0, 1), a temperature that is not a finite number above 0, a list of either or a largest region
            where labels do not, or do, overlap.
    """

    valid_kwargs = EFPImageProcessorKwargs
    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size = {"height": 256, "width": 256}  # noqa: RUF012 - the form that Transformers reads
    default_to_square = True
    do_resize = True
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    do_convert_rgb = True
    labels_overlap = False
    threshold = 0.5
    largest_region = False
    jaccard_temperature = 1.0
    prompted_jaccard_temperature = None

    def __init__(self, **kwargs: Unpack[EFPImageProcessorKwargs]):
        fields = self.valid_kwargs.__annotations__
        validate_typed_dict(self.valid_kwargs, {name: value for name, value in kwargs.items() if name in fields})
        for name in ("size", "crop_size", "pad_size"):
            if kwargs.get(name) is not None:
                check_side_lengths(name, kwargs[name])
        super().__init__(**kwargs)
        self._check()

    def _check(self):
        if isinstance(self.resample, bool) or self.resample not in (*PILImageResampling, *InterpolationMode):
            raise ValueError(f"`resample` must be one of Pillow's numbers from 0 to 5, got {self.resample!r}.")
        if self.do_center_crop and self.crop_size is None:
            raise ValueError("`crop_size` must be there where `do_center_crop` is true.")
        for name, (least, most) in PIXEL_RANGES.items():
            value = getattr(self, name)
            numbers = value if isinstance(value, list | tuple) else [value]
            if not numbers or not all(least <= number <= most for number in numbers):
                raise ValueError(f"`{name}` must be from {least} to {most}, got {value}.")
            if len(numbers) not in (1, NUM_COLOURS) and self.do_convert_rgb:
                raise ValueError(
                    f"`{name}` must be of {NUM_COLOURS} channels where `do_convert_rgb` is true, got {len(numbers)}."
                )
        self.check_threshold(self.threshold)
        self.check_region(self.largest_region)
        self.check_list("threshold", self.threshold)
        self.check_list("jaccard_temperature", self.jaccard_temperature)
        temperatures = self.jaccard_temperature
        for value in temperatures if isinstance(temperatures, list | tuple) else [temperatures]:
            check_temperature(value, "jaccard_temperature")
        if self.prompted_jaccard_temperature is not None:
            check_temperature(self.prompted_jaccard_temperature, "prompted_jaccard_temperature")

    @property
    def num_channels(self) -> int:
        """Of the images: as many as `image_mean` has numbers."""
        return len(self.image_mean) if isinstance(self.image_mean, list | tuple) else NUM_COLOURS

    def check_channels(self, num_channels: int):
        """
        Raises:
            ValueError: an image of other channels than the processor's.
        """
        if num_channels != self.num_channels:
            raise ValueError(
                f"`images` must have the {self.num_channels} channels of the training, got {num_channels}. "
                "Pass arrays (height, width, channels) of these, or take another processor."
            )

    @staticmethod
    def check_threshold(threshold: float | list[float] | tuple[float, ...]):
        """
        Raises:
            ValueError: it, or one of them, is no probability between 0 and 1.
        """
        values = threshold if isinstance(threshold, list | tuple) else [threshold]
        if not values or not all(0 < value < 1 for value in values):
            raise ValueError(f"`threshold` must be a probability between 0 and 1, got {threshold}.")

    def check_list(self, name: str, value: float | list[float] | tuple[float, ...]):
        """
        Raises:
            ValueError: there are several where labels do not overlap.
        """
        if isinstance(value, list | tuple) and not self.labels_overlap:
            raise ValueError(
                f"`{name}` must be one number where labels do not overlap, got {value}. Pass labels_overlap=True for "
                "one a label."
            )

    def check_region(self, largest_region: bool):
        """
        Raises:
            ValueError: it is asked for where labels overlap.
        """
        if largest_region and self.labels_overlap:
            raise ValueError(
                "`largest_region` must be False where labels overlap, got True: what they show can be in several "
                "places. Leave it out."
            )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """
        As in Transformers.

        Raises:
            OSError, ValueError: a file that is missing or damaged, in one sentence.
        """
        with damage_named(pretrained_model_name_or_path, IMAGE_PROCESSOR_NAME):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def from_dict(cls, image_processor_dict, **kwargs):
        """As in Transformers, which takes a default for what is null or missing, and a field for a method."""
        check_fields(cls, image_processor_dict)
        if "size" not in {**image_processor_dict, **kwargs}:
            raise ValueError("`size` must be there: no other is known to be the one of the training.")
        for name, value in image_processor_dict.items():
            if value is None and getattr(cls, name, None) is not None:
                raise ValueError(f"`{name}` must not be null. Delete it for the default, {getattr(cls, name)}.")
        if image_processor_dict.get("device") is not None:
            raise ValueError("`device` must not be in a file: it is the computer's. Delete it.")
        return super().from_dict(image_processor_dict, **kwargs)

    def save_pretrained(self, save_directory, *args, push_to_hub: bool = False, **kwargs):
        """As in Transformers; what is saved without its code file does not name it. `push_to_hub` takes it along."""
        if self._auto_class is None and not Path(save_directory, "image_processing_efp.py").is_file():
            vars(self).pop("auto_map", None)
        with with_code_files(AutoImageProcessor=type(self)) if push_to_hub else nullcontext():
            return super().save_pretrained(save_directory, *args, push_to_hub=push_to_hub, **kwargs)

    def push_to_hub(self, *args, **kwargs):
        """As in Transformers, with the code file that others need to load the processor with `trust_remote_code`."""
        with with_code_files(AutoImageProcessor=type(self)):
            return super().push_to_hub(*args, **kwargs)

    def preprocess(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        input_points: list | np.ndarray | torch.Tensor | None = None,
        input_labels: list | np.ndarray | torch.Tensor | None = None,
        input_boxes: list | np.ndarray | torch.Tensor | None = None,
        **kwargs: Unpack[EFPImageProcessorKwargs],
    ) -> BatchFeature:
        """
        Images (and masks, clicks, boxes) to what the model takes.

        Args:
            images: one image or a list.
            segmentation_maps: one mask or a list, each `(height, width)` of its image: a 0/255 or boolean mask, or
                integer labels with 255 for ignored pixels. A map of nothing but 0 and 255 is a mask. Where
                `labels_overlap`, arrays or tensors `(num_labels, height, width)` of such masks, or of 0, 1 and 255.
            input_points: a person's clicks, (x, y) in pixels of the upright image: those of one image, `[[x, y], …]`,
                or of each, `[[[x, y], …], …]`; SAM's further level of one object an image may be there, too.
            input_labels: of the clicks, 1 lesion or 0 skin, nested as they are.
            input_boxes: (left, top, right, bottom) around the lesion, in the same pixels: one, one an image, or with
                SAM's further level.

        Returns:
            `pixel_values` `(batch_size, 3, height, width)`, float, and with masks `labels` `(batch_size, height,
            width)`, int64: 0 background, 1 lesion; where `labels_overlap` `(batch_size, num_labels, height, width)`,
            float. Masks are resized with nearest interpolation. With clicks
            `input_points` `(batch_size, num_points, 2)` and `input_labels` `(batch_size, num_points)`, filled up with
            -10, and with boxes `input_boxes` `(batch_size, 4)`, all in pixels of `pixel_values`.

        Raises:
            ValueError: clicks without labels, prompts for another number of images, not nested as above, or outside
                of their image; masks of another number or size than the images, floats in [0, 1] that would be scaled
                twice, integers outside 0..255, or `do_reduce_labels`.
        """
        if kwargs.pop("do_reduce_labels", False):
            raise ValueError(
                "`do_reduce_labels` must not be set: it would turn skin (0) into ignored pixels (255) and lesion (1) "
                "into 0. Leave it out."
            )
        prompts = {"input_points": input_points, "input_labels": input_labels, "input_boxes": input_boxes}
        if (input_points is None) != (input_labels is None):
            raise ValueError("`input_points` and `input_labels` must come together: a label for each point.")
        return super().preprocess(images, segmentation_maps, prompts, **kwargs)

    def process_image(self, image: ImageInput, do_convert_rgb: bool | None = None, **kwargs) -> torch.Tensor:
        if isinstance(image, Image.Image):
            image = to_upright_rgb(image) if do_convert_rgb else ImageOps.exif_transpose(image)
        elif kwargs.get("input_data_format") is None and self.num_channels != NUM_COLOURS and image.ndim == 3:
            # Transformers guesses it of one and of three channels alone
            is_last = image.shape[-1] == self.num_channels or image.shape[0] != self.num_channels
            kwargs["input_data_format"] = ChannelDimension.LAST if is_last else ChannelDimension.FIRST
        return super().process_image(image, do_convert_rgb=do_convert_rgb, **kwargs)

    def convert_to_rgb(self, image: torch.Tensor, **kwargs) -> torch.Tensor:
        """As in Transformers, which would take a fourth channel for transparency: it is refused."""
        if image.shape[0] > NUM_COLOURS:
            self.check_channels(image.shape[0])
        return super().convert_to_rgb(image, **kwargs)

    def _preprocess_image_like_inputs(
        self,
        images,
        segmentation_maps,
        prompts,
        do_convert_rgb,
        input_data_format,
        return_tensors,
        device=None,
        **kwargs,
    ) -> BatchFeature:
        images = self._prepare_image_like_inputs(
            images, do_convert_rgb=do_convert_rgb, input_data_format=input_data_format, device=device
        )
        if kwargs["do_normalize"]:
            for image in images:
                self.check_channels(image.shape[0])
        if kwargs["do_rescale"] and any(image.is_floating_point() and 0 < image.max() <= 1 for image in images):
            raise ValueError("`images` must hold 0..255, got floats in [0, 1]. Pass do_rescale=False for those.")
        for image in images:
            if (
                not image.is_floating_point()
                and image.dtype != torch.uint8
                and not 0 <= image.min() <= image.max() <= 255
            ):
                raise ValueError(
                    f"`images` must hold 0..255, got {image.min()}..{image.max()}. Scale 16-bit images down first."
                )
        data = {"pixel_values": self._preprocess(images, return_tensors=None, **kwargs)["pixel_values"]}

        if any(value is not None for value in prompts.values()):
            scales = [
                (pixels.shape[-1] / image.shape[-1], pixels.shape[-2] / image.shape[-2])
                for pixels, image in zip(data["pixel_values"], images, strict=True)
            ]
            data |= scaled_prompts(prompts, scales, [(image.shape[-1], image.shape[-2]) for image in images])

        if segmentation_maps is not None:
            if self.labels_overlap:
                masks = [mask.to(device) for mask in stacked_masks(segmentation_maps)]
            else:
                masks = self._prepare_image_like_inputs(
                    segmentation_maps,
                    expected_ndims=2,
                    do_convert_rgb=False,
                    input_data_format=ChannelDimension.FIRST,
                    device=device,
                )
            if len(masks) != len(images):
                raise ValueError(f"`segmentation_maps` must be one mask an image, got {len(masks)} for {len(images)}.")
            for position, (image, mask) in enumerate(zip(images, masks, strict=True)):
                if mask.shape[0] != 1 and not self.labels_overlap:
                    raise ValueError(
                        f"`segmentation_maps` must be grey masks (height, width), got {mask.shape[0]} channels."
                    )
                check_sizes(f"`segmentation_maps[{position}]`", image.shape[-2:], mask.shape[-2:])
            nearest = {"do_rescale": False, "do_normalize": False, "resample": InterpolationMode.NEAREST_EXACT}
            labels = [self._mask_to_labels(mask) for mask in masks]
            labels = self._preprocess(labels, return_tensors=None, **{**kwargs, **nearest})["pixel_values"]
            data["labels"] = [label.float() if self.labels_overlap else label.squeeze(0).long() for label in labels]
        return BatchFeature(data=data, tensor_type=return_tensors)

    @staticmethod
    def _mask_to_labels(mask: torch.Tensor) -> torch.Tensor:
        """A boolean or 0/255 mask to 0/1 labels; integer labels stay as they are."""
        mask = mask.to(torch.uint8) if mask.dtype == torch.bool else mask
        return mask // 255 if ((mask == 0) | (mask == 255)).all() else mask

    def post_process_semantic_segmentation(
        self,
        outputs,
        target_sizes: list[tuple[int, int]] | torch.Tensor | None = None,
        threshold: float | list[float] | None = None,
        largest_region: bool | None = None,
        return_probabilities: bool = False,
        prompted: bool = False,
    ) -> list[torch.Tensor] | list[BatchFeature]:
        """
        The model's outputs to masks of the images' own size. Probabilities are resized (bilinear), then cut.

        Args:
            outputs: of [`EFPForSegmentation`], or anything with `logits`.
            target_sizes: (height, width) of each image; without it masks have the size of the logits.
            threshold: probability above which a pixel is lesion, instead of the processor's own. With more than two
                labels of which one is right the most probable one wins and there is no threshold. Of labels that
                overlap, one for all or one each.
            largest_region: keep the lesion's largest region and fill its holes, instead of the processor's own choice.
            return_probabilities: return for each image a `BatchFeature` with `segmentation` (the mask, boolean: of
                a photo an eighth of the memory of int64), `probabilities` (float of the lesion, `(height, width)`)
                and `expected_jaccard` (of this mask, from them alone). With more than two labels the segmentation is
                int64, the probabilities are `(num_labels, height, width)` and there is no expected Jaccard. Where
                `labels_overlap`, segmentation and probabilities are `(num_labels, height, width)`, and the expected
                Jaccard is a list of one each.
            prompted: the outputs are of points or a box, which the expected Jaccard takes into account.

        Returns:
            Without `return_probabilities` one int64 mask `(height, width)` an image: 0 background, 1 lesion (or the
            label). Where `labels_overlap`, boolean masks `(num_labels, height, width)`.

        Raises:
            ValueError: another number of target sizes than images or of thresholds than labels, a threshold outside
                (0, 1), a largest region of labels that overlap, or logits that are not finite; labels that overlap
                for the pipeline's `subtask="semantic"`.
        """
        if self.labels_overlap and hasattr(outputs, "target_size"):  # which the pipeline writes into them
            raise ValueError('`subtask` must be left out for labels that overlap, got "semantic".')
        return list(
            self.post_process_one_by_one(
                outputs, target_sizes, threshold, largest_region, return_probabilities, prompted
            )
        )

    @property
    def post_process_instance_segmentation(self) -> Callable[..., list[dict]]:
        """
        What the pipeline "image-segmentation" calls where it is there: of labels that overlap alone, as one map of
        numbers cannot hold them, and [`post_process_semantic_segmentation`] for all others. See [`found_labels`].
        """
        if not self.labels_overlap:
            raise AttributeError("`post_process_instance_segmentation` is for labels that overlap.")
        return self.found_labels

    def found_labels(
        self,
        outputs,
        threshold: float = PIPELINE_THRESHOLDS[0],
        mask_threshold: float = PIPELINE_THRESHOLDS[1],
        overlap_mask_area_threshold: float = PIPELINE_THRESHOLDS[2],
        target_sizes: list[tuple[int, int]] | None = None,
    ) -> list[dict]:
        """
        For each image the labels whose masks are not empty, for the pipeline, which takes `segmentation == id` for a
        mask: here the `id` of a label is its mask, and `segmentation` true everywhere. `score` is the highest
        probability. Each label has its own threshold, and no label hides another.

        Raises:
            ValueError: another of the three thresholds than the pipeline's own.
        """
        given = (threshold, mask_threshold, overlap_mask_area_threshold)
        if given != PIPELINE_THRESHOLDS:
            raise ValueError(
                "`threshold`, `mask_threshold` and `overlap_mask_area_threshold` must be left out for labels that "
                f"overlap, got {given}: each has a threshold of its own. Set `threshold` of the image processor."
            )
        found = []
        for result in self.post_process_one_by_one(outputs, target_sizes, return_probabilities=True):
            masks, probabilities = result["segmentation"], result["probabilities"]
            labels = masks.any(-1).any(-1).nonzero().flatten().tolist()
            infos = [{"id": masks[k], "label_id": k, "score": float(probabilities[k].max())} for k in labels]
            found.append({"segmentation": torch.ones_like(masks[0]), "segments_info": infos})
        return found

    def post_process_one_by_one(
        self,
        outputs,
        target_sizes: list[tuple[int, int]] | torch.Tensor | None = None,
        threshold: float | list[float] | None = None,
        largest_region: bool | None = None,
        return_probabilities: bool = False,
        prompted: bool = False,
    ) -> Iterator[torch.Tensor | BatchFeature]:
        """
        As [`post_process_semantic_segmentation`], but each result is made when it is asked for: those of a batch of
        photos are large.
        """
        logits = outputs.logits.float()
        threshold = self.threshold if threshold is None else threshold
        largest_region = self.largest_region if largest_region is None else largest_region
        self.check_threshold(threshold)
        self.check_list("threshold", threshold)
        self.check_region(largest_region)
        temperature = (prompted and self.prompted_jaccard_temperature) or self.jaccard_temperature
        if target_sizes is None:
            target_sizes = [logits.shape[-2:]] * len(logits)
        if len(target_sizes) != len(logits):
            raise ValueError(
                f"`target_sizes` must be one (height, width) an image, got {len(target_sizes)} for {len(logits)}."
            )

        if logits.shape[1] < 2 and not self.labels_overlap:
            raise ValueError(
                f"`outputs.logits` must have one channel a label, got {logits.shape[1]}. "
                "Export a model of an earlier version again."
            )
        is_binary = logits.shape[1] == 2 and not self.labels_overlap
        if self.labels_overlap:
            probabilities = logits.sigmoid()
            thresholds = logits.new_tensor(value_of_each("threshold", threshold, logits.shape[1]))[:, None, None]
            temperatures = value_of_each("jaccard_temperature", temperature, logits.shape[1])
        else:
            probabilities = (logits[:, 1:] - logits[:, :1]).sigmoid() if is_binary else logits.softmax(1)
        for number, (image_probabilities, size) in enumerate(zip(probabilities, target_sizes, strict=True)):
            if not torch.isfinite(logits[number]).all():
                raise ValueError(
                    f"`outputs.logits[{number}]` must be finite, got NaN or infinity: the weights are damaged, or the "
                    "precision is too low for this image. Load the checkpoint again, in float32."
                )
            size = (int(size[0]), int(size[1]))
            if size != tuple(image_probabilities.shape[-2:]):
                image_probabilities = F.interpolate(
                    image_probabilities[None], size=size, mode="bilinear", align_corners=False
                )[0]
            if is_binary:
                image_probabilities = image_probabilities[0]
                mask = image_probabilities > threshold
                if largest_region:
                    mask = torch.from_numpy(keep_largest_region(mask.cpu().numpy())).to(mask.device)
            else:
                mask = image_probabilities > thresholds if self.labels_overlap else image_probabilities.argmax(0)
            if not return_probabilities:
                yield mask if self.labels_overlap else mask.long()
                continue
            result = BatchFeature({"segmentation": mask, "probabilities": image_probabilities})
            if is_binary:
                result["expected_jaccard"] = expected_jaccard(image_probabilities, mask, temperature)
            elif self.labels_overlap:
                triples = zip(image_probabilities, mask, temperatures, strict=True)
                result["expected_jaccard"] = [expected_jaccard(*triple) for triple in triples]
            yield result


__all__ = ["EFPImageProcessor"]
