"""One file of a model repository, fetched through huggingface_hub and kept in its cache."""

from __future__ import annotations

import os
from pathlib import Path

from lerobot_ray.core.errors import PolicyError, StorageError


def fetch_file(
    repo_id: str,
    name: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """Local path of file `name` of model repository `repo_id`. StorageError says why it cannot be had."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f"{repo_id}@{revision}" if revision else repo_id
    try:
        path = hf_hub_download(
            repo_id,
            name,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            endpoint=os.environ.get("HF_ENDPOINT") or None,  # now, not when huggingface_hub was imported
        )
    except HFValidationError as error:
        raise PolicyError(f"{repo_id} is neither a folder here nor a Hub repository (user/name).") from error
    except RepositoryNotFoundError as error:
        raise StorageError(f"{at} is not a model on the Hub, or needs a token: set HF_TOKEN.") from error
    except RevisionNotFoundError as error:
        raise StorageError(f"{repo_id} has no revision {revision}.") from error
    except LocalEntryNotFoundError as error:
        raise StorageError(f"{name} of {at} is not in the local cache and the Hub cannot be reached.") from error
    except EntryNotFoundError as error:
        raise StorageError(f"{at} has no file {name}.") from error
    except Exception as error:  # the client raises its HTTP library's own errors as well
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StorageError(f"{name} of {at} cannot be fetched from the Hub: {reason}") from error
    return Path(path)
