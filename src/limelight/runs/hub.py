"""Agents on the Hugging Face Hub: their names, download and upload. Only safetensors, JSON and text are read.

``HF_ENDPOINT`` names a mirror or a server of one's own, ``HF_TOKEN`` and ``hf auth login`` the account.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from limelight.errors import CheckpointError, ConfigError

PREFIX = "hf:"
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_FILES = ("*.json", "*.safetensors")
"""What is downloaded: the files that an agent is made of."""


def is_on_hub(name: Any) -> bool:
    """Return whether ``name`` begins with ``hf:``, as no folder may."""
    return str(name).startswith(PREFIX)


def download(name: str | Path) -> Path:
    """Return the local folder of the agent ``hf:user/name`` or ``hf:user/name@revision``, downloaded if it is new.

    Raises: ConfigError for a name of another form, or without the package; CheckpointError if it cannot be had.
    """
    repo, revision = _split(Path(name).as_posix())
    hub = _library(f"{PREFIX}{repo}")
    with _in_one_line(f"{PREFIX}{repo}" + (f"@{revision}" if revision else "")):
        return Path(hub.snapshot_download(repo, revision=revision, allow_patterns=list(_FILES)))


def upload(folder: Path, repo: str, private: bool) -> str:
    """Upload the files in ``folder`` into ``user/name``, which is made if it does not exist; return its address.

    Raises: ConfigError for a name of another form, or without the package; CheckpointError if the hub refuses.
    """
    require_repo(repo)
    hub = _library(repo)
    with _in_one_line(repo):
        api = hub.HfApi()
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Agent trained by Limelight")
    return str(address)


def require_repo(repo: str, is_uploaded: bool = True) -> None:
    """Check the name of a repository, and that the package is installed where something is uploaded.

    Raises: ConfigError.
    """
    if is_uploaded:
        _library(repo)
    match = _NAME.fullmatch(repo)
    if match is None or match["revision"]:
        raise ConfigError(f"repo = {repo}: must be user/name, as the hub writes it")


def _split(name: str) -> tuple[str, str | None]:
    match = _NAME.fullmatch(name.removeprefix(PREFIX))
    if match is None:
        raise ConfigError(f"{name}: must be {PREFIX}user/name or {PREFIX}user/name@revision")
    return match["repo"], match["revision"]


def _library(name: str) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise ConfigError(f"{name}: needs huggingface_hub; pip install 'limelight-rl[hub]'") from None
    return huggingface_hub


@contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    """Turn the errors of the hub, of HTTP and of the network into a line.

    Raises: CheckpointError.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.RepositoryNotFoundError:
        raise CheckpointError(f"{name}: no such repository, or it is private; see hf auth login") from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(f"{name}: the repository has no such revision") from None
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{name}: the hub cannot be used ({_reason(error)})") from None
    except Exception as error:  # of the HTTP library, which the versions of huggingface_hub do not share
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests")):
            raise
        raise CheckpointError(f"{name}: the hub cannot be reached ({_reason(error)})") from None


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
