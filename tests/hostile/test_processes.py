"""Two processes (gloo, on the CPU) compute what one does: gradient, validation loss and scores."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY

# Saves the gradient, which is the step that SGD of rate 1 takes, and the validation scores before it.
PROGRAM = """
import json, sys
import torch
from conftest import tiny_model
from transformers import TrainingArguments
from efp_hf import EFPImageProcessor
from efp_hf.data.folders import load_isic
from efp_hf.training.trainer import TRAINING_DEFAULTS, lesion_trainer

root, output, batch_size = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.manual_seed(3)
torch.set_num_threads(1)
model = tiny_model()
for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):  # its statistics in training are those of a process's own images
        module.train = lambda mode=True, module=module: module
changes = {
    **{"output_dir": output, "max_steps": 1, "per_device_train_batch_size": batch_size, "max_grad_norm": 0.0},
    **{"per_device_eval_batch_size": int(sys.argv[4]), "lr_scheduler_type": "constant", "warmup_steps": 0},
    **{"train_sampling_strategy": "sequential", "eval_strategy": "no"},
    **{"save_strategy": "no", "load_best_model_at_end": False},
    **{"use_cpu": True, "ddp_backend": "gloo", "disable_tqdm": True},
}
arguments = TrainingArguments(**{**TRAINING_DEFAULTS, **changes})
trainer = lesion_trainer(model, EFPImageProcessor(size={"height": 32, "width": 32}), load_isic(root), arguments, 1.0)
trainer.optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
trainer.train()
gradient = {name: before[name] - parameter.detach() for name, parameter in model.named_parameters()}
model.load_state_dict(before, strict=False)
scores = trainer.evaluate()
if trainer.is_world_process_zero():
    torch.save({"gradient": gradient, "scores": scores, "world_size": arguments.world_size}, f"{output}.pt")
"""

# Saves for each process a number of each image that it trains on, and the loss of validation at the start.
STREAM_PROGRAM = """
import json, os, sys
import torch
from conftest import tiny_model
from datasets import IterableDatasetDict
from transformers import TrainingArguments
from efp_hf import EFPImageProcessor
from efp_hf.data.folders import load_isic
from efp_hf.training.trainer import STREAMING_DEFAULTS, TRAINING_DEFAULTS, lesion_trainer

root, output, batch_size, eval_batch_size = *sys.argv[1:3], *map(int, sys.argv[3:])
torch.set_num_threads(1)
torch.manual_seed(3)
data = load_isic(root)
streams = IterableDatasetDict({split: data[split].to_iterable_dataset(num_shards=4) for split in data})
changes = {
    **{"output_dir": output, "max_steps": 2, "per_device_train_batch_size": batch_size, "eval_strategy": "no"},
    **{"per_device_eval_batch_size": eval_batch_size, "save_strategy": "no", "load_best_model_at_end": False},
    **{"use_cpu": True, "ddp_backend": "gloo", "disable_tqdm": True},
}
arguments = TrainingArguments(**{**TRAINING_DEFAULTS, **STREAMING_DEFAULTS, **changes})
trainer = lesion_trainer(tiny_model(), EFPImageProcessor(size={"height": 32, "width": 32}), streams, arguments, 1e-3)
start = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
images = []
trainer.model.register_forward_pre_hook(
    lambda module, args, kwargs: images.extend(image.sum().item() for image in kwargs["pixel_values"]), with_kwargs=True
)
trainer.train()
trained = list(images)
trainer.model.load_state_dict(start)
scores = trainer.evaluate()
with open(f"{output}-{os.environ['RANK']}.json", "w") as file:
    json.dump({"images": trained, "loss": scores["eval_loss"]}, file)
"""


@pytest.fixture(scope="module")
def run_processes(tmp_path_factory, synthetic_root):
    folder = tmp_path_factory.mktemp("processes")
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}", "OMP_NUM_THREADS": "1"}
    environment["HF_DATASETS_CACHE"] = str(folder / "cache")

    @cache
    def run(num_processes: int, batch_size: int, eval_batch_size: int) -> Path:
        """Runs both programs in so many processes, one after the other → what the names of their files begin with."""
        program = folder / f"program-{num_processes}.py"
        program.write_text(PROGRAM + STREAM_PROGRAM)
        output = folder / f"output-{num_processes}"
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
        command = [*launch, str(program), str(synthetic_root), str(output), str(batch_size), str(eval_batch_size)]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert ran.returncode == 0, ran.stderr
        return output

    return run


@pytest.mark.slow
def test_two_processes_have_the_gradient_validation_loss_and_scores_of_one(run_processes, record_counts):
    """4 images of validation fill no two batches of 3: the second process repeats two of them."""
    one, two = (torch.load(f"{run_processes(*settings)}.pt", weights_only=True) for settings in ((1, 16, 4), (2, 8, 3)))
    assert (one["world_size"], two["world_size"]) == (1, 2)
    names = ("eval_loss", "eval_jaccard", "eval_threshold_jaccard", "eval_dice")
    held = 0
    for name in names:
        assert two["scores"][name] == pytest.approx(one["scores"][name], rel=1e-6), name
        held += 1
    for name, gradient in one["gradient"].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(two["gradient"][name], gradient, atol=1e-6, rtol=1e-3)
        held += 1
    record_counts("training in two processes", len(names) + len(one["gradient"]), held)


@pytest.mark.slow
def test_two_processes_share_a_stream_without_overlap(run_processes, record_counts):
    """Two steps of 16 images: each of the 28 once in the first epoch, then the first four of the second."""
    (one,), two = (
        [json.loads(Path(f"{output}-{rank}.json").read_text()) for rank in range(number)]
        for number, output in (
            (1, run_processes(1, 16, 4)),
            (2, run_processes(2, 8, 3)),
        )
    )
    assert len(one["images"]) == 32 and [len(process["images"]) for process in two] == [16, 16]
    assert sorted(two[0]["images"] + two[1]["images"]) == sorted(one["images"])
    assert two[0]["loss"] == two[1]["loss"] == pytest.approx(one["loss"], rel=1e-6)
    record_counts("streamed training in two processes", 32, len(set(two[0]["images"]) | set(two[1]["images"])))
