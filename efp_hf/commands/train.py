"""Train EFP on images and masks, of one class as a lesion, of several, or of labels that overlap.

  efp train --data synthetic --output runs/first                 a first run, about a minute
  efp train --data ISIC_FOLDER --output runs/efp
  efp train --data MY_FOLDER --output runs/mine --checkpoint efp-isic
  efp train --data MY_FOLDER --output runs/clicks --checkpoint runs/mine --prompts
  efp train --data ISIC_FOLDER --output runs/structures --checkpoint efp-isic --task structures
  accelerate launch --multi_gpu --num_processes 2 -m efp_hf train …      several processes or GPUs

The epoch with the best validation J is saved in --output, with a row of it in training.csv. From a
checkpoint that knows the classes the rates are lower, and its own score is printed first; for other
classes a new head learns alone at first. Then training ends where its score rises no more.
Every field of Transformers' TrainingArguments is an option too: --learning-rate … (--help-all).
"""

import argparse
import copy
import shlex
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from transformers import HfArgumentParser, TrainingArguments, set_seed
from transformers.hf_argparser import string_to_bool

from ..extras import require
from .arguments import (
    InputError,
    WriteError,
    add_data_arguments,
    add_labels_overlap_argument,
    check_new_output,
    check_output,
    check_table,
    command_provenance,
    one_line_errors,
    own_path,
    positive_integer,
    say_found,
)
from .interruption import interrupted_by_termination
from .precision import check_bf16

TASKS = ("lesion", "structures")
LENGTH_OPTIONS = {"--num-train-epochs", "--max-steps"}  # that say how long a training is
UNET_FOLDER = "compared-unet"  # in --output
DEFAULT_ENCODER = "tf_efficientnet_lite0"
# that a checkpoint says itself: option → its value where it is not given
MODEL_OPTIONS = {"--encoder": None, "--no-encoder-weights": False, "--nano": False}
# of a row: what a resumed run does not change
RESUMED_ALIKE = ("seed", "learning_rate", "encoder_learning_rate", "weight_decay")
# of `TrainingArguments`, that this command calls otherwise
OTHER_NAMES = {
    "--output-dir": "the folder for all that is written has one name. Use --output",
    "--resume-from-checkpoint": "a run goes on from its own newest whole checkpoint. Use --resume",
}
# of a row of training.csv, known after the training
RESULT_COLUMNS = (
    "epochs",
    "weights",
    "minutes_this_session",
    "validation_jaccard",
    "validation_threshold_jaccard",
    "validation_dice",
)
OVERLAP_COLUMNS = ("validation_micro_jaccard", "validation_mean_jaccard")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser, split=None)
    parser.add_argument(
        "--streaming", action="store_true", help="read Parquet or WebDataset as training goes; with --max-steps"
    )
    parser.add_argument("--output", metavar="DIR", type=own_path, required=True, help="folder for all that is written")
    parser.add_argument("--checkpoint", metavar="NAME", help="fine-tune this one: shipped name, folder, or Hub id")
    parser.add_argument("--encoder", help=f"'paper', a timm model, or a Hub id (default: {DEFAULT_ENCODER})")
    parser.add_argument("--no-encoder-weights", action="store_true", help="start the encoder without ImageNet weights")
    parser.add_argument("--nano", action="store_true", help="EFP nano, the network for phones")
    parser.add_argument(
        "--image-size",
        metavar="N",
        type=positive_integer,
        help="sides of the input (default: 256, or the checkpoint's)",
    )
    parser.add_argument(
        "--encoder-learning-rate",
        metavar="X",
        type=float,
        help="--learning-rate is the rest's (default: 3e-4; fine-tuning 1e-4)",
    )
    parser.add_argument(
        "--prompts", action="store_true", help="teach a checkpoint to take clicks and boxes; its own mask stays"
    )
    parser.add_argument(
        "--task",
        metavar="NAME",
        choices=TASKS,
        default=TASKS[0],
        help="'structures' of ISIC 2018, Task 2: a checkpoint learns them, too",
    )
    add_labels_overlap_argument(parser)
    parser.add_argument(
        "--compare", metavar="NAME", choices=("unet",), help="'unet': train it on the same encoder, too; twice the time"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest whole checkpoint in --output")
    parser.add_argument("--overwrite", action="store_true", help="train into an output folder that is not empty")
    parser.add_argument("--force-bf16", action="store_true", help="--bf16 also where the processor has none")
    parser.add_argument("--help-all", action=HelpAll, help="all options, those of TrainingArguments too")
    parser.set_defaults(takes_others=True)


class HelpAll(argparse.Action):
    """The command's help, then that of the fields of `TrainingArguments`."""

    def __init__(self, option_strings: list[str], dest: str, help: str):
        super().__init__(option_strings, dest=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser, namespace, values, option_string=None):
        parser.print_help()
        fields = training_parser().format_help().split("options:\n", 1)[1]
        print(f"\noptions of TrainingArguments:\n{fields}", end="")
        parser.exit()


def training_parser() -> HfArgumentParser:
    """Of the fields of `TrainingArguments`, with dashes or underscores."""
    parser = HfArgumentParser(
        TrainingArguments,
        prog="this command",
        usage="efp train --data DATA --output DIR [options]",
        add_help=False,
        allow_abbrev=False,
    )
    for action in parser._actions:
        if action.type is string_to_bool and action.nargs is None:  # bool or None: they want a value
            action.nargs, action.const = "?", True
    return parser


def parse_training_arguments(others: list[str], output: str, streaming: bool) -> TrainingArguments:
    """`TrainingArguments` of what is given, and of this package's defaults where nothing is."""
    import torch

    from ..training.trainer import STREAMING_DEFAULTS, TRAINING_DEFAULTS

    for option, instead in OTHER_NAMES.items():
        if option in given_options(others):
            raise InputError(f"`{option}` must not be given: {instead}.")
    parser = training_parser()
    # Transformers refuses bf16 on a processor that is used for want of a GPU
    parser.set_defaults(**TRAINING_DEFAULTS, use_cpu=not torch.accelerator.is_available())
    if streaming:
        parser.set_defaults(**STREAMING_DEFAULTS)
    with one_line_errors():
        training_arguments, unknown = parser.parse_args_into_dataclasses(
            [*others, "--output_dir", output], return_remaining_strings=True, look_for_args_file=False
        )
    if unknown:
        raise InputError(f"unrecognized arguments: {' '.join(unknown)} (`efp train --help-all` lists them all)")
    if training_arguments.save_only_model:
        raise InputError("`--save-only-model` must not be given: no run could be resumed. Leave it out.")
    if streaming and training_arguments.max_steps <= 0:
        raise InputError("`--max-steps` must be given with --streaming: nobody knows the length of a stream. Pass it.")
    return training_arguments


def chosen_rates(
    arguments: argparse.Namespace, training_arguments: TrainingArguments, fine_tuning: bool
) -> tuple[float, float]:
    """
    The learning rates of the encoder and of the rest; where they are not given those of a new network, or of
    `fine_tuning` on classes that are known.
    """
    from ..training.trainer import (
        ENCODER_LEARNING_RATE,
        FINE_TUNING_ENCODER_LEARNING_RATE,
        FINE_TUNING_LEARNING_RATE,
    )

    encoder_rate, rate = arguments.encoder_learning_rate, training_arguments.learning_rate
    if encoder_rate is None:
        encoder_rate = FINE_TUNING_ENCODER_LEARNING_RATE if fine_tuning else ENCODER_LEARNING_RATE
    if fine_tuning and "--learning-rate" not in given_options(arguments.others):
        rate = FINE_TUNING_LEARNING_RATE
    return encoder_rate, rate


def given_options(others: list[str]) -> set[str]:
    """Those of `TrainingArguments`, spelled with dashes."""
    return {option.partition("=")[0].replace("_", "-") for option in others}


def check_model_options(arguments: argparse.Namespace) -> None:
    from ..inference.checkpoint import find_checkpoint

    for option, default in MODEL_OPTIONS.items():
        given = getattr(arguments, option.removeprefix("--").replace("-", "_")) != default
        if given and arguments.checkpoint is not None and (option, arguments.task) != ("--encoder", "structures"):
            raise InputError(f"`{option}` must not be given with --checkpoint, which says it itself. Leave one out.")
    if arguments.checkpoint is not None:
        with one_line_errors():
            start = Path(find_checkpoint(arguments.checkpoint)).resolve()
        if start.is_dir() and start.is_relative_to(arguments.output.resolve()):
            raise InputError(
                f"`--checkpoint` must not lie in --output, where the training writes, got {arguments.checkpoint}. "
                "Choose another --output."
            )


def load_training_data(arguments: argparse.Namespace):
    """The `DatasetDict` of `--data`; "synthetic" is drawn into the output folder first."""
    from ..data.folders import load_isic
    from ..data.lesions import load_lesions
    from ..data.synthetic import write_synthetic_isic

    root = arguments.data
    if arguments.task == "structures":
        return load_isic(root, seed=arguments.split_seed, task=arguments.task)
    if root == "synthetic":
        if arguments.streaming:
            raise InputError("`--streaming` must have a folder of shards or a Hub id, got synthetic. Leave it out.")
        root = arguments.output / "synthetic-images"
        if not root.exists():
            write_synthetic_isic(root, num_images=160)
    overlap = {"labels_overlap": arguments.labels_overlap}
    return load_lesions(root, seed=arguments.split_seed, streaming=arguments.streaming, **overlap)


def load_model(arguments: argparse.Namespace):
    """The model to train and its processor: those of `--checkpoint`, or new ones."""
    from ..image_processing_efp import EFPImageProcessor
    from ..inference.checkpoint import check_prompted_size, load_checkpoint
    from ..inference.task import check_lesion
    from ..lesion.structures import LABELS
    from ..training.encoders import ATTENTION_WEIGHT, new_model
    from ..training.overlap import with_thresholds
    from ..training.prompts import with_prompt_encoder
    from ..training.structures import with_structures

    size = arguments.image_size and {"height": arguments.image_size, "width": arguments.image_size}
    if arguments.checkpoint:
        for_structures = arguments.task == "structures"
        model, processor = load_checkpoint(
            arguments.checkpoint,
            runtime="torch",
            allow_overlap=not arguments.prompts,
            allow_channels=not (for_structures or arguments.prompts),
        )
        lesion_size, processor.size = processor.size, size or processor.size
        if for_structures:
            shared_size = 0 if processor.size == lesion_size else lesion_size["height"]
            model = with_structures(model, shared_size, arguments.encoder)
            return model, with_thresholds(processor, len(LABELS), num_first=1)
        if arguments.prompts:
            check_lesion(model.config, "`--prompts`")
            model = with_prompt_encoder(model)
            check_prompted_size(model, processor.size)
        return model, processor
    model = new_model(
        arguments.encoder or DEFAULT_ENCODER,
        pretrained=not arguments.no_encoder_weights,
        nano=arguments.nano,
        attention_weight=ATTENTION_WEIGHT,
    )
    return model, EFPImageProcessor(size=size or EFPImageProcessor.size)


def model_for(classes: tuple[str, ...], overlap: bool, model, arguments: argparse.Namespace, is_told: bool):
    """
    The model with a head for the classes of the data, or for its labels that `overlap`. Without `--prompts` a
    checkpoint loses what it has for them. The first process `is_told` to say what is not kept.

    Raises:
        InputError: prompts for several classes.
    """
    from ..inference.task import class_names_of
    from ..training.head import has_new_head, with_classes
    from ..training.prompts import without_prompt_encoder

    own = class_names_of(model.config)
    if arguments.prompts and len(classes) > 1:
        raise InputError(
            f"`--prompts` must have one class, which clicks tell from all else, got {', '.join(classes)}. Leave it out."
        )
    if not arguments.prompts and model.config.prompt_size:
        if is_told:
            teach = ("efp", "train", "--prompts", "--checkpoint", arguments.output, "--data", arguments.data)
            again = f" Teach it again afterwards: {shlex.join(map(str, teach))} --output …" if len(classes) < 2 else ""
            print(f"{arguments.checkpoint} takes clicks and boxes; what is trained further here takes none.{again}")
        model = without_prompt_encoder(model)
    if arguments.checkpoint and has_new_head(model, classes, overlap) and is_told:
        print(
            f"{arguments.checkpoint} has labels for {', '.join(own)}, the data {', '.join(classes) or 'one class'}"
            f"{', which overlap' if overlap else ''}: "
            "its encoder and pyramid are kept, its head starts anew."
        )
    elif arguments.checkpoint and classes and own != classes and is_told:
        print(f"{arguments.checkpoint} calls its label {own[0]}; its head is kept, for {classes[0]}.")
    return with_classes(model, classes, overlap)


def processor_for(model, processor, is_known: bool):
    """A processor for the model's kind of labels; of labels that overlap, unless their settings are known, new ones."""
    from ..training.overlap import with_thresholds

    if model.config.labels_overlap:
        return processor if is_known else with_thresholds(processor, model.config.num_labels)
    if processor.labels_overlap:
        size, processor = processor.size, type(processor)()
        processor.size = size
    return processor


def for_channels(model, processor, rows, arguments: argparse.Namespace, is_told: bool):
    """
    Model and processor for the channels of the training images.

    Raises:
        ValueError: `--prompts` or `--task structures` with other channels than three colours, or a checkpoint of other
            ones than the data's.
    """
    from ..data.channels import channels_of
    from ..training.channels import with_channels, with_statistics

    channels, own = channels_of(rows), model.config.num_channels
    if channels == own:
        return model, processor
    if arguments.prompts or arguments.task == "structures":
        option = "--prompts" if arguments.prompts else "--task structures"
        raise ValueError(f"`{option}` must have images of three colours, got {channels} channels. Leave it out.")
    model = with_channels(model, channels)
    if is_told:
        print(f"The images have {channels} channels: the first layer is adapted from that of {own}.")
    return model, with_statistics(processor, rows)


def resume_point(arguments: argparse.Namespace, is_told: bool) -> Path | None:
    """The folder of the checkpoint to continue from; what is wrong with newer ones goes to standard error."""
    from ..training.checkpoints import newest_whole

    if not arguments.resume:
        return None
    resume, skipped = newest_whole(arguments.output)
    reasons = "; ".join(f"{name}: {wrong}" for name, wrong in skipped.items())
    if resume is None:
        found = f"none that is whole ({reasons})" if skipped else "none"
        raise InputError(
            f"`--resume` must have a checkpoint in {arguments.output}, got {found}. "
            "Start again without it; where the folder is not empty, with --overwrite."
        )
    if skipped and is_told:
        print(f"efp train: goes on from {resume.name}, without newer ones ({reasons})", file=sys.stderr)
    return resume


def way_on(output: Path) -> str:
    """What there is to do after the work broke off."""
    from ..training.checkpoints import newest_whole

    return "go on with --resume" if newest_whole(output)[0] else "no checkpoint was saved: start again"


def last_line(error: Exception) -> str:
    """The message of an error; what a data-loading process raised comes with its whole traceback, which ends in it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].removeprefix(f"{type(error).__name__}: ").removesuffix(".")


def run(arguments: argparse.Namespace) -> int:
    with one_line_errors():
        require("train", "this command")
    import torch

    from ..data.classes import class_names
    from ..data.overlap import label_names
    from ..image_processing_efp import NUM_COLOURS, EFPImageProcessor
    from ..inference.checkpoint import weights_digest
    from ..inference.output_folder import only_writer
    from ..inference.task import class_names_of
    from ..metrics.rows import shorten
    from ..training.checkpoints import (
        check_image_size,
        check_network,
        check_own_checkpoints,
        check_settings,
        remove_checkpoints,
    )
    from ..training.fingerprint import check_same_split, read_fingerprint
    from ..training.head import has_new_head
    from ..training.overlap import BEST_METRIC, OverlapTrainer
    from ..training.prompts import PromptedLesionTrainer
    from ..training.trainer import (
        LesionTrainer,
        RunSettings,
        fine_tuning_callbacks,
        lengthen,
        lesion_trainer,
    )
    from ..training.unet import unet_like

    check_model_options(arguments)
    if arguments.prompts and arguments.checkpoint is None:
        raise InputError("`--prompts` must be used with --checkpoint: a trained network learns to take them. Train it.")
    for_structures = arguments.task == "structures"
    if for_structures and (arguments.checkpoint is None or arguments.prompts or arguments.streaming):
        raise InputError(
            "`--task structures` must be used with --checkpoint, a network for lesions, and without --prompts and "
            "--streaming. Pass for example --checkpoint efp-isic."
        )
    if arguments.labels_overlap and (for_structures or arguments.prompts or arguments.streaming):
        raise InputError(
            "`--labels-overlap` must be used without --task structures, --prompts and --streaming. Leave them out."
        )
    if arguments.compare and (arguments.prompts or for_structures or arguments.streaming):
        raise InputError("`--compare` must be without --prompts, --task structures and --streaming. Leave it out.")
    fine_tuning = arguments.checkpoint is not None and not arguments.prompts and not for_structures
    training_arguments = parse_training_arguments(arguments.others, str(arguments.output), arguments.streaming)
    if fine_tuning and training_arguments.save_strategy == "best" and training_arguments.load_best_model_at_end:
        raise InputError(
            "`--save-strategy` must be 'epoch' or 'steps' with --checkpoint, whose training may end early and is "
            "saved there, got best. The best epoch is kept with both."
        )
    if training_arguments.bf16 and not arguments.force_bf16:
        with one_line_errors():
            check_bf16(training_arguments.use_cpu)
    is_told = training_arguments.process_index == 0
    resume = resume_point(arguments, is_told)
    if is_told and resume is None:
        check_new_output(arguments.output, arguments.overwrite, "go on with --resume, ")
    else:
        check_output(arguments.output)
    with one_line_errors():
        check_own_checkpoints(arguments.output)
    row = command_provenance(arguments)  # of the code that trains: the commit may move on while it does
    set_seed(training_arguments.seed)

    with one_line_errors():
        model, processor = load_model(arguments)
        if resume is not None:
            check_image_size(resume, processor)
        starting_weights = arguments.checkpoint and weights_digest(arguments.checkpoint)
        start = arguments.checkpoint if resume is None or arguments.streaming else resume
        seen_before = read_fingerprint(start) if start else set()
        with training_arguments.main_process_first(desc="reading the images"):
            data = load_training_data(arguments)
        if is_told and not arguments.streaming:
            say_found(data)
        if resume is not None and not arguments.streaming:
            check_same_split(resume, arguments.checkpoint, data)
        overlap = bool(label_names(data))
        classes = label_names(data) or class_names(data)
        if overlap and "--metric-for-best-model" not in given_options(arguments.others):
            training_arguments.metric_for_best_model = BEST_METRIC
        option = "--prompts" if arguments.prompts else "--compare" if arguments.compare else None
        if overlap and option:
            raise InputError(
                f"`{option}` must be used with classes of which a pixel has one, got {', '.join(classes)}, which "
                "overlap. Leave it out."
            )
        new_head = not for_structures and has_new_head(model, classes, overlap)
        known = classes in ((), class_names_of(model.config)) and not new_head
        encoder_rate, learning_rate = chosen_rates(arguments, training_arguments, fine_tuning and known)
        rates_of_new = chosen_rates(arguments, training_arguments, fine_tuning=False)
        training_arguments.learning_rate = learning_rate
        if not for_structures:
            before = class_names_of(model.config)
            model = model_for(classes, overlap, model, arguments, is_told)
            processor = processor_for(model, processor, is_known=not new_head)
            if processor.largest_region and class_names_of(model.config) != before:
                processor.largest_region = False  # a lesion is one region, but what else there is?
        if not arguments.streaming:
            model, processor = for_channels(model, processor, data["train"], arguments, is_told)
            if resume is not None and processor.num_channels != NUM_COLOURS:  # as its weights learnt them
                saved = EFPImageProcessor.from_pretrained(resume)
                processor.image_mean, processor.image_std = saved.image_mean, saved.image_std
        if resume is not None:
            check_network(resume, model)
        unet = unet_like(model, training_arguments.seed) if arguments.compare else None
    model.to(memory_format=torch.channels_last)
    with one_line_errors():
        trainer_class = PromptedLesionTrainer if arguments.prompts else LesionTrainer
        trainer_class = OverlapTrainer if overlap else trainer_class
        trainer = lesion_trainer(model, processor, data, training_arguments, encoder_rate, trainer_class)
        given = given_options(arguments.others)
        if fine_tuning and not known and not LENGTH_OPTIONS & given:
            images_of_epoch = len(trainer._get_train_sampler())  # of labels that overlap not all
            if lengthen(training_arguments, images_of_epoch, given) and is_told:
                print(
                    f"{len(data['train'])} images are few for classes that {arguments.checkpoint} does not know: up to "
                    f"{training_arguments.num_train_epochs} epochs, or what --num-train-epochs says."
                )
    row |= {
        "data": Path(arguments.data).name,
        "images": "streamed" if arguments.streaming else "/".join(str(len(data[split])) for split in data),
        "split_seed": arguments.split_seed,
        "seed": training_arguments.seed,
        "epochs": None,
        "batch_size": training_arguments.train_batch_size
        * training_arguments.gradient_accumulation_steps
        * training_arguments.world_size,
        "precision": "bf16" if training_arguments.bf16 else "float32",
        "encoder": arguments.encoder or ("" if arguments.checkpoint else DEFAULT_ENCODER),
        "encoder_weights": "" if arguments.checkpoint else not arguments.no_encoder_weights,
        "nano": "" if arguments.checkpoint else arguments.nano,
        "checkpoint": arguments.checkpoint and f"{shorten(arguments.checkpoint)} {starting_weights}",
        "image_size": processor.size["height"],
        "encoder_learning_rate": encoder_rate,
        "learning_rate": training_arguments.learning_rate,
        "weight_decay": training_arguments.weight_decay,
        "attention_weight": model.config.attention_weight,
        "prompts": arguments.prompts,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **dict.fromkeys(RESULT_COLUMNS),
        **dict.fromkeys(OVERLAP_COLUMNS if overlap else ()),
    }
    settings = {f"--{name.replace('_', '-')}": row[name] for name in RESUMED_ALIKE}
    settings |= {"--checkpoint": row["checkpoint"] if starting_weights else None}
    with one_line_errors():
        if resume is not None:
            check_settings(resume, settings)
    trainer.add_callback(RunSettings(settings))
    check_table(arguments.output / "training.csv", row)
    with ExitStack() as held:
        held.enter_context(interrupted_by_termination())
        try:
            if is_told:
                with one_line_errors():
                    arguments.output.mkdir(parents=True, exist_ok=True)
                    held.enter_context(only_writer(arguments.output, "efp train"))
                    if resume is None:  # an earlier run's, which nothing shall go on from
                        remove_checkpoints(arguments.output)
                        remove_checkpoints(arguments.output / UNET_FOLDER)
            is_scored = fine_tuning and not new_head and (resume is None or arguments.compare)
            start_score = score_start(trainer) if is_scored else None
            for callback in fine_tuning_callbacks(training_arguments, new_head) if fine_tuning else ():
                trainer.add_callback(callback)
            score = train_and_save(trainer, resume, arguments.output, row, data, seen_before, start_score)
            if unet is not None:
                unet_score = train_unet(unet, trainer, rates_of_new, row, data, fine_tuning)
                if trainer.is_world_process_zero():
                    scores = {"this training": score, "U-Net": unet_score, "the start": start_score}
                    shown = (f"{name} {value:.4f}" for name, value in scores.items() if value is not None)
                    print(f"J of the {len(data['validation'])} images of validation: {', '.join(shown)}")
        except KeyboardInterrupt as interruption:
            raise KeyboardInterrupt(way_on(arguments.output)) from interruption
        except (OSError, ValueError) as error:  # a full disk, an image that has become unreadable
            raise WriteError(f"{last_line(error)}. Mend it; {way_on(arguments.output)}.") from error
    return 0


def score_start(trainer) -> float:
    """The validation J of what is to be fine-tuned; the first process prints it."""
    import torch

    with torch.random.fork_rng():  # the training draws what it would draw without it
        score = trainer.evaluate()["eval_jaccard"]
    if trainer.is_world_process_zero():
        print(f"before the training: validation J {score:.4f}", flush=True)
    return score


def train_unet(unet, trainer, rates: tuple[float, float], row: dict, data, fine_tuning: bool) -> float:
    """
    The validation J of a U-Net after the training that `trainer` had, in a folder of its own beside what that wrote, as
    a run of its own that can be resumed.
    """
    import torch

    from ..training.checkpoints import newest_whole
    from ..training.trainer import fine_tuning_callbacks, lesion_trainer

    output = Path(trainer.args.output_dir) / UNET_FOLDER
    output.mkdir(exist_ok=True)
    arguments = copy.copy(trainer.args)
    arguments.output_dir, arguments.push_to_hub = str(output), False
    encoder_rate, arguments.learning_rate = rates
    unet.to(memory_format=torch.channels_last)
    unet_trainer = lesion_trainer(unet, trainer.processing_class, data, arguments, encoder_rate)
    for callback in fine_tuning_callbacks(arguments, new_head=False) if fine_tuning else ():
        unet_trainer.add_callback(callback)
    row = row | {"encoder_learning_rate": encoder_rate, "learning_rate": arguments.learning_rate}
    row |= {"attention_weight": 0.0, "parameters": unet.num_parameters(), **dict.fromkeys(RESULT_COLUMNS)}
    return train_and_save(unet_trainer, newest_whole(output)[0], output, row, data, set(), None)


def train_and_save(
    trainer, resume: Path | None, output: Path, row: dict, data, seen_before: set | None, start_score: float | None
) -> float:
    """
    Train to the end, then write the best weights, the row, and the fingerprint of the images of `data` and those
    `seen_before`, unless nobody knows them → the validation J. A run that has all of it already is left as it is.
    """
    from datasets import IterableDatasetDict

    from ..inference.checkpoint import weights_digest
    from ..metrics.rows import append_row, read_rows
    from ..training.checkpoints import save_trained, trained_steps
    from ..training.fingerprint import fingerprint_of

    table = output / "training.csv"
    steps_before = None if resume is None else trained_steps(resume)  # the checkpoint may go while training runs
    has_fingerprint = trainer.is_world_process_zero() and seen_before is not None
    is_streamed = isinstance(data, IterableDatasetDict)  # then read for it in the end, while nobody waits
    if has_fingerprint and not is_streamed:
        trainer.fingerprint = seen_before | fingerprint_of(data)
    start = time.monotonic()
    trainer.train(resume_from_checkpoint=resume and str(resume))
    seconds = time.monotonic() - start
    rows = read_rows(table, missing_ok=True)
    if trainer.state.global_step == steps_before:
        kept = (trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint) or resume
        saved, of_this_run = weights_digest(output), weights_digest(kept)
        if rows and rows[-1]["weights"] == saved == of_this_run:
            if trainer.is_world_process_zero():
                print(f"{output} is finished: nothing was left to train, and nothing is changed")
            return float(rows[-1]["validation_jaccard"])
    score = trainer.evaluate()
    if trainer.is_world_process_zero():
        # not `save_model`: no pickled training arguments beside the weights
        if has_fingerprint and is_streamed:
            trainer.fingerprint = seen_before | fingerprint_of(data)
        trainer.finish(score)
        save_trained(trainer.model, trainer.processing_class, output, trainer.fingerprint)
        state = trainer.state
        trained = f"{state.global_step} steps" if is_streamed else round(state.epoch, 4)
        results = [trained, weights_digest(output), round(seconds / 60, 1)]
        scores = (score.get(f"eval_{name}") for name in ("jaccard", "threshold_jaccard", "dice"))
        results += ["" if value is None else round(value, 4) for value in scores]  # several classes have no TJ
        row |= dict(zip(RESULT_COLUMNS, results, strict=True))
        row |= {name: round(score[name.replace("validation", "eval")], 4) for name in OVERLAP_COLUMNS if name in row}
        append_row(table, row)
        clicked = " after one click" if row["prompts"] else ""
        print(f"saved {output}; validation J{clicked} {score['eval_jaccard']:.4f}")
        if start_score is not None and score["eval_jaccard"] <= start_score:
            print(
                f"It is not better than {start_score:.4f}, before the training: {row['checkpoint']} may serve as well."
            )
    return score["eval_jaccard"]
