"""A checkpoint's files from the Hugging Face Hub, whole and undamaged in the local cache, and to it.

Transport, cache and progress bars are those of `huggingface_hub`. What is added here: the choice of files (never code),
their order, a check of what has just arrived against the Hub's checksums, and errors that name cause and remedy.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo, RepoSibling
from huggingface_hub.utils import validate_repo_id

CONFIGS = ("config.json", "adapter_config.json")  # a checkpoint has one of them
DESCRIPTIONS = (
    *CONFIGS,
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)
WEIGHTS = (  # the first kind that a repository has is taken, so that no weights travel twice
    ("*.safetensors.index.json", "*.safetensors"),
    ("pytorch_model*.bin.index.json", "pytorch_model*.bin"),
)
# HTTP libraries differ between versions of huggingface_hub, but its own error always derives from theirs; where files
# come through Xet, failures are RuntimeErrors; a login page instead of the Hub's answer is not JSON.
_FAILURES = (OSError, RuntimeError, json.JSONDecodeError, *HfHubHTTPError.__bases__)


@dataclass(frozen=True)
class _Repository:
    """Where the files come from; as a string, how messages call it."""

    repository: str
    revision: str
    subfolder: str  # "" for the top

    def __str__(self) -> str:
        revision = f" at revision {self.revision!r}" if self.revision != constants.DEFAULT_REVISION else ""
        subfolder = f", subfolder {self.subfolder!r}" if self.subfolder else ""
        return f"{self.repository!r}{revision}{subfolder}"

    def in_repository(self, name: str) -> str:
        """Path of a file in the repository."""
        return f"{self.subfolder}/{name}" if self.subfolder else name

    def in_cache(self, name: str, revision: str) -> Path | None:
        """The cached file at a revision; None if it is not there."""
        found = try_to_load_from_cache(self.repository, self.in_repository(name), revision=revision)
        return Path(found) if isinstance(found, str) else None

    def fetch(self, name: str, revision: str) -> Path:
        """The file in the cache, from the Hub where it was not there yet."""
        try:
            return Path(hf_hub_download(self.repository, self.in_repository(name), revision=revision))
        except _FAILURES as error:
            raise _explained(error, self, name) from error


def download(
    repository: str, revision: str | None = None, subfolder: str | None = None, local_files_only: bool = False
) -> Path:
    """Local folder with the files of a Hub repository that a checkpoint needs.

    repository: Hub id, "org/name". revision: branch, tag or full commit id; the branch "main" without one.
    subfolder: folder of the repository that holds the checkpoint; its top without one.
    local_files_only: ask nothing of the network, like HF_HUB_OFFLINE=1 in the environment.

    With the network on, one request tells what the revision consists of now; files that are not in the cache are
    fetched, with a progress bar, and checked. Where the Hub does not answer, the cached copy is taken if there is one.

    Raises FileNotFoundError for what does not exist, may not be read or is not cached, ValueError for a file that
    arrived damaged, ConnectionError where another try may help, and another OSError where the cache cannot be written.
    """
    source = _Repository(repository, revision or constants.DEFAULT_REVISION, _normal(subfolder))
    try:
        validate_repo_id(repository)
    except HFValidationError:
        repository = ""
    if "/" not in repository:
        raise FileNotFoundError(f"{source.repository!r} is not a Hub id such as 'org/name'")
    if local_files_only or constants.HF_HUB_OFFLINE:
        return _cached_folder(source)
    try:
        info = HfApi().model_info(
            repository, revision=source.revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
    except _FAILURES as error:
        if not isinstance(error, RevisionNotFoundError):
            with suppress(FileNotFoundError):
                return _cached_folder(source)
        raise _explained(error, source, "the list of files") from error
    return _fetched_folder(source, info)


def upload(folder: str | Path, repository: str, private: bool | None = None, message: str | None = None) -> str:
    """Commit the files of `folder` to the Hub repository "org/name", made if it does not exist; the commit's address.

    private: whether a repository made here is; the Hub's default without it.

    Raises ValueError for a name that is none, PermissionError where the login does not allow it, ConnectionError where
    another try may help.
    """
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            folder_path=folder, repo_id=repository, commit_message=message or "Florence-2 checkpoint by florence-lite"
        )
    except HFValidationError as error:
        raise ValueError(f"{repository!r} is not a Hub id such as 'org/name': {error}") from None
    except _FAILURES as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403, 404):
            raise PermissionError(
                f"the Hub does not let this login write to {repository!r} (HTTP {status}): check the name and run "
                "`hf auth login` with a token that may write"
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConnectionError(
            f"cannot upload to {repository!r} on {constants.ENDPOINT} ({reason}): check the network and try again"
        ) from error
    return commit.commit_url


def _normal(subfolder: str | None) -> str:
    """A subfolder as the Hub writes it, "" for the top."""
    path = PurePosixPath(subfolder or "")
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"subfolder is {subfolder!r}; it must be a path inside of the repository, such as 'best'")
    return "/".join(path.parts)


def _choose(names: Collection[str]) -> tuple[list[str], list[str]]:
    """What a checkpoint needs among the files of a folder: descriptions and weights, in the order of fetching."""
    weights: list[str] = []
    for patterns in WEIGHTS:
        weights = weights or [name for pattern in patterns for name in sorted(names) if fnmatchcase(name, pattern)]
    return [name for name in DESCRIPTIONS if name in names], weights


def _cached_folder(source: _Repository) -> Path:
    """The folder in the cache, without any request. Weights are fetched last: once they are there, all is."""
    for name in CONFIGS:
        if config := source.in_cache(name, source.revision):
            _, weights = _choose([file.name for file in config.parent.iterdir() if file.is_file()])
            shards = [match for name in weights if (match := re.search(r"-\d+-of-(\d+)\.\w+$", name))]
            if all(name.endswith(".json") for name in weights) or any(int(s[1]) > len(shards) for s in shards):
                raise FileNotFoundError(
                    f"only a part of {source} is in the local cache, weights are missing: load it once with the "
                    "network on"
                )
            return config.parent
    raise FileNotFoundError(
        f"{source} is not in the local cache {constants.HF_HUB_CACHE} and the network is switched off "
        "(HF_HUB_OFFLINE or local_files_only): load it once with the network on"
    )


def _fetched_folder(source: _Repository, info: ModelInfo) -> Path:
    """The folder in the cache at the commit that `info` describes, made complete."""
    listed = {PurePosixPath(file.rfilename): file for file in info.siblings or ()}
    files = {path.name: file for path, file in listed.items() if path.parent == PurePosixPath(source.subfolder)}
    descriptions, weights = _choose(files)
    if not set(CONFIGS) & set(descriptions):
        folders = sorted(str(path.parent) for path in listed if path.name in CONFIGS)
        raise FileNotFoundError(
            f"{source} {'has no config.json' if files else 'does not exist'}; folders of the repository that have one: "
            f"{', '.join(folders) or 'none'}"
        )
    if not weights:
        raise FileNotFoundError(f"{source} has no weights that can be read here (*.safetensors, pytorch_model*.bin)")
    for name in (*descriptions, *weights):
        if source.in_cache(name, info.sha) is None:
            _check(source.fetch(name, info.sha), files[name], source)
    first = descriptions[0]
    if source.in_cache(first, source.revision) != source.in_cache(first, info.sha):
        source.fetch(first, source.revision)  # asking by name makes the cache note which commit the branch is at
    return source.in_cache(first, info.sha).parent


def _check(file: Path, expected: RepoSibling, source: _Repository) -> None:
    """Compare a file that has just arrived with the Hub's sha256, or with git's hash where it is not an LFS file; a
    damaged one leaves the cache, for the next load would trust it."""
    size = file.stat().st_size
    intact = expected.size in (None, size)
    with file.open("rb") as stream:
        if intact and expected.lfs:
            intact = hashlib.file_digest(stream, "sha256").hexdigest() == expected.lfs.sha256
        elif intact and expected.blob_id:
            blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            intact = hashlib.file_digest(stream, lambda: blob).hexdigest() == expected.blob_id
    if not intact:
        file.resolve().unlink()  # the blob that the name in the snapshot links to
        file.unlink(missing_ok=True)
        raise ValueError(
            f"{file.name} of {source} arrived damaged: size or checksum differ from the Hub's. It was deleted from the "
            "cache: load again to fetch it anew"
        )


def _explained(error: Exception, source: _Repository, what: str) -> OSError | ValueError:
    """What a failed request for a file means to the user, and the remedy."""
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # "not in the cache either"
    repository, page = source.repository, f"{constants.ENDPOINT}/{source.repository}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    number = getattr(error, "errno", None)
    if isinstance(error, GatedRepoError):
        return FileNotFoundError(f"{repository!r} is gated: accept the terms on {page} and log in with `hf auth login`")
    if isinstance(error, RepositoryNotFoundError):
        return FileNotFoundError(
            f"the Hub has no repository {repository!r}, or it is private: check the name, and for a private one log in "
            "with `hf auth login`"
        )
    if isinstance(error, RevisionNotFoundError):
        return FileNotFoundError(
            f"{repository!r} has no revision {source.revision!r}: give a branch, a tag or a full commit id, see "
            f"{page}/commits"
        )
    if status in (401, 403):
        return FileNotFoundError(
            f"the Hub refuses access to {repository!r} (HTTP {status}): the token is not valid or lacks the right to "
            "read; log in again with `hf auth login`"
        )
    if number is not None and not isinstance(error, ConnectionError | TimeoutError):
        return OSError(
            number,
            f"cannot store {what} of {source} in {constants.HF_HUB_CACHE} ({getattr(error, 'strerror', error)}): make "
            "room there or name another folder in the variable HF_HOME",
        )
    if "Consistency check" in str(error):
        beginnings = Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}", "blobs", "*.incomplete")
        return ValueError(
            f"{what} of {source} arrived damaged: its size differs from the Hub's. Nothing of it is used: load "
            f"again, and if that repeats itself, delete {beginnings} first"
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ConnectionError(
        f"cannot get {what} of {source} from {constants.ENDPOINT} ({reason}): check the network and load again; files "
        "that have arrived are kept"
    )
