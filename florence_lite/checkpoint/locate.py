"""Where the name of a checkpoint leads: to an embedded one, a local folder or the Hugging Face Hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from florence_lite.cards import CheckpointCard, checkpoints


class Located(NamedTuple):
    """folder: with the files of the checkpoint; card: what is known about it, or None."""

    folder: Path
    card: CheckpointCard | None


def find_checkpoint(name: str | os.PathLike, revision: str | None = None, subfolder: str | None = None) -> Located:
    """The folder of a checkpoint, downloaded if it is not here yet.

    name: name or Hub id of a checkpoint card, a local folder, or a Hub id "org/name".
    revision: branch, tag or commit of a Hub repository. subfolder: of a local folder or a repository.

    Raises FileNotFoundError where there is no such checkpoint, ValueError for a revision of something that has none
    and for a damaged file of an embedded checkpoint, and what `download` raises.
    """
    by_name = {card.name: card for card in checkpoints()}
    by_name |= {card.source: card for card in checkpoints() if card.source != "embedded"}
    card = by_name.get(str(name))
    is_embedded = card is not None and card.source == "embedded"
    if revision is not None and (is_embedded or Path(name).is_dir()):
        raise ValueError(f"revision is {revision!r}, but checkpoint {str(name)!r} is not on the Hub: leave it out")
    if is_embedded or Path(name).is_dir():
        folder = (card.find_files() if is_embedded else Path(name)) / (subfolder or "")
        if not folder.is_dir():
            raise FileNotFoundError(f"checkpoint {str(name)!r} has no folder {subfolder!r}")
        return Located(folder, card)
    repository = card.source if card else str(name)
    if repository.count("/") != 1:
        raise FileNotFoundError(
            f"checkpoint {repository!r} is neither a folder nor a Hub id such as 'org/name'; known names: "
            f"{', '.join(card.name for card in checkpoints())}"
        )
    from florence_lite.checkpoint.hub import download  # a fifth of a second that embedded and local ones do not need

    return Located(download(repository, revision, subfolder), card)


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds an adapter and no network of its own."""
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()
