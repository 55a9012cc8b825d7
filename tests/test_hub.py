"""What other people's processes see: Auto classes, remote code, pipeline, the files of a checkpoint."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ORGANS, REPOSITORY, draw_organs, tiny_model
from huggingface_hub import ModelCard
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline

from efp_hf import EFPConfig, EFPForSegmentation, EFPImageProcessor
from efp_hf.data.synthetic import draw_lesion
from efp_hf.inference.checkpoint import load_checkpoint, segment
from efp_hf.inference.export import save_for_hub
from efp_hf.lesion.structures import LABELS

SHIPPED_CODE = ("configuration_efp.py", "modeling_efp.py", "loss_efp.py", "image_processing_efp.py")
CHECKPOINTS = sorted(path.parent for path in (REPOSITORY / "efp_hf" / "checkpoints").glob("*/config.json"))


def test_auto_classes_know_efp(tiny_checkpoint):
    assert type(AutoConfig.from_pretrained(tiny_checkpoint)) is EFPConfig
    assert type(AutoModelForSemanticSegmentation.from_pretrained(tiny_checkpoint)) is EFPForSegmentation
    assert type(AutoImageProcessor.from_pretrained(tiny_checkpoint)) is EFPImageProcessor


def test_pipeline_gives_both_masks_at_the_images_own_size(tiny_checkpoint):
    model = EFPForSegmentation.from_pretrained(tiny_checkpoint)
    processor = EFPImageProcessor.from_pretrained(tiny_checkpoint)
    segmenter = pipeline("image-segmentation", model=model, image_processor=processor)
    image = Image.open(REPOSITORY / "examples" / "synthetic_1.jpg")
    found = {result["label"]: np.asarray(result["mask"]) for result in segmenter(image)}
    by_path = pipeline("image-segmentation", model=str(tiny_checkpoint))(image)
    assert {result["label"]: np.asarray(result["mask"]).sum() for result in by_path} == {
        label: mask.sum() for label, mask in found.items()
    }
    outputs = model.eval()(**processor(image, return_tensors="pt"))
    mask = processor.post_process_semantic_segmentation(outputs, target_sizes=[(image.height, image.width)])[0].numpy()
    assert mask.shape == (image.height, image.width) and 0 < mask.mean() < 1
    assert np.array_equal(found["lesion"], mask * 255)
    assert np.array_equal(found["background"], (1 - mask) * 255)


def test_pipeline_gives_a_mask_a_class(organs_checkpoint):
    model = EFPForSegmentation.from_pretrained(organs_checkpoint)
    processor = EFPImageProcessor.from_pretrained(organs_checkpoint)
    image = draw_organs(0)[0]
    found = pipeline("image-segmentation", model=model, image_processor=processor)(image)
    outputs = model.eval()(**processor(image, return_tensors="pt"))
    labels = processor.post_process_semantic_segmentation(outputs, target_sizes=[(image.height, image.width)])[
        0
    ].numpy()
    names = ("background", *ORGANS)
    assert [result["label"] for result in found] == [names[label] for label in np.unique(labels)] and len(found) == 4
    for result in found:
        assert np.array_equal(np.asarray(result["mask"]), (labels == names.index(result["label"])) * 255)


def test_pipeline_gives_a_mask_a_label_that_overlaps(tiny_structures):
    model, processor = load_checkpoint(tiny_structures, allow_overlap=True)
    image = draw_lesion(3, 40, 56)[0]
    segmenter = pipeline("image-segmentation", model=model, image_processor=processor)
    found = segmenter(image)
    (result,) = segment([image], model, processor)
    masks = dict(zip(LABELS, result["segmentation"].numpy(), strict=True))
    assert [of_one["label"] for of_one in found] == [name for name, mask in masks.items() if mask.any()]
    for of_one in found:
        assert np.array_equal(np.asarray(of_one["mask"]), masks[of_one["label"]] * 255)
        assert of_one["score"] == result["probabilities"][LABELS.index(of_one["label"])].max()
    assert sum(mask.astype(int) for mask in masks.values()).max() > 1  # they do overlap
    with pytest.raises(ValueError, match="each has a threshold of its own. Set `threshold` of the image processor"):
        segmenter(image, mask_threshold=0.3)
    with pytest.raises(ValueError, match='`subtask` must be left out for labels that overlap, got "semantic"'):
        segmenter(image, subtask="semantic")
    assert not hasattr(EFPImageProcessor(), "post_process_instance_segmentation")


REMOTE = """
import sys
sys.modules["efp_hf"] = None  # importing it is an error from here on
import json, torch
from PIL import Image
from transformers import AutoModelForSemanticSegmentation, AutoImageProcessor, pipeline
image = Image.open(sys.argv[1])
for folder in sys.argv[2:]:
    model = AutoModelForSemanticSegmentation.from_pretrained(folder, trust_remote_code=True).eval()
    processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
    with torch.inference_mode():
        outputs = model(**processor(image, return_tensors="pt"))
    mask = processor.post_process_semantic_segmentation(outputs, target_sizes=[(image.height, image.width)])[0]
    model.save_pretrained(folder + "-again")
    found = pipeline("image-segmentation", model=model, image_processor=processor)(image)
    logits, labels = outputs.logits.flatten()[::97].tolist(), [result["label"] for result in found]
    print(json.dumps({"logits": logits, "lesion": int(mask.sum()), "labels": labels}))
"""


def test_checkpoints_work_in_a_process_without_the_package(tmp_path, tiny_checkpoint):
    """As they lie on the Hub, started far from the repository."""
    sources = [tiny_checkpoint, *CHECKPOINTS]
    folders = [tmp_path / f"downloaded-{source.name}" for source in sources]
    for source, folder in zip(sources, folders, strict=True):
        save_for_hub(*load_checkpoint(source, allow_overlap=True), folder)
    photo = REPOSITORY / "examples" / "synthetic_1.jpg"
    run = subprocess.run([sys.executable, "-c", REMOTE, photo, *folders], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    image = Image.open(photo)
    for source, folder, line in zip(sources, folders, run.stdout.splitlines()[-len(sources) :], strict=True):
        remote = json.loads(line)
        model = EFPForSegmentation.from_pretrained(source).eval()
        processor = EFPImageProcessor.from_pretrained(source)
        with torch.inference_mode():
            outputs = model(**processor(image, return_tensors="pt"))
        mask = processor.post_process_semantic_segmentation(outputs, target_sizes=[(image.height, image.width)])[0]
        assert remote["logits"] == pytest.approx(outputs.logits.flatten()[::97].tolist(), abs=1e-5), source
        assert remote["lesion"] == int(mask.sum()), source
        assert set(remote["labels"]) <= {"background", *model.config.id2label.values()}
        again = folder.with_name(f"{folder.name}-again")
        assert all((again / name).is_file() for name in SHIPPED_CODE if name != "image_processing_efp.py")


SAVED = ("config.json", "preprocessor_config.json", "model.safetensors")


def test_saved_folder_holds_no_code_and_no_pickle_and_names_none(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    EFPImageProcessor().save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(SAVED)
    assert not any("auto_map" in (tmp_path / name).read_text() for name in SAVED[:2])


def test_folder_for_the_hub_holds_the_code_of_the_package_and_the_card(tmp_path):
    (tmp_path / "card.md").write_text("# A model")
    folder = tmp_path / "hub"
    save_for_hub(tiny_model(), EFPImageProcessor(), folder, card=tmp_path / "card.md")
    assert {path.name for path in folder.iterdir()} == {*SAVED, *SHIPPED_CODE, "README.md"}
    for name in SHIPPED_CODE:
        assert (folder / name).read_text() == (REPOSITORY / "efp_hf" / name).read_text(), name
    assert json.loads((folder / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "configuration_efp.EFPConfig",
        "AutoModelForSemanticSegmentation": "modeling_efp.EFPForSegmentation",
    }
    # loaded from there and saved here, the folder stands alone again
    EFPForSegmentation.from_pretrained(folder).save_pretrained(tmp_path / "again")
    EFPImageProcessor.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").iterdir()} == set(SAVED)
    assert not any("auto_map" in (tmp_path / "again" / name).read_text() for name in SAVED[:2])
    with pytest.raises(FileExistsError, match="hub is there"):
        save_for_hub(tiny_model(), EFPImageProcessor(), folder)
    save_for_hub(tiny_model(), EFPImageProcessor(), folder, overwrite=True)
    (folder / "checkpoint-6").mkdir()  # a training has gone on here
    for other in (folder, tmp_path / "again"):
        with pytest.raises(FileExistsError, match="is no exported model and is not overwritten"):
            save_for_hub(tiny_model(), EFPImageProcessor(), other, overwrite=True)
    assert (folder / "checkpoint-6").is_dir()


def test_folder_with_code_files_still_names_them_after_a_change(tmp_path):
    """As `efp calibrate` changes it."""
    save_for_hub(tiny_model(), EFPImageProcessor(), tmp_path / "hub")
    model, processor = load_checkpoint(tmp_path / "hub")
    processor.save_pretrained(tmp_path / "hub")
    model.config.save_pretrained(tmp_path / "hub")
    assert all("auto_map" in (tmp_path / "hub" / name).read_text() for name in SAVED[:2])


def test_push_to_hub_takes_the_code_along(monkeypatch):
    """What Transformers would upload, without a server."""
    uploaded = {}

    def upload(self, working_dir, *args, **kwargs):
        uploaded[type(self)] = {path.name for path in Path(working_dir).iterdir()}

    for cls in (EFPForSegmentation, EFPImageProcessor):
        monkeypatch.setattr(cls, "_upload_modified_files", upload, raising=False)
    api = SimpleNamespace(create_repo=lambda repo_id, **kwargs: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr("transformers.utils.hub.hf_api", lambda *args: api)
    monkeypatch.setattr(
        "transformers.utils.hub.create_and_tag_model_card", lambda *args, **kwargs: ModelCard("---\n---")
    )
    tiny_model().push_to_hub("someone/efp")
    EFPImageProcessor().push_to_hub("someone/efp")
    assert set(SHIPPED_CODE[:3]) <= uploaded[EFPForSegmentation]
    assert "image_processing_efp.py" in uploaded[EFPImageProcessor]
    assert EFPForSegmentation._auto_class is EFPConfig._auto_class is EFPImageProcessor._auto_class is None


@pytest.mark.skipif(not CHECKPOINTS, reason="no checkpoint in this clone")
@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.name)
def test_shipped_checkpoint_holds_weights_configuration_processor_card_and_fingerprint(checkpoint):
    assert {path.name for path in checkpoint.iterdir()} == {*SAVED, "README.md", "training_images.csv"}
    assert (checkpoint / "model.safetensors").stat().st_size <= 16e6


def test_shipped_files_import_nothing_of_the_training_side():
    from transformers.dynamic_module_utils import get_imports

    core = {"torch", "torchvision", "transformers", "huggingface_hub", "safetensors", "numpy", "PIL"}
    for name in SHIPPED_CODE:
        assert set(get_imports(REPOSITORY / "efp_hf" / name)) - set(sys.stdlib_module_names) <= core, name
