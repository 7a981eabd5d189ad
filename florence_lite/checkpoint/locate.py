"""Where the name of a checkpoint leads: to an embedded one, a local folder or the Hugging Face Hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from florence_lite.cards import CheckpointCard, checkpoints
from florence_lite.checkpoint.adapter_config import AdapterBase


class Located(NamedTuple):
    """folder: with the files of the checkpoint; card: what is known about it, or None."""

    folder: Path
    card: CheckpointCard | None


def find_checkpoint(name: str | os.PathLike, revision: str | None = None, subfolder: str | None = None) -> Located:
    """The folder of a checkpoint, downloaded if it is not here yet.

    name: name or Hub id of a checkpoint card, a local folder, or a Hub id "org/name".
    revision: branch, tag or commit of a Hub repository. subfolder: of a local folder or a repository.

    Raises FileNotFoundError where there is no such checkpoint, ValueError for a revision of something that has none
    and for a file that is not the one whose digest its card has, and what `download` raises.
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

    folder = download(repository, revision, subfolder)
    if card is not None and revision is None and subfolder is None:  # the card speaks of no other
        card.check_files(folder)
    return Located(folder, card)


def find_base(adapter: str | os.PathLike, base: AdapterBase | None) -> Located:
    """The checkpoint that an adapter's file names as its base.

    The file is not the user's word: nothing is fetched for it but what a checkpoint card names, whose digest is known.
    Another base, or another revision, which anyone may have proposed, is found where it is here already, as a folder or
    in the Hub's cache.

    Raises ValueError, with the call that says where the base comes from, where it names none or would be fetched; and
    as `find_checkpoint`.
    """
    if base is None:
        raise ValueError(f"adapter {str(adapter)!r} names no base: call from_pretrained(BASE, adapter=…)")
    carded = {known for card in checkpoints() for known in (card.name, card.source)}
    is_known = base.name in carded and base.revision is None
    if is_known or Path(base.name).is_dir() or base.name.count("/") != 1:
        return find_checkpoint(base.name, base.revision)
    from florence_lite.checkpoint.hub import download

    try:
        return Located(download(base.name, base.revision, local_files_only=True), None)
    except (OSError, ValueError):
        at = "" if base.revision is None else f" at revision {base.revision!r}"
        raise ValueError(
            f"adapter {str(adapter)!r} names the base {base.name!r}{at}, which would be fetched from the Hub; if you "
            f"trust it, say so: from_pretrained({base.name!r}, adapter={str(adapter)!r})"
        ) from None


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds an adapter and no network of its own."""
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()
