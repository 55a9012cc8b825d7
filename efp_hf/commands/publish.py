"""Upload a checkpoint to the Hub, and the web page as a Space.

  efp publish --checkpoint runs/mine --repo me/mine --dry-run upload    writes the folder alone
  efp publish --checkpoint runs/mine --repo me/mine --private
  efp publish --repo me/efp-isic --exports onnx openvino --space me/efp

The model's repository gets weights, settings, card and code, and a folder a runtime. Everything is
checked and loaded before anything is uploaded. The same command again uploads what has changed.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from ..extras import EXTRAS, require
from ..inference.checkpoint import find_checkpoint, load_checkpoint
from .arguments import InputError, WriteError, add_checkpoint_argument, check_output, one_line_errors, own_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_argument(parser)
    parser.add_argument("--repo", metavar="OWNER/NAME", type=repository, required=True, help="of the model")
    parser.add_argument("--space", metavar="OWNER/NAME", type=repository, help="also the page, as a Space of this name")
    parser.add_argument(
        "--exports",
        metavar="NAME",
        nargs="+",
        default=[],
        help="also for onnx, openvino or executorch: the runtime's name, or a folder of `efp export`",
    )
    parser.add_argument("--private", action="store_true", help="a repository that is made now is seen by its owner")
    parser.add_argument(
        "--no-fingerprint",
        action="store_true",
        help="leave out training_images.csv, which tells whoever has a photo whether it was trained on",
    )
    parser.add_argument(
        "--dry-run", metavar="DIR", type=own_path, help="write the folders to DIR, which is new or empty; no network"
    )


def repository(text: str) -> str:
    """The `type` of an option that names a repository of the Hub."""
    from ..publishing.checks import is_repository

    if not is_repository(text):
        raise argparse.ArgumentTypeError(f"must be OWNER/NAME, got {text}")
    return text


def run(arguments: argparse.Namespace) -> int:
    from ..publishing.folders import write_model_folder, write_space_folder
    from ..publishing.upload import check_token

    with one_line_errors():
        if not Path(find_checkpoint(arguments.checkpoint)).is_dir():
            raise InputError(f"{arguments.checkpoint}: no such folder. What is published must be on this machine.")
        if arguments.dry_run is None:
            check_token()
        else:
            check_new_folder(arguments.dry_run)
        if arguments.space is not None:
            require("app", "--space", EXTRAS["app"])
        model, processor = load_checkpoint(arguments.checkpoint, runtime="torch", allow_overlap=True)
    with tempfile.TemporaryDirectory() as temporary:
        folders = {"model": Path(temporary) / "model"}
        fingerprint = not arguments.no_fingerprint
        with one_line_errors():
            write_model_folder(
                arguments.checkpoint,
                model,
                processor,
                folders["model"],
                arguments.repo,
                arguments.exports,
                fingerprint,
            )
            if arguments.space is not None:
                folders["space"] = Path(temporary) / "space"
                write_space_folder(arguments.checkpoint, folders["space"], arguments.repo, fingerprint)
        refuse(problems_of(folders, arguments.repo))
        names = {"model": arguments.repo, "space": arguments.space}
        for kind, folder in folders.items():
            list_files(f"{kind} {names[kind]}", folder)
        if arguments.dry_run is None:
            upload_all(folders, names, arguments.private)
        else:
            write_folders(folders, arguments.dry_run)
    return 0


def check_new_folder(folder: Path) -> None:
    try:
        check_output(folder)
    except InputError as error:
        raise InputError(str(error).replace("--output", "--dry-run")) from error
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty. Choose another --dry-run.")


def problems_of(folders: dict[str, Path], repo: str) -> list[str]:
    """What is wrong with the folders; they are loaded where nothing is."""
    from ..publishing.checks import model_problems, space_problems
    from ..publishing.trial import model_failures, space_failures

    checks, trials = (
        {"model": model_problems, "space": space_problems},
        {"model": model_failures, "space": space_failures},
    )
    problems = [f"{kind}: {problem}" for kind, folder in folders.items() for problem in checks[kind](folder, repo)]
    return problems or [f"{kind}: {problem}" for kind, folder in folders.items() for problem in trials[kind](folder)]


def refuse(problems: list[str]) -> None:
    """
    Raises:
        InputError: with every problem, if there is one.
    """
    if problems:
        raise InputError("\n  ".join(["nothing was uploaded:", *problems]))


def list_files(title: str, folder: Path) -> None:
    from ..publishing.folders import files_of

    files = files_of(folder)
    print(f"{title}: {len(files)} files, {sum(files.values()) / 1e6:.1f} MB")
    for name, size in files.items():
        print(f"{size / 1e3:12.1f} kB  {name}")


def write_folders(folders: dict[str, Path], target: Path) -> None:
    try:
        for kind, folder in folders.items():
            shutil.copytree(folder, target / kind)
    except OSError as error:
        for kind in folders:
            shutil.rmtree(target / kind, ignore_errors=True)
        raise WriteError(f"{error}") from error
    print(f"{target}: checked and loaded, nothing was uploaded")


def upload_all(folders: dict[str, Path], names: dict[str, str], private: bool) -> None:
    """
    Raises:
        InputError: the Hub refuses the metadata of a card, or lacks the model before this one; nothing was uploaded.
        WriteError: it cannot be reached, or refuses an upload.
    """
    from ..publishing.upload import upload, validate_card

    for kind, folder in folders.items():
        try:
            validate_card(folder, names[kind], kind)
        except ValueError as error:
            refuse([f"{kind}: {error}"])
        except OSError as error:
            raise WriteError(one_line(error)) from error
    for kind, folder in folders.items():
        try:
            address = upload(folder, names[kind], kind, private)
        except (OSError, ValueError, RuntimeError) as error:
            raise WriteError(f"{names[kind]}: {one_line(error)}") from error
        print(address, flush=True)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
