"""What a person says of an image: in the network, and on its way there."""

import pytest
import torch
from conftest import tiny_model, tiny_prompted_model
from PIL import Image
from transformers.utils.generic import find_labels

from efp_hf import EFPForSegmentation, EFPImageProcessor
from efp_hf.modeling_efp import Prompts, prompt_maps

POINTS = torch.tensor([[[10.0, 20.0], [50.0, 30.0]], [[30.0, 40.0], [-10.0, -10.0]]])
LABELS = torch.tensor([[1, 0], [1, -10]])
BOXES = torch.tensor([[8.0, 8.0, 40.0, 24.0], [-10.0] * 4])
SIZE = (64, 64)


@pytest.fixture
def model():
    return tiny_prompted_model()


@pytest.fixture
def image():
    return torch.randn(2, 3, *SIZE)


PADDED = {
    "input_points": torch.full((2, 3, 2), -10.0),
    "input_labels": torch.full((2, 3), -10),
    "input_boxes": torch.full((2, 4), -10.0),
    "input_masks": torch.zeros(2, 1, 16, 16),
}


def test_weights_of_prompts_have_nothing_to_do_with_the_automatic_mask(model, image):
    plain = model(image).logits
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("prompt")}
    without = tiny_model()
    without.load_state_dict(weights)
    assert torch.equal(without(image).logits, plain)
    for name, parameter in model.named_parameters():
        if name.startswith("prompt"):
            torch.nn.init.normal_(parameter)
    assert torch.equal(model(image).logits, plain)
    assert torch.equal(model(image_embeddings=model.get_image_embeddings(image)).logits, plain)


def test_padding_alone_changes_no_feature_and_goes_through_the_prompted_decoder(model, image):
    padded, plain = (model(image, output_hidden_states=True, **prompts) for prompts in (PADDED, {}))
    for level, expected in zip(padded.hidden_states[:4], plain.hidden_states[:4], strict=True):
        assert torch.equal(level, expected)
    assert not torch.allclose(padded.logits, plain.logits)
    model.decoder.load_state_dict(model.prompted_decoder.state_dict())
    assert torch.equal(model(image).logits, padded.logits)


def test_a_new_prompt_encoder_changes_nothing(image):
    model = tiny_model(prompt_size=4)
    prompted = model(image, input_points=POINTS, input_labels=LABELS).logits
    assert torch.equal(prompted, model(image, **PADDED).logits)


def test_a_folder_keeps_both_decoders(model, image, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = EFPForSegmentation.from_pretrained(tmp_path).eval()
    for prompts in ({}, {"input_boxes": BOXES}):
        assert torch.equal(loaded(image, **prompts).logits, model(image, **prompts).logits)


@torch.inference_mode()
def test_prompts_are_left_out_where_the_configuration_says_so(model, image, tmp_path):
    model.save_pretrained(tmp_path)
    plain = EFPForSegmentation.from_pretrained(tmp_path, prompt_size=0).eval()
    assert not [name for name in plain.state_dict() if name.startswith("prompt")]
    assert torch.equal(plain(image).logits, model(image).logits)


@pytest.mark.parametrize(
    "prompts",
    [
        {"input_points": POINTS, "input_labels": LABELS},
        {"input_boxes": BOXES.flip(0)},
        {"input_masks": torch.randn(2, 1, 20, 30)},
    ],
)
def test_each_prompt_changes_the_logits_of_its_own_image(model, image, prompts):
    changed, plain = model(image, **prompts).logits, model(image, **PADDED).logits
    assert (changed - plain)[1].abs().max() > 1e-3
    if "input_boxes" in prompts:
        assert torch.equal(changed[0], plain[0])  # its box is padding


def test_points_that_are_none_are_as_padding(model, image):
    none = {"input_points": torch.zeros(2, 0, 2), "input_labels": torch.zeros(2, 0, dtype=torch.long)}
    assert torch.equal(model(image, **none).logits, model(image, **PADDED).logits)


@pytest.mark.parametrize("none", [[], None])
@pytest.mark.parametrize("first", [True, False])
def test_one_image_of_a_batch_may_have_no_clicks(first, none):
    images, order = [Image.new("RGB", (64, 64))] * 2, slice(None) if first else slice(None, None, -1)
    points, labels = [[[60, 45]], none][order], [[1], none][order]
    inputs = PROCESSOR(images, input_points=points, input_labels=labels, return_tensors="pt")
    assert inputs["input_labels"].tolist() == [[1], [-10]][order]
    assert inputs["input_points"][0 if first else 1].min() > 0
    nothing = PROCESSOR(images, input_points=[[], []], input_labels=[[], []], return_tensors="pt")
    assert nothing["input_points"].shape == (2, 0, 2) and nothing["input_labels"].shape == (2, 0)


def test_lesion_and_skin_are_told_apart(model, image):
    skin = model(image, input_points=POINTS, input_labels=torch.where(LABELS == 1, 0, LABELS)).logits
    assert (model(image, input_points=POINTS, input_labels=LABELS).logits - skin).abs().max() > 1e-3


def test_embeddings_take_the_place_of_the_image(model, image):
    embeddings = model.get_image_embeddings(image)
    assert [level.shape[-1] for level in embeddings] == [32, 16, 8, 4]
    prompts = {"input_points": POINTS, "input_labels": LABELS}
    assert torch.equal(model(image_embeddings=embeddings, **prompts).logits, model(image, **prompts).logits)
    assert torch.equal(model(image_embeddings=embeddings).logits, model(image).logits)
    with pytest.raises(ValueError, match=r"sides that are multiples of 32.*\(33, 64\)"):
        model.get_image_embeddings(torch.randn(1, 3, 33, 64))
    with pytest.raises(ValueError, match="Either `pixel_values` or `image_embeddings`"):
        model()
    with pytest.raises(ValueError, match="Either `pixel_values` or `image_embeddings`"):
        model(image, image_embeddings=embeddings)


def test_maps_are_where_the_prompts_are():
    masks = torch.full((2, 1, 64, 64), -30.0)
    masks[0, :, :, 32:] = 30
    masks[1] = 0
    maps = prompt_maps(Prompts(POINTS, LABELS, BOXES, masks), SIZE, SIZE, (16, 16))
    assert maps.shape == (2, 5, 16, 16)
    lesion, skin, inside, outside, mask = maps[0]
    assert divmod(int(lesion.argmax()), 16) == (4, 2) or divmod(int(lesion.argmax()), 16) == (5, 2)  # y 20, x 10
    assert divmod(int(skin.argmax()), 16)[1] == 12
    assert 0.9 < lesion.max() <= 1 and lesion[15, 15] < 1e-3
    assert inside[2:6, 2:10].eq(1).all() and inside.sum() == 4 * 8
    assert torch.equal(outside, 1 - inside)
    assert mask[:, 9:].eq(1).all() and mask[:, :7].eq(-1).all()
    lesion, skin, inside, outside, mask = maps[1]
    assert lesion.max() > 0.9 and skin.eq(0).all() and inside.eq(0).all() and outside.eq(0).all() and mask.eq(0).all()


def test_a_box_covers_its_share_of_a_pixel():
    inside = prompt_maps(Prompts(input_boxes=torch.tensor([[6.0, 0.0, 10.0, 4.0]])), SIZE, SIZE, (16, 16))[0, 2]
    assert inside[0, 1] == 0.5 and inside[0, 2] == 0.5 and inside.sum() == 1


@pytest.mark.parametrize("size", [(64, 64), (33, 50)])  # of the second, the network sees an extended image
@pytest.mark.parametrize("level", [2, 4, 8, 16])
def test_a_click_on_the_border_is_seen_on_every_level(size, level):
    height, width = size
    for x in (0.0, width - 1.0, width - 0.01, width):
        for y in (0.0, height - 1.0, height - 0.01, height):
            prompts = Prompts(torch.tensor([[[x, y]]]), torch.ones(1, 1, dtype=torch.long))
            prompts.check(1, height, width)
            lesion = prompt_maps(prompts, size, (64, 64), (64 // level, 64 // level))[0, 0]
            inside = lesion[: -(-height // level), : -(-width // level)]  # cells that hold pixels of the image
            assert inside.max() > 0.85


def test_a_box_may_end_at_the_border():
    for box in [(0.0, 0, 64, 64), (63.0, 63, 64, 64), (60, 0, 64, 0.5)]:
        prompts = Prompts(input_boxes=torch.tensor([box]))
        prompts.check(1, *SIZE)
        inside = prompt_maps(prompts, SIZE, SIZE, SIZE)[0, 2]
        assert inside.sum() == pytest.approx((box[2] - box[0]) * (box[3] - box[1]))


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"input_points": POINTS}, "must come together"),
        (
            {"input_points": POINTS, "input_labels": LABELS + 1},
            r"1 \(foreground\), 0 \(background\) or -10 \(no point\), got 2",
        ),
        ({"input_points": POINTS, "input_labels": LABELS == 1}, r"a type that holds -10 \(no point\), got torch.bool"),
        ({"input_points": 3 * POINTS, "input_labels": LABELS}, r"in the image of 64×64 pixels, got \(150.0, 90.0\)"),
        ({"input_points": POINTS[:1], "input_labels": LABELS[:1]}, r"\(2, any, 2\) for 2 images, got \(1, 2, 2\)"),
        ({"input_points": POINTS, "input_labels": LABELS[:, :1]}, r"`input_labels` must have the shape \(2, 2\)"),
        ({"input_boxes": torch.tensor([[5.0, 5, 5, 9]] * 2)}, r"with an area, got \(5.0, 5.0, 5.0, 9.0\)"),
        ({"input_boxes": torch.tensor([[5.0, 5, 65, 9]] * 2)}, "in the image of 64×64"),
        ({"input_masks": torch.full((2, 1, 4, 4), torch.nan)}, "`input_masks` must be finite, got nan"),
        ({"input_boxes": torch.full((2, 4), torch.inf)}, "`input_boxes` must be finite, got inf"),
    ],
)
def test_prompts_that_cannot_be_are_named(model, image, prompts, message):
    with pytest.raises(ValueError, match=message):
        model(image, **prompts)


def test_a_network_without_a_prompt_encoder_says_so(image):
    with pytest.raises(ValueError, match="`prompt_size` is 0"):
        tiny_model()(image, input_boxes=BOXES)


def test_trainer_finds_the_labels_alone():
    assert find_labels(EFPForSegmentation) == ["labels"]
    with pytest.raises(TypeError, match="input_clicks"):
        tiny_model(prompt_size=4)(torch.randn(1, 3, 32, 32), input_clicks=POINTS)


# The processor


PROCESSOR = EFPImageProcessor(size={"height": 64, "width": 128})


def test_prompts_are_scaled_like_their_image():
    image = Image.new("RGB", (256, 256))
    inputs = PROCESSOR(
        image,
        input_points=[[10, 20], [100, 200]],
        input_labels=[1, 0],
        input_boxes=[10, 20, 30, 40],
        return_tensors="pt",
    )
    assert inputs["input_points"].tolist() == [[[5, 5], [50, 50]]]
    assert inputs["input_labels"].tolist() == [[1, 0]]
    assert inputs["input_boxes"].tolist() == [[5, 5, 15, 10]]


@pytest.mark.parametrize("width", [302, 1022, 1999])
def test_the_border_of_an_image_is_that_of_the_input(width):
    processor = EFPImageProcessor(size={"height": 192, "width": 192})
    image = Image.new("RGB", (width, width - 1))
    inputs = processor(
        image,
        input_points=[[width, width - 1], [width - 0.01, width - 1.01]],
        input_labels=[1, 0],
        input_boxes=[0, 0, width, width - 1],
        return_tensors="pt",
    )
    assert inputs["input_boxes"].tolist() == [[0, 0, 192, 192]]
    assert inputs["input_points"][0, 0].tolist() == [192, 192] and 191.9 < inputs["input_points"][0, 1].min() < 192
    prompts = {name: inputs[name] for name in ("input_points", "input_labels", "input_boxes")}
    Prompts(**prompts).check(1, 192, 192)


def test_points_are_those_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a turn: 200×100 becomes 100×200
    Image.new("RGB", (200, 100)).save(tmp_path / "photo.jpg", exif=exif)
    with Image.open(tmp_path / "photo.jpg") as photo:
        points = PROCESSOR(photo, input_points=[[50, 100]], input_labels=[1], return_tensors="pt")["input_points"]
    assert points.tolist() == [[[64, 32]]]


@pytest.mark.parametrize("level", [lambda each: each, lambda each: [[one] for one in each]])
def test_images_with_fewer_points_are_filled_up_and_one_object_may_have_its_level(level):
    images = [Image.new("RGB", (128, 64))] * 2
    inputs = PROCESSOR(
        images,
        input_points=level([[[10, 20], [100, 20]], [[5, 5]]]),
        input_labels=level([[1, 0], [1]]),
        input_boxes=level([[1, 2, 3, 4], [-10] * 4]),
        return_tensors="pt",
    )
    assert inputs["input_points"].tolist() == [[[10, 20], [100, 20]], [[5, 5], [-10, -10]]]
    assert inputs["input_labels"].tolist() == [[1, 0], [1, -10]]
    assert inputs["input_boxes"].tolist() == [[1, 2, 3, 4], [-10] * 4]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"input_points": [[1, 2]]}, "must come together"),
        ({"input_points": [[1, 2]], "input_labels": [1, 0]}, "got 1 for 2"),
        ({"input_points": [1, 2], "input_labels": [1]}, "nested 2 to 4 lists deep"),
        ({"input_points": [[1, 2]], "input_labels": [0.7]}, r"must be 1 \(foreground\), 0 \(background\).* got 0.7"),
        ({"input_points": [["a", "b"]], "input_labels": [1]}, "must be numbers"),
        ({"input_boxes": [[1, 2, 3, 4]] * 2}, "of each image, got 2 for 1"),
        ({"input_boxes": [1, 2, 3]}, r"must be \(left, top, right, bottom\)"),
        ({"input_points": [[40, 5]], "input_labels": [1]}, r"in the photo of 30×20 pixels, got \(40, 5\)"),
        ({"input_points": [[5, float("nan")]], "input_labels": [0]}, r"photo of 30×20 pixels, got \(5, nan\)"),
        ({"input_boxes": [7, 7, 7, 7]}, r"photo of 30×20 pixels, with an area, got \(7, 7, 7, 7\)"),
        ({"input_boxes": [0, 0, 31, 20]}, r"got \(0, 0, 31, 20\)"),
    ],
)
def test_prompts_of_the_processor_that_cannot_be_are_named(prompts, message):
    with pytest.raises(ValueError, match=message):
        PROCESSOR(Image.new("RGB", (30, 20)), return_tensors="pt", **prompts)
