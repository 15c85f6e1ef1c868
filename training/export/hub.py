"""Puts an exported network onto the Hugging Face hub, with the login of whoever asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def check(repository: str) -> Any:
    """The hub's client, if it is installed and `repository` can be a name there.

    Raises:
        ValueError: if not.
    """
    try:
        import huggingface_hub
        from huggingface_hub.utils import validate_repo_id
    except ImportError:
        raise ValueError('the hub needs the package huggingface_hub: pip install -e ".[hub]"') from None
    try:
        validate_repo_id(repository)
    except ValueError as error:
        raise ValueError(f"--push {repository}: {error}") from None
    if repository.count("/") != 1:
        raise ValueError(f"--push {repository} is no name of the hub: write USER/NAME")
    return huggingface_hub.HfApi()


def push(folder: Path, repository: str, private: bool = False) -> str:
    """Makes the repository, unless it is there, and uploads the folder in one commit; returns where it is.

    Raises:
        ValueError: if the hub refuses, is not reached, or there is no login.
    """
    api = check(repository)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(folder_path=folder, repo_id=repository, commit_message="Upload the exported network")
    except Exception as error:  # of the hub, its client, or the connection: each has its own kinds
        first = str(error).strip().splitlines()[:1] or [""]
        raise ValueError(
            f"{repository} was not uploaded ({type(error).__name__}: {first[0]}): {folder} stays as it is; log in by "
            "hf auth login or HF_TOKEN, and repeat the command, which uploads that folder"
        ) from None
    return str(commit)
