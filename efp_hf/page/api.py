"""The API, also the tools of the MCP server: programs see these functions' names, arguments and docstrings."""

from ..extras import needing
from ..image_processing_efp import EFPImageProcessor
from ..inference.task import has_structures, is_lesion, shows_lesions
from ..modeling_efp import EFPForSegmentation
from .batch import segment_batch
from .correction import correct_photo
from .handlers import with_messages
from .inputs import FilesInput, NumbersInput, PhotoInput, PointsInput
from .marks import read_marks
from .photo import SegmentedPhoto, lesion_of, segment_photo
from .photo_results import (
    compare_photo,
    layers_data,
    lesion_data,
    map_data,
    measure_photo,
    trust_photo,
    write_layers_file,
    write_mask_file,
)
from .temporary_files import new_answer_folder

with needing("app", __name__):
    import gradio as gr


class Endpoints:
    """Around one loaded model."""

    def __init__(self, model: EFPForSegmentation, processor: EFPImageProcessor):
        self.model = model
        self.own_processor = processor  # of all labels
        self.processor = lesion_of(processor)

    def read_photo(self, image, points=None, labels=None, box=None) -> SegmentedPhoto:
        marks = read_marks(points, labels, box)
        photo = segment_photo(image, self.model, self.own_processor)
        return correct_photo(photo, marks) if marks else photo

    @with_messages
    def segment(self, image, threshold, largest_region, points=None, labels=None, box=None):
        """
        Find the skin lesion in a dermatoscopic photo. Research use, not a diagnosis.

        Args:
            image: the photo.
            threshold: probability, between 0 and 1, above which a pixel is lesion.
            largest_region: keep the lesion's largest region only, its holes filled; where there are points all stay.
            points: a person's clicks on the photo, a list of [x, y] in its pixels; the mask is corrected by them.
            labels: of the points, a list of 1 (on the lesion) and 0 (on skin); without it all are on the lesion.
            box: [left, top, right, bottom] around the lesion, in pixels of the photo.

        Returns:
            data: size of the photo, area and bounding box of the lesion in pixels, mean probability inside, and the
                contour as a COCO data set.
            mask: PNG of the photo's size, 0 skin and 255 lesion.
        """
        photo = self.read_photo(image, points, labels, box)
        data = lesion_data(photo, self.processor, threshold, largest_region)
        return data, str(write_mask_file(photo, self.processor, new_answer_folder(), threshold, largest_region))

    @with_messages
    def measure(self, image, pixels_per_mm, threshold, largest_region, points=None, labels=None, box=None):
        """
        Measure the skin lesion of a dermatoscopic photo: area, diameter, outline, compactness, asymmetry, border
        irregularity and colours; with a checkpoint of structures their number. Asymmetry and border are of the outline
        alone, not the A and B of the ABCD rule. Research use, not a diagnosis.

        Args:
            image: the photo.
            pixels_per_mm: scale of the photo, for measures in millimetres; 0 where it is not known.
            threshold: probability, between 0 and 1, above which a pixel is lesion.
            largest_region: keep the lesion's largest region only, its holes filled; where there are points all stay.
            points: a person's clicks on the photo, a list of [x, y] in its pixels; the mask is corrected by them.
            labels: of the points, a list of 1 (on the lesion) and 0 (on skin); without it all are on the lesion.
            box: [left, top, right, bottom] around the lesion, in pixels of the photo.
        """
        photo = self.read_photo(image, points, labels, box)
        return measure_photo(photo, self.processor, threshold, largest_region, pixels_per_mm or None)

    @with_messages
    def trust(self, image, threshold, largest_region, points=None, labels=None, box=None):
        """
        Estimate how well the mask of a dermatoscopic photo fits its lesion, with notes on what speaks against it.

        Args:
            image: the photo.
            threshold: probability, between 0 and 1, above which a pixel is lesion.
            largest_region: keep the lesion's largest region only, its holes filled; where there are points all stay.
            points: a person's clicks on the photo, a list of [x, y] in its pixels; the mask is corrected by them.
            labels: of the points, a list of 1 (on the lesion) and 0 (on skin); without it all are on the lesion.
            box: [left, top, right, bottom] around the lesion, in pixels of the photo.
        """
        return trust_photo(self.read_photo(image, points, labels, box), self.processor, threshold, largest_region)

    @with_messages
    def compare(self, image, truth, threshold, largest_region, points=None, labels=None, box=None):
        """
        Score the mask of a dermatoscopic photo against the true one: J, TJ, Dice, sensitivity and specificity.

        Args:
            image: the photo.
            truth: the true mask, a picture of the photo's size, 0 skin and 255 lesion.
            threshold: probability, between 0 and 1, above which a pixel is lesion.
            largest_region: keep the lesion's largest region only, its holes filled; where there are points all stay.
            points: a person's clicks on the photo, a list of [x, y] in its pixels; the mask is corrected by them.
            labels: of the points, a list of 1 (on the lesion) and 0 (on skin); without it all are on the lesion.
            box: [left, top, right, bottom] around the lesion, in pixels of the photo.
        """
        photo = self.read_photo(image, points, labels, box)
        comparison = compare_photo(photo, self.processor, truth, threshold, largest_region)
        return {**comparison.scores, "pixels": comparison.pixels}

    @with_messages
    def structures(self, image, threshold):
        """
        Find the skin lesion in a dermatoscopic photo and its structures: globules, milia-like cysts, negative network,
        pigment network and streaks, each with a mask of its own. Research use, not a diagnosis.

        Args:
            image: the photo.
            threshold: probability, between 0 and 1, above which a pixel is lesion; structures have their own.

        Returns:
            data: for each label the pixels and the share of its mask, its highest probability anywhere in the photo and
                the Jaccard that the mask is expected to have.
            masks: zip of the masks, PNG of the photo's size, 0 and 255.
        """
        photo = self.read_photo(image)
        data = layers_data(photo, threshold)
        return data, str(write_layers_file(photo, self.processor, new_answer_folder(), threshold))

    @with_messages
    def look_inside(self, image):
        """
        What the network makes of a photo: its levels F1..F4 and F*1..F*4 (means over channels) and its attention maps
        M_s, as rows of numbers.

        Args:
            image: the photo.
        """
        return map_data(self.read_photo(image))

    @with_messages
    def segment_many(self, files, threshold, largest_region):
        """
        Find the skin lesions in several dermatoscopic photos. A bad file is named in its row.

        Args:
            files: the photos, or zips of photos.
            threshold: probability, between 0 and 1, above which a pixel is lesion.
            largest_region: keep the lesion's largest region only, its holes filled.

        Returns:
            rows: area, bounding box and mean probability of each photo, of several labels the area of each; or the
                error.
            masks: zip of the masks, PNG, and the rows as CSV.
        """
        batch = segment_batch(files, self.model, self.own_processor, new_answer_folder(), threshold, largest_region)
        return batch.rows, str(batch.archive)


def add_endpoints(endpoints: Endpoints, one_photo: dict, many_photos: dict) -> None:
    """The endpoints on hidden components; `one_photo` and `many_photos` are the limits of Gradio's queue."""
    processor = endpoints.processor
    with gr.Column(visible=False):
        image = PhotoInput(label="image", image_mode=None, type="filepath")
        truth = PhotoInput(label="truth", image_mode=None, type="filepath")
        files = FilesInput(label="files", file_count="multiple")
        scale = gr.Number(0, label="pixels_per_mm")
        settings = [
            gr.Number(processor.threshold, label="threshold"),
            gr.Checkbox(processor.largest_region, label="largest_region"),
        ]
        # only where the model takes them
        takes_prompts = endpoints.model.prompt_encoder is not None
        prompts = []
        if takes_prompts:
            prompts = [PointsInput(label="points"), NumbersInput(label="labels"), NumbersInput(label="box")]
        data, file = gr.JSON(label="data"), gr.File(label="file")
        trigger = gr.Button()
    endpoints_of_all = (
        (endpoints.segment, [image, *settings, *prompts], [data, file], one_photo),
        (endpoints.measure, [image, scale, *settings, *prompts], data, one_photo),
        (endpoints.trust, [image, *settings, *prompts], data, one_photo),
        (endpoints.compare, [image, truth, *settings, *prompts], data, one_photo),
        (endpoints.structures, [image, settings[0]], [data, file], one_photo),
        (endpoints.look_inside, [image], data, one_photo),
        (endpoints.segment_many, [files, *settings], [data, file], many_photos),
    )
    config = endpoints.model.config
    with_structures = has_structures(config)
    left_out = () if with_structures else (endpoints.structures,)
    if not with_structures and not is_lesion(config):
        left_out += (endpoints.trust, endpoints.compare)
    if not with_structures and not shows_lesions(config):
        left_out += (endpoints.measure,)
    for function, inputs, outputs, limits in endpoints_of_all:
        if function in left_out:
            continue
        trigger.click(function, inputs, outputs, api_name=function.__name__, **limits)
