"""The `checkpoint-…` folders of a training: which of them are whole, and which counts as the best."""

import json
import logging
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel, TrainerState, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_pt_utils import safe_globals

from ..image_processing_efp import EFPImageProcessor
from ..inference.checkpoint import TRAINING_IMAGES
from .fingerprint import write_fingerprint

logger = logging.getLogger(__name__)
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
STATE = "trainer_state.json"
PICKLED = ("optimizer.pt", "scheduler.pt", "rng_state*.pth")  # rng_state_0.pth … of several processes
OPTIONAL = ("scaler.pt",)
# what else a training writes into a checkpoint, before its state
OTHER_FILES = ("preprocessor_config.json", TRAINING_ARGS_NAME, TRAINING_IMAGES, "*.py")
UNNAMED = (".tmp??????", f".*-{TRAINING_IMAGES}")  # of safetensors and `write_atomically`, while they write
READING_ERRORS = (  # of files that are cut, overwritten, or hold other objects
    *(OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError),
    *(SafetensorError, zipfile.BadZipFile, pickle.UnpicklingError),
)


def numbered_checkpoints(output: Path) -> dict[int, Path]:
    """Step → folder, the newest first."""
    found = {int(path.name[11:]): path for path in output.glob("checkpoint-*") if re.fullmatch(r"\d+", path.name[11:])}
    return {step: found[step] for step in sorted(found, reverse=True) if found[step].is_dir()}


def is_of_training(checkpoint: Path) -> bool:
    """
    Whether a training made a folder: its state is there or, where it was killed, none but the files of one. Weights
    without the arguments, which a training writes before them, are somebody's own.
    """
    if (checkpoint / STATE).is_file():
        return True
    own = (CONFIG, WEIGHTS, *PICKLED, *OPTIONAL, *OTHER_FILES, *UNNAMED)
    is_own = all(any(path.match(name) for name in own) and not path.is_dir() for path in checkpoint.iterdir())
    return is_own and ((checkpoint / TRAINING_ARGS_NAME).is_file() or not (checkpoint / WEIGHTS).exists())


def check_own_checkpoints(output: Path) -> None:
    """
    Raises:
        ValueError: `checkpoint-…` folders of somebody else, which a training into this folder would remove.
    """
    foreign = [path.name for path in numbered_checkpoints(output).values() if not is_of_training(path)]
    if foreign:
        raise ValueError(
            f"{output} must hold no `checkpoint-…` folder but those of a training, which removes old ones; got "
            f"{', '.join(foreign)} without {STATE}. Move it away, or choose another --output."
        )


def remove_checkpoints(output: Path, first_step: int = 0) -> None:
    """Those of a training, from a step on: nothing of an earlier one may complete a new one, or be resumed after it."""
    for step, folder in numbered_checkpoints(output).items():
        if step >= first_step and is_of_training(folder):
            shutil.rmtree(folder)


def damage(checkpoint: Path) -> str | None:
    """
    Why training cannot go on with a checkpoint; `None` where it is whole: its state, weights, optimizer, schedule and
    random numbers are there and can be read to their end. Trainer writes the state last. Pickles run nothing.
    """
    reading = STATE
    try:
        if not isinstance(trained_steps(checkpoint), int):
            return f"{reading} is damaged"
        reading = CONFIG
        json.loads((checkpoint / CONFIG).read_text(encoding="utf-8"))
        reading = WEIGHTS
        with safe_open(checkpoint / WEIGHTS, framework="pt"):  # compares the size of the file with its header
            pass
        for pattern in PICKLED + OPTIONAL:
            reading = pattern
            paths = sorted(checkpoint.glob(pattern))
            if not paths and pattern not in OPTIONAL:
                return f"{pattern} is missing"
            for path in paths:
                reading = path.name
                with zipfile.ZipFile(path) as packed:
                    if packed.testzip() is not None:
                        return f"{reading} is damaged"
                with safe_globals():
                    torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return f"{reading} is missing"
    except READING_ERRORS:
        return f"{reading} is damaged"
    return None


def newest_whole(output: Path) -> tuple[Path | None, dict[str, str]]:
    """The newest whole checkpoint of an output folder, and the newer ones: name → what is wrong with it."""
    skipped = {}
    for checkpoint in numbered_checkpoints(output).values():
        wrong = damage(checkpoint)
        if wrong is None:
            return checkpoint, skipped
        skipped[checkpoint.name] = wrong
    return None, skipped


def trained_steps(checkpoint: Path) -> int:
    return TrainerState.load_from_json(checkpoint / STATE).global_step


def check_network(checkpoint: Path, model: torch.nn.Module) -> None:
    """
    Raises:
        ValueError: a whole checkpoint with the weights of another network than the model.
    """
    with safe_open(checkpoint / WEIGHTS, framework="pt") as weights:
        saved = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in expected.keys() | saved.keys():
        if saved.get(name) != expected.get(name):
            raise ValueError(
                f"{checkpoint} must hold the network that is to be trained, got {name} of shape {saved.get(name)} "
                f"instead of {expected.get(name)}. Resume with the options that it was started with."
            )


def check_settings(checkpoint: Path, settings: dict[str, str | float | None]) -> None:
    """
    Raises:
        ValueError: a whole checkpoint of a run with other settings, by option: its optimizer would go on with its own.
            Of words the last one counts: that of `--checkpoint` is the digest of its weights, after its name.
    """

    def compared(value: str | float | None) -> str | float | None:
        return value.split()[-1] if isinstance(value, str) else value

    state = TrainerState.load_from_json(checkpoint / STATE).stateful_callbacks.get("RunSettings")
    saved = state["args"]["settings"] if state else settings  # of an earlier version
    for option, value in settings.items():
        if compared(saved.get(option, value)) != compared(value):
            raise ValueError(
                f"{checkpoint} was trained with {option} {saved[option]}, got {value}. "
                "Resume with the options that it was started with."
            )


def check_image_size(checkpoint: Path, processor: EFPImageProcessor) -> None:
    """
    Raises:
        ValueError: a checkpoint whose images had another size: scores at two sizes do not say which epoch is the best.
    """
    saved = EFPImageProcessor.from_pretrained(checkpoint).size
    if saved != processor.size:
        raise ValueError(
            f"{checkpoint} must have the size of the images that are trained on, got {saved['height']} instead of "
            f"{processor.size['height']}. Resume with the --image-size that it was started with."
        )


def best_whole(state: TrainerState, output: Path, metric: str, greater_is_better: bool) -> tuple[int, float] | None:
    """
    Step and score of the best checkpoint that is whole, of those up to `state` whose score is in its history; `None`
    without any.
    """
    sign = 1 if greater_is_better else -1
    scores = {entry["step"]: entry[metric] for entry in state.log_history if metric in entry}
    checkpoints = numbered_checkpoints(output)
    for step in sorted(scores.keys() & checkpoints.keys(), key=lambda step: sign * scores[step], reverse=True):
        if damage(checkpoints[step]) is None:
            return step, scores[step]
    return None


def keep_whole_best(state: TrainerState, arguments: TrainingArguments) -> None:
    """
    The best checkpoint of a training becomes the best one that is whole: the one that its state names may be damaged,
    gone, or in a folder that was moved.
    """
    if state.best_global_step is None:
        return
    output, metric = Path(arguments.output_dir), arguments.metric_for_best_model
    here = output / f"checkpoint-{state.best_global_step}"
    for named in (here, Path(state.best_model_checkpoint or here)):
        if damage(named) is None:
            state.best_model_checkpoint = str(named)
            return
    metric = metric if metric.startswith("eval_") else f"eval_{metric}"
    best = best_whole(state, output, metric, arguments.greater_is_better)
    if state.is_world_process_zero:
        instead = f"checkpoint-{best[0]}" if best else "the best of the checkpoints to come"
        logger.warning("%s, the best so far, cannot be used (%s): %s counts.", here, damage(here), instead)
    state.best_global_step, state.best_metric = best or (None, None)
    state.best_model_checkpoint = best and str(output / f"checkpoint-{best[0]}")


def save_trained(
    model: PreTrainedModel, processor: EFPImageProcessor, folder: Path, fingerprint: set[tuple[str, str]] | None
) -> None:
    """
    Model, processor and the [`fingerprint_of`] their images, where that is known, into a folder of other files: the
    weights come last, so that none but their own files lie beside them, whatever ends the run.
    """
    partial = folder / ".saving"
    shutil.rmtree(partial, ignore_errors=True)  # a killed run's
    try:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        if fingerprint is not None:
            write_fingerprint(partial, fingerprint)
        for stale in (WEIGHTS, TRAINING_IMAGES):
            (folder / stale).unlink(missing_ok=True)
        for path in sorted(partial.iterdir(), key=lambda path: path.name == WEIGHTS):
            path.replace(folder / path.name)
    except SafetensorError as error:  # a full disk
        raise OSError(f"{folder}: the weights could not be saved ({error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
