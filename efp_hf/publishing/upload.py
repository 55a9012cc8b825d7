"""The upload of a checked folder to its repository."""

from pathlib import Path

from huggingface_hub import HfApi, ModelCard, SpaceCard, constants, get_token

from .. import __version__
from ..inference.checkpoint import TRAINING_IMAGES
from ..inference.export import CARD, EXPORT_FORMATS
from .folders import PACKAGE

# what an earlier upload wrote and this one has not is deleted with it; other files of the repository stay
OWN_FILES = {
    "model": [*(f"{name}/*" for name in EXPORT_FORMATS), TRAINING_IMAGES],
    "space": [f"{PACKAGE.name}/*"],
}


def check_token() -> None:
    """
    Raises:
        PermissionError: nobody is logged in to the Hub, or the network is switched off.
    """
    if get_token() is None:
        raise PermissionError(
            "No token of the Hub was found. Run `hf auth login`, or set the variable HF_TOKEN to one that may write."
        )
    if constants.HF_HUB_OFFLINE:
        raise PermissionError("HF_HUB_OFFLINE is set, so that nothing can be uploaded. Unset it.")


def validate_card(folder: Path, repo: str, repo_type: str) -> None:
    """
    Ask the Hub whether it accepts the metadata of a card; it knows more rules than [`efp_hf.publishing.checks`]. And
    whether the owner has the model that this one was trained from.

    Raises:
        ValueError: it does not, or the owner has not.
        OSError: it cannot be asked.
    """
    card = (SpaceCard if repo_type == "space" else ModelCard).load(folder / CARD)
    try:
        card.validate()
    except ValueError as error:
        raise ValueError(f"{CARD}: the Hub refuses the metadata ({' '.join(str(error).split())[:300]}).") from error
    base_model = str(card.data.get("base_model"))
    if base_model.partition("/")[0] == repo.partition("/")[0] and not HfApi().repo_exists(base_model):
        raise ValueError(f"{CARD}: `base_model` {base_model} is not on the Hub. Publish it first, under this name.")


def upload(folder: Path, repo: str, repo_type: str, private: bool = False) -> str:
    """
    Make the repository, if it is not there, and upload the folder → the address of the commit. Files that are there
    already are not sent again, and a folder without a change makes no commit.

    Args:
        repo_type: "model" or "space".
        private: of a repository that is made here.

    Raises:
        ValueError: `private`, and the repository is there and public.
        OSError: the Hub refuses it or cannot be reached.
    """
    api = HfApi()
    api.create_repo(
        repo,
        repo_type=repo_type,
        private=private or None,
        exist_ok=True,
        space_sdk="gradio" if repo_type == "space" else None,
    )
    if private and api.repo_info(repo, repo_type=repo_type).private is False:
        raise ValueError(
            "the repository is there and public. Make it private on the Hub first, or leave out --private."
        )
    return api.upload_folder(
        folder_path=folder,
        repo_id=repo,
        repo_type=repo_type,
        commit_message=f"efp publish, efp_hf {__version__}",
        delete_patterns=OWN_FILES[repo_type],
    ).commit_url
