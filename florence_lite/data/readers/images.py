"""Which image file a record means by a name.

A name means its own place: beside the file that says it, in that file's folder of images, or below the data set's
folder. Only its spelling may differ: separators, capitals, the form of accents, percent signs for characters. What is
not there is looked for elsewhere below the folder, among images that nothing else can mean.
"""

from __future__ import annotations

import ntpath
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from florence_lite.data.readers.files import IMAGE_ENDINGS, files_below, split_of
from florence_lite.data.readers.frames import ImageFrame, frame_of
from florence_lite.data.readers.records import ProblemLog, Unclear
from florence_lite.image_files import image_sizes

OUTSIDE = "names outside of the folder are read with outside=True (--outside)"


@dataclass(frozen=True)
class _Place:
    """An image file: its path below the data set's folder, part by part, in the spelling that names are compared in."""

    path: Path
    parts: tuple[str, ...]


class Images:
    """The image files of a data set, found by the names that its records give them.

    root: the folder of the data set. files: its files of annotations: an image that lies beside another one belongs to
    that one. outside: whether names may lead out of the folder.
    """

    def __init__(self, root: Path, log: ProblemLog, files: Iterable[Path] = (), outside: bool = False):
        self.root, self.log, self.outside = root, log, outside
        self._annotated = {file.parent for file in files}
        self._found: Counter[Path] = Counter()

    def find(self, name: str, file: Path, near: Sequence[Path] = ()) -> Path:
        """The file that a record of `file` means by `name`: from one of the folders `near` or the root, else the only
        one below the root that can be meant, which is reported where it is not exactly of that name.

        Raises Unclear where there is none, or several in different places, and for a name outside of the root.
        """
        spellings = _spellings(name)
        if not spellings:
            raise Unclear(f"{name!r} is no name of an image")
        path = self._found_at(spellings, (*near, self.root)) or self._elsewhere(spellings, file)
        self._found[path.parent] += 1
        return path

    def beside(self, stem: str, near: Sequence[Path]) -> Path | None:
        """The image called `stem`, with any ending, in one of the folders, or None."""
        return next((p.path for p in self._by_stem.get(_parts(stem)[-1], ()) if p.path.parent in near), None)

    def described(self) -> str:
        """Where the images lie that were found, in a line."""
        folders = ", ".join(f"{self.log.name(folder)} ({count})" for folder, count in self._found.most_common(5))
        more = len(self._found) - 5
        return f"images in {folders}" + (f" and {more} more folders" if more > 0 else "")

    def frame(self, image: Path, declared_wh: tuple[float, float] | None, file: Path, record: str) -> ImageFrame | None:
        """As `frame_of`; None, reported, for an image that cannot be read too."""
        try:
            sizes = image_sizes(image)
        except (ValueError, OSError) as error:
            return self.log.add(file, record, "image unreadable", str(error))
        return frame_of(sizes, declared_wh, self.log, file, record)

    def _found_at(self, spellings: Sequence[str], folders: Sequence[Path]) -> Path | None:
        """The file of that name in one of the folders, in any spelling."""
        for name in spellings:
            for folder in folders:
                path = Path(os.path.normpath(folder / name))
                if not os.path.isfile(path):
                    continue
                leads_out = os.path.isabs(name) or os.path.normpath(name).startswith("..")
                if leads_out and not self.outside and not path.is_relative_to(self.root):
                    raise Unclear(f"the image {name!r} lies outside of {self.root}; {OUTSIDE}")
                return path
        for folder in folders:
            parts = _parts_below(self.root, folder / spellings[-1])
            places = [place for place in self._by_name.get(parts[-1] if parts else "", ()) if place.parts == parts]
            if len(places) == 1:
                return places[0].path
        return None

    def _elsewhere(self, spellings: Sequence[str], file: Path) -> Path:
        """The only image below the root that can be meant; reported where it is not exactly of that name."""
        name, parts = spellings[0], _parts(spellings[-1])
        if not parts:
            raise Unclear(f"{name!r} is no name of an image")
        stem = _stem(parts[-1])
        places = self._possible(self._by_name.get(parts[-1], ()), parts, file)
        places = places or self._possible(self._by_stem.get(stem, ()), parts, file)
        if not places:
            raise Unclear(f"there is no image {name!r} in {self.root}")
        if len(places) > 1:
            names = ", ".join(self.log.name(place.path) for place in places[:3])
            raise Unclear(f"the image {name!r} could be any of {names}")
        found = places[0]
        is_stem = parts == (stem,)
        if found.parts[-len(parts) :] != parts and not is_stem:
            self.log.add(file, name, "image found elsewhere", f"it is taken to be {self.log.name(found.path)}")
        return found.path

    def _possible(self, places: Iterable[_Place], parts: tuple[str, ...], file: Path) -> list[_Place]:
        """Those of the places that no other file of annotations and no other split has, and that agree with most
        folders of the name."""
        split = split_of(file, self.root)
        free = [place for place in places if self._is_free(place.path.parent, file, split)]
        agreeing = [_agreement(place.parts, parts) for place in free]
        return [place for place, count in zip(free, agreeing, strict=True) if count == max(agreeing)]

    def _is_free(self, folder: Path, file: Path, split: str | None) -> bool:
        if folder == file.parent:
            return True
        told = split_of(folder, self.root)
        return folder not in self._annotated and (told is None or split is None or told == split)

    @cached_property
    def _places(self) -> list[_Place]:
        return [_Place(path, _parts_below(self.root, path)) for path in files_below(self.root, IMAGE_ENDINGS)]

    @cached_property
    def _by_name(self) -> dict[str, list[_Place]]:
        return _grouped((place.parts[-1], place) for place in self._places)

    @cached_property
    def _by_stem(self) -> dict[str, list[_Place]]:
        return _grouped((_stem(place.parts[-1]), place) for place in self._places)


def _grouped(pairs: Iterable[tuple[str, _Place]]) -> dict[str, list[_Place]]:
    groups = defaultdict(list)
    for key, place in pairs:
        groups[key].append(place)
    return groups


def _spellings(name: str) -> list[str]:
    """The name as it stands, and with what tools make of one undone: an address's scheme and host, a drive,
    backslashes, percent signs."""
    spelled = name
    if "://" in spelled[:12]:
        spelled = unquote(urlsplit(spelled).path).lstrip("/")
    elif "%" in spelled:
        spelled = unquote(spelled)
    spelled = ntpath.splitdrive(spelled)[1].replace("\\", "/")
    return list(dict.fromkeys(form for form in (name, spelled) if form and "\0" not in form))


def _parts(path: str) -> tuple[str, ...]:
    """The parts of a path in the spelling that names are compared in; folders that lead nowhere are left out."""
    parts = PurePosixPath(path.replace(os.sep, "/")).parts
    return tuple(unicodedata.normalize("NFC", part).casefold() for part in parts if part not in ("/", "//", ".", ".."))


def _parts_below(root: Path, path: Path) -> tuple[str, ...]:
    """The parts of a path behind those of the root; () for one that is not below it."""
    path = Path(os.path.normpath(path))
    return _parts(str(path.relative_to(root))) if path.is_relative_to(root) else ()


def _stem(name: str) -> str:
    """A file's name without the ending of an image; another dot is part of the name."""
    return next((name[: -len(ending)] for ending in IMAGE_ENDINGS if name.endswith(ending)), name)


def _agreement(place: tuple[str, ...], parts: tuple[str, ...]) -> int:
    """How many folders of a name, the last first, are those of a place."""
    count = 0
    for one, other in zip(place[-2::-1], parts[-2::-1], strict=False):
        if one != other:
            break
        count += 1
    return count
