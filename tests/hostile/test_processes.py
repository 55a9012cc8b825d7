"""Two processes (gloo, on the CPU) compute what one does: gradient, validation loss and scores."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY

# Saves in OUTPUT.pt the step that SGD of rate 1 takes, the gradient, and prints the scores of the start as JSON.
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
    torch.save(gradient, f"{output}.pt")
    print(json.dumps({"world_size": arguments.world_size, **scores}))
"""


@pytest.fixture(scope="module")
def run_processes(tmp_path_factory, synthetic_root):
    folder = tmp_path_factory.mktemp("processes")
    program = folder / "program.py"
    program.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}", "OMP_NUM_THREADS": "1"}
    environment["HF_DATASETS_CACHE"] = str(folder / "cache")

    def run(num_processes: int, batch_size: int, eval_batch_size: int) -> tuple[dict, dict]:
        """Scores and the gradient of the first step."""
        output = folder / f"{num_processes}-{batch_size}-{eval_batch_size}"
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
        command = [*launch, str(program), str(synthetic_root), str(output), str(batch_size), str(eval_batch_size)]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert ran.returncode == 0, ran.stderr
        scores = json.loads(ran.stdout.splitlines()[-1])
        assert scores.pop("world_size") == num_processes
        return scores, torch.load(f"{output}.pt", weights_only=True)

    return run


@pytest.mark.slow
def test_two_processes_have_the_gradient_validation_loss_and_scores_of_one(run_processes, record_counts):
    """4 images of validation fill no two batches of 3: the second process repeats two of them."""
    one_scores, one_gradient = run_processes(1, batch_size=16, eval_batch_size=4)
    two_scores, two_gradient = run_processes(2, batch_size=8, eval_batch_size=3)
    names = ("eval_loss", "eval_jaccard", "eval_threshold_jaccard", "eval_dice")
    held = 0
    for name in names:
        assert two_scores[name] == pytest.approx(one_scores[name], rel=1e-6), name
        held += 1
    for name, gradient in one_gradient.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(two_gradient[name], gradient, atol=1e-6, rtol=1e-3)
        held += 1
    record_counts("training in two processes", len(names) + len(one_gradient), held)
