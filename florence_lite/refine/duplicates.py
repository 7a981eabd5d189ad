"""Images that look alike: perceptual hashes, and which of many are near each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from florence_lite.checks import check, check_choice, is_whole
from florence_lite.data.rows import int64_of
from florence_lite.data.sources import read_source
from florence_lite.images import load_enough
from florence_lite.refine.judged import ImageRows
from florence_lite.refine.stage import Stage

BITS, PIECES = 64, 4
FARTHEST = 3 * PIECES - 1  # distance up to which no piece of the nearest hash differs in more than two bits
THREADS = 4


class Seen(NamedTuple):
    """What is kept of an image until all have been seen; the smaller stays of two that look alike."""

    is_other: bool  # not corrected by a person
    order: int  # the instances that are left, as a negative number, or 0
    source: str
    image_id: int


class NearHashes:
    """Hashes of 64 bits, of which the first within a distance is found without looking at all.

    Two hashes that differ in d bits have a piece of 16 that differs in d / 4 at most, rounded down, so that few entries
    of four tables are looked at. Source: Norouzi, Punjani and Fleet 2012, arXiv:1307.2982.

    distance: bits that two may differ in, from 0 to `FARTHEST`.
    """

    def __init__(self, distance: int):
        self.distance = distance
        width = BITS // PIECES
        radius = distance // PIECES
        flipped = (bits for count in range(radius + 1) for bits in combinations(range(width), count))
        self._flips = [sum(1 << bit for bit in bits) for bits in flipped]
        self._tables: list[dict[int, list[tuple[int, int]]]] = [defaultdict(list) for _ in range(PIECES)]

    def add(self, hash: int, name: int) -> None:
        for table, piece in zip(self._tables, _pieces(hash), strict=True):
            table[piece].append((hash, name))

    def nearest(self, hash: int) -> tuple[int, int] | None:
        """(distance, name) of the nearest hash, of equally near ones the smallest name; None where all are farther."""
        found = (
            ((hash ^ other).bit_count(), name)
            for table, piece in zip(self._tables, _pieces(hash), strict=True)
            for flip in self._flips
            for other, name in table.get(piece ^ flip, ())
        )
        nearest = min(found, default=None)
        return nearest if nearest is not None and nearest[0] <= self.distance else None


def _pieces(hash: int) -> list[int]:
    width = BITS // PIECES
    return [hash >> shift & (1 << width) - 1 for shift in range(0, BITS, width)]


def perceptual_hash(content: bytes) -> int:
    """64 bits of what an encoded picture looks like: the signs of its coarsest frequencies, whatever its size and
    format. Raises ValueError where it cannot be read.

    Computed by the package `imagehash` (pHash). Colours do not count.
    """
    import imagehash

    picture, _ = load_enough(content, (128, 128))
    return int(str(imagehash.phash(picture)), 16)


@dataclass
class Duplicates(Stage):
    """Images that look like one that stays, with all their rows. Of several images that were in one file at different
    times, those that are not in it any more go too: nobody could look at them.

    distance: bits of 64 in which the perceptual hashes of two may differ, from 0 to 11. Measured on photographs, 7 find
        97 % of the copies that were scaled, compressed again or brightened, 91 % of those that lost 2 % at each border
        and 19 % of those that lost 5 %; of 277,885 pairs of different photographs none is nearer than 14.
    prefer: which one stays: "instances", that with the most left, or "first", by its name. What a person corrected
        stays before others, and always.
    """

    NAME = "duplicates"
    looks_ahead = True
    distance: int = 7
    prefer: str = "instances"

    def __post_init__(self):
        rule = f"a whole number from 0 to {FARTHEST}"
        check(self, "distance", lambda value: is_whole(value, 0) and value <= FARTHEST, rule)
        check_choice(self, "prefer", ("instances", "first"))
        self.hashes: dict[int, int] = {}  # image → hash; those of an earlier run may be given
        self._images: list[Seen] = []
        self._unread: list[str] = []
        self._like: dict[int, tuple[str, int]] = {}  # image that goes → the one that stays, distance
        self._replaced: set[int] = set()  # images whose file holds another one now

    def observe(self, images: Sequence[ImageRows]) -> None:
        images = [image for image in images if image.standing]
        missing = [image.image for image in images if image.image.image_id not in self.hashes]
        with ThreadPoolExecutor(THREADS) as pool:
            for image, hash in zip(missing, pool.map(_hash_of, (image.source for image in missing)), strict=True):
                if isinstance(hash, int):
                    self.hashes[image.image_id] = hash
                else:
                    self._unread.append(hash)

        for image in images:
            number = sum(len(row.left) for row in image.standing) if self.prefer == "instances" else 0
            self._images.append(Seen(not image.is_of_person, -number, image.image.source, image.image.image_id))

    def settle(self) -> None:
        read = [seen for seen in self._images if seen.image_id in self.hashes]
        if self._unread and not read:
            raise ValueError(
                f"duplicates: none of {len(self._unread)} images can be read; refine where they lie, or leave this "
                f"stage out. The first: {self._unread[0]}"
            )
        images_of = Counter(seen.source for seen in read)
        self._replaced = {
            seen.image_id
            for seen in read
            if images_of[seen.source] > 1 and int64_of(read_source(seen.source)) != seen.image_id
        }
        near = NearHashes(self.distance)
        kept: list[str] = []
        for is_other, _, source, image_id in sorted(read):
            if image_id in self._replaced:
                del self.hashes[image_id]  # it is of the other one
                continue
            found = near.nearest(self.hashes[image_id])
            if found is not None and is_other:
                self._like[image_id] = kept[found[1]], found[0]
                continue
            near.add(self.hashes[image_id], len(kept))
            kept.append(source)
        self._images.clear()

    def judge(self, image: ImageRows) -> None:
        if image.image.image_id in self._replaced:
            kind, detail = "picture changed", "its file holds another picture now, which has answers too"
        elif like := self._like.get(image.image.image_id):
            kind, detail = "near-duplicate", f"of {like[0]}, {like[1]} bits apart"
        else:
            return
        for row in image.open:
            row.drop(self.NAME, kind, detail)

    def told(self) -> list[str]:
        count = len(self._unread)
        return [f"{count} images could not be read and stay, the first: {self._unread[0]}"] if count else []


def _hash_of(source: str) -> int | str:
    """The hash of an image, or why there is none."""
    try:
        return perceptual_hash(read_source(source))
    except (OSError, ValueError) as error:
        return str(error)
