"""Train EFP on lesion images.

    python scripts/train.py --data synthetic --output_dir runs/first           # a first run, about a minute
    python scripts/train.py --data ISIC_FOLDER --output_dir runs/efp --encoder tf_efficientnet_lite0
    python scripts/train.py --data MY_FOLDER --output_dir runs/mine --checkpoint checkpoints/efp-isic
    accelerate launch --num_processes 2 scripts/train.py …                     # several processes or GPUs

The best epoch by validation J is saved in `--output_dir` in Hub layout. Stopped runs go on with
`--resume_from_checkpoint True`. Every argument of `TrainingArguments` can be given as well.
"""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from datasets import DatasetDict
from transformers import HfArgumentParser, TrainingArguments, set_seed

from efp_hf import EFPForSegmentation, EFPImageProcessor
from efp_hf.data.lesions import load_lesions
from efp_hf.data.synthetic import write_synthetic_isic
from efp_hf.inference.checkpoint import load_checkpoint, weights_digest
from efp_hf.metrics.rows import append_row, provenance, shorten
from efp_hf.training.encoders import new_model
from efp_hf.training.trainer import TRAINING_DEFAULTS, lesion_trainer


@dataclass
class EFPArguments:
    data: str = field(metadata={"help": "ISIC or own folder, the Hub id of a dataset, or 'synthetic'."})
    encoder: str = field(
        default="tf_efficientnet_lite0",
        metadata={"help": "'paper' (from scratch), a timm model, or the Hub id of a Transformers backbone."},
    )
    encoder_weights: bool = field(default=True, metadata={"help": "Start the encoder from ImageNet weights."})
    nano: bool = field(default=False, metadata={"help": "EFP nano, for phones: 0.93 million parameters with lite0."})
    checkpoint: str | None = field(
        default=None, metadata={"help": "Fine-tune this EFP folder or Hub id; the model arguments are then not used."}
    )
    image_size: int | None = field(
        default=None, metadata={"help": "Height and width of the model's input; 256, or the checkpoint's."}
    )
    encoder_learning_rate: float = field(
        default=3e-4, metadata={"help": "For the encoder; learning_rate is the rest's."}
    )
    cross_scale: bool = field(default=True, metadata={"help": "Cross-scale enhancement (the paper's)."})
    spatial_attention: bool = field(default=True, metadata={"help": "Spatial attention (the paper's)."})
    dice_weight: float = field(default=1.0, metadata={"help": "λ1 of the loss."})
    bce_weight: float = field(default=1.0, metadata={"help": "λ2 of the loss."})
    average_decay: float | None = field(
        default=None, metadata={"help": "Save averaged weights, of this decay a step; for example 0.998."}
    )
    other_cameras: bool = field(
        default=False, metadata={"help": "Augment also by colour casts, dark corners, hairs, noise and few pixels."}
    )
    split_seed: int = field(default=0, metadata={"help": "Of the 70/10/20 split, where the data has none."})
    results: str = field(default="results/training.csv", metadata={"help": "CSV file that gets a row for this run."})
    overwrite: bool = field(default=False, metadata={"help": "Train into an output_dir that is not empty."})


def parse() -> tuple[EFPArguments, TrainingArguments]:
    parser = HfArgumentParser((EFPArguments, TrainingArguments), description=__doc__.split("\n")[0])
    parser.set_defaults(**TRAINING_DEFAULTS)
    return parser.parse_args_into_dataclasses()


def check_output(arguments: EFPArguments, training_arguments: TrainingArguments) -> None:
    output = Path(training_arguments.output_dir)
    if output.exists() and any(output.iterdir()):
        if not arguments.overwrite and training_arguments.resume_from_checkpoint in (None, "False"):
            sys.exit(
                f"{output} is not empty. Choose another --output_dir, go on with --resume_from_checkpoint True, "
                "or pass --overwrite True."
            )


def load_data(arguments: EFPArguments, training_arguments: TrainingArguments) -> DatasetDict:
    root = arguments.data
    if root == "synthetic":
        root = Path(training_arguments.output_dir).parent / "synthetic-images"
        if not root.exists():
            write_synthetic_isic(root, num_images=160)
    try:
        return load_lesions(root, seed=arguments.split_seed)
    except (OSError, ValueError) as error:
        sys.exit(str(error))


MODEL_ARGUMENTS = (
    "encoder",
    "encoder_weights",
    "nano",
    "cross_scale",
    "spatial_attention",
    "dice_weight",
    "bce_weight",
)


def load_model(arguments: EFPArguments) -> tuple[EFPForSegmentation, EFPImageProcessor]:
    """The model to train and its processor: those of `--checkpoint`, or new ones."""
    size = arguments.image_size and {"height": arguments.image_size, "width": arguments.image_size}
    try:
        if arguments.checkpoint:
            for name in MODEL_ARGUMENTS:
                if getattr(arguments, name) != getattr(EFPArguments, name):
                    sys.exit(f"`--{name}` must not be given with --checkpoint, which says it itself. Leave one out.")
            model, processor = load_checkpoint(arguments.checkpoint)
            processor.size = size or processor.size
            return model, processor
        model = new_model(
            arguments.encoder,
            pretrained=arguments.encoder_weights,
            nano=arguments.nano,
            use_cross_scale=arguments.cross_scale,
            use_spatial_attention=arguments.spatial_attention,
            dice_weight=arguments.dice_weight,
            bce_weight=arguments.bce_weight,
        )
        return model, EFPImageProcessor(size=size or EFPImageProcessor.size)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(str(error))


def main() -> None:
    arguments, training_arguments = parse()
    if training_arguments.process_index == 0:
        check_output(arguments, training_arguments)
    row = provenance()  # of the code that trains: the commit may move on while it does
    set_seed(training_arguments.seed)
    resume = training_arguments.resume_from_checkpoint
    # the newest checkpoint of output_dir, or the one that is named
    resume = {"True": True, "False": None}.get(resume, resume)

    with training_arguments.main_process_first(desc="reading the images"):
        data = load_data(arguments, training_arguments)
    model, processor = load_model(arguments)
    starting_weights = arguments.checkpoint and weights_digest(arguments.checkpoint)
    model.to(memory_format=torch.channels_last)
    trainer = lesion_trainer(
        model,
        processor,
        data,
        training_arguments,
        arguments.encoder_learning_rate,
        arguments.average_decay,
        arguments.other_cameras,
    )
    start = time.monotonic()
    trainer.train(resume_from_checkpoint=resume)
    seconds = time.monotonic() - start
    score = trainer.evaluate()
    if trainer.is_world_process_zero():
        model.save_pretrained(training_arguments.output_dir)  # no pickled training arguments beside the weights
        processor.save_pretrained(training_arguments.output_dir)
        append_row(
            arguments.results,
            {
                **row,
                "data": Path(arguments.data).name,
                "images": "/".join(str(len(data[split])) for split in data),
                "seed": training_arguments.seed,
                "epochs": training_arguments.num_train_epochs,
                "batch_size": training_arguments.train_batch_size
                * training_arguments.gradient_accumulation_steps
                * training_arguments.world_size,
                "precision": "bf16" if training_arguments.bf16 else "float32",
                **{name: getattr(arguments, name) for name in ("encoder", "encoder_weights")},
                "checkpoint": arguments.checkpoint and f"{shorten(arguments.checkpoint)} {starting_weights}",
                "image_size": processor.size["height"],
                "encoder_learning_rate": arguments.encoder_learning_rate,
                "average_decay": arguments.average_decay,
                "weight_decay": training_arguments.weight_decay,
                "other_cameras": arguments.other_cameras,
                "cross_scale": model.config.use_cross_scale,
                "spatial_attention": model.config.use_spatial_attention,
                "dice_weight": model.config.dice_weight,
                "bce_weight": model.config.bce_weight,
                "split_seed": arguments.split_seed,
                "learning_rate": training_arguments.learning_rate,
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "minutes_this_session": round(seconds / 60, 1),
                **{
                    f"validation_{name}": round(score[f"eval_{name}"], 4)
                    for name in ("jaccard", "threshold_jaccard", "dice")
                },
            },
        )
        print(f"saved {training_arguments.output_dir}; validation J {score['eval_jaccard']:.4f}")


if __name__ == "__main__":
    main()
