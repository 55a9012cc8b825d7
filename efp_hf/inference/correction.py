"""A mask that a person corrects: clicks and a box on one photo, one after another."""

import torch
from PIL import Image
from transformers.image_processing_utils import BatchFeature
from transformers.modeling_outputs import SemanticSegmenterOutput

from ..image_processing_efp import EFPImageProcessor, to_upright_rgb
from ..modeling_efp import EFPForSegmentation, Prompts


class Correction:
    """
    A photo whose encoder has run. Each mask that follows takes a decoder alone.

    A click is a correction of the mask before, so that masks depend on the clicks' order: the first mask is of the box,
    or the automatic one; each click more sees the mask of the clicks before it.

    Args:
        image: a `PIL` image.
        size: the (height, width) of the upright photo, whose pixels points and boxes count; default: the image's, of
            which it may be a reduced copy.

    Raises:
        ValueError: a model that takes no prompts.
    """

    @torch.inference_mode()
    def __init__(
        self,
        image: Image.Image,
        model: EFPForSegmentation,
        processor: EFPImageProcessor,
        size: tuple[int, int] | None = None,
    ):
        image = to_upright_rgb(image)
        self.model, self.processor = model, processor
        self.size = size or (image.height, image.width)
        inputs = processor(image, return_tensors="pt").to(model.device, model.dtype)
        self.embeddings = model.get_image_embeddings(inputs["pixel_values"])
        height, width = inputs["pixel_values"].shape[-2:]
        # float32 would scale the border of some photos to a place outside of the input
        self.scale = torch.tensor([width / self.size[1], height / self.size[0]], dtype=torch.float64)
        self.steps: dict[tuple, SemanticSegmenterOutput] = {}  # what was asked for before: undo costs nothing

    @torch.inference_mode()
    def outputs(
        self, points: list[tuple[float, float, int]] = (), box: tuple[float, float, float, float] | None = None
    ) -> SemanticSegmenterOutput:
        """
        The model's outputs after all of the clicks, in their order.

        Args:
            points: (x, y, label), label 1 on the lesion, 0 on skin.
            box: (left, top, right, bottom) around the lesion.

        Raises:
            ValueError: as of `EFPForSegmentation.forward`.
        """
        key = (tuple(map(tuple, points)), box and tuple(box))
        if key not in self.steps:
            prompts = {}
            if box is not None:
                prompts["input_boxes"] = torch.tensor([box], dtype=torch.float64)
            if points:
                clicks = torch.tensor([points], dtype=torch.float64)
                prompts["input_points"], prompts["input_labels"] = clicks[..., :2], clicks[..., 2].long()
            Prompts(**prompts).check(1, *self.size)
            for name in prompts.keys() - {"input_labels"}:
                prompts[name] = (prompts[name] * self.scale.repeat(prompts[name].shape[-1] // 2)).float()
            if points:
                prompts["input_masks"] = self.outputs(points[:-1], box).logits[:, 1:]
            prompts = {name: value.to(self.model.device) for name, value in prompts.items()}
            self.steps[key] = self.model(image_embeddings=self.embeddings, **prompts)
        return self.steps[key]

    def segment(
        self,
        points: list[tuple[float, float, int]] = (),
        box: tuple[float, float, float, float] | None = None,
        target_size: tuple[int, int] | None = None,
    ) -> BatchFeature:
        """
        `segmentation` (boolean), `probabilities` of the lesion, both `(height, width)` of `target_size` or the photo,
        and the mask's `expected_jaccard`. Where there are clicks all regions stay: a person may mean several.
        """
        only_largest = {"largest_region": False} if points else {}
        return self.processor.post_process_semantic_segmentation(
            self.outputs(points, box), [target_size or self.size], return_probabilities=True, **only_largest
        )[0]
