"""Uploads an exported network to the Hugging Face hub, with the login of the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from utils.errors import SettingError


def hub_client(repository: str) -> Any:
    """Returns the client of the hub, if it is installed and `repository` can be a name there.

    Raises:
        SettingError: if not.
    """
    try:
        import huggingface_hub
        from huggingface_hub.utils import validate_repo_id
    except ImportError:
        raise SettingError('the hub needs the package huggingface_hub: pip install -e ".[hub]"') from None
    try:
        validate_repo_id(repository)
    except ValueError as error:
        raise SettingError(f"--push {repository}: {error}") from None
    if repository.count("/") != 1:
        raise SettingError(f"--push {repository} is not a name on the hub: write USER/NAME")
    return huggingface_hub.HfApi()


def push_folder(folder: Path, repository: str, private: bool = False) -> str:
    """Creates the repository, unless it exists, and uploads the folder in one commit.

    Returns:
        the address of the commit.

    Raises:
        SettingError: if the hub refuses, cannot be reached, or there is no login.
    """
    api = hub_client(repository)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(folder_path=folder, repo_id=repository, commit_message="Upload the exported network")
    except Exception as error:  # the hub, its client and the connection raise errors of their own kinds
        first = str(error).strip().splitlines()[:1] or [""]
        raise SettingError(
            f"{repository} was not uploaded ({type(error).__name__}: {first[0]}): {folder} stays as it is; log in by "
            "hf auth login or HF_TOKEN, and repeat the command, which uploads that folder"
        ) from None
    return str(commit)
