import pytest
import torch
from conftest import tiny_model
from datasets import IterableDatasetDict
from transformers import TrainingArguments

from efp_hf import EFPImageProcessor
from efp_hf.data.folders import load_isic
from efp_hf.training.trainer import STREAMING_DEFAULTS, TRAINING_DEFAULTS, lesion_trainer
from efp_hf.training.transform import LesionStream, LesionTransform

PROCESSOR = EFPImageProcessor(size={"height": 32, "width": 32})


@pytest.fixture(scope="module")
def data(synthetic_root):
    return load_isic(synthetic_root)


@pytest.fixture(scope="module")
def streams(data):
    return IterableDatasetDict({split: data[split].to_iterable_dataset(num_shards=2) for split in data})


def images_of(examples) -> list[bytes]:
    return [example["pixel_values"].numpy().tobytes() for example in examples]


def first(stream: LesionStream, number: int) -> list[bytes]:
    return images_of(example for example, _ in zip(stream, range(number), strict=False))


def test_stream_of_validation_has_each_example_once(data, streams):
    transform = LesionTransform(PROCESSOR)
    expected = images_of(data["validation"].with_transform(transform))
    assert images_of(LesionStream(streams["validation"], transform)) == expected


def test_stream_of_training_is_shuffled_and_augmented_anew_in_each_epoch(data, streams):
    length = len(data["train"])
    plain = LesionTransform(PROCESSOR)
    found = first(LesionStream(streams["train"], plain, shuffle_seed=0), 2 * length)
    expected = sorted(images_of(data["train"].with_transform(plain)))
    assert sorted(found[:length]) == sorted(found[length:]) == expected
    assert found[:length] != found[length:]
    augmented = LesionTransform(PROCESSOR, augment=True)
    found = first(LesionStream(streams["train"], augmented, shuffle_seed=0), 2 * length)
    assert len(set(found)) == 2 * length
    again = LesionTransform(PROCESSOR, augment=True)
    assert found == first(LesionStream(streams["train"], again, shuffle_seed=0), 2 * length)
    assert found != first(LesionStream(streams["train"], again, shuffle_seed=1), 2 * length)


@pytest.mark.slow
def test_streamed_run_that_is_resumed_in_its_second_epoch_ends_with_the_same_weights(tmp_path, streams):
    def trained(folder, resume=None) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        changes = {"per_device_train_batch_size": 8, "max_steps": 8, "save_steps": 0.5, "eval_steps": 0.5}
        arguments = TrainingArguments(
            str(folder),
            **{**TRAINING_DEFAULTS, **STREAMING_DEFAULTS, **changes, "use_cpu": True, "disable_tqdm": True},
        )
        trainer = lesion_trainer(tiny_model(), PROCESSOR, streams, arguments, 1e-3)
        trainer.train(resume_from_checkpoint=resume)
        return trainer.model.state_dict()

    whole = trained(tmp_path / "whole")
    resumed = trained(tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-4"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
