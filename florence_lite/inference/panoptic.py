"""Outlines of things and stuff → one map in which every pixel belongs to one segment at most.

Source of the procedure: Kirillov et al. 2019, arXiv:1801.00868, section 5 ("Panoptic Segmentation": the heuristic that
resolves overlaps).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from florence_lite.answers import Instance
from florence_lite.geometry import rasterize_window
from florence_lite.inference.encoded import EncodedImage
from florence_lite.results import Panoptic, Result, Segment

OF_PHRASE = "<REFERRING_EXPRESSION_SEGMENTATION>"

LEAST_OF_THING = 0.5  # share of a thing's pixels that surer things may not hide, or it is the same thing once more
LEAST_OF_STUFF = (
    0.05  # share of stuff's pixels that must be left of it; stuff is mostly outlined below the things on it
)


def check_phrases(things: Sequence[str] | None, stuff: Sequence[str]) -> None:
    """Raises ValueError where nothing is looked for, a phrase stands twice, or one is no phrase."""
    for name, phrases in (("things", things), ("stuff", stuff)):
        if phrases is None and name == "things":
            continue
        if not isinstance(phrases, list | tuple):
            raise ValueError(f'{name}={phrases!r} must be a list of strings, such as {name}=["the sky"]')
        for number, phrase in enumerate(phrases):
            if not isinstance(phrase, str) or not phrase.strip():
                raise ValueError(f"{name}[{number}]={phrase!r} must be a string with something in it")
    if not things and things is not None and not stuff:
        raise ValueError("things and stuff are both empty: name something to look for; things=None means all objects")
    named = [phrase.strip() for phrase in (*(things or ()), *stuff)]
    if twice := sorted({phrase for phrase in named if named.count(phrase) > 1}):
        raise ValueError(f"{twice[0]!r} is given twice; a label names things or stuff, once")


def panoptic_of(
    image: EncodedImage, things: Result, stuff: Sequence[str], answers: Sequence[Result], keep_image: bool
) -> Panoptic:
    """`assemble` for an image: things as they were found, and the answers to the phrases of stuff, one for each."""
    named = [
        replace(item, label=phrase.strip())
        for phrase, answer in zip(stuff, answers, strict=True)
        for item in answer.instances
    ]
    parts = [things, *answers]
    return assemble(
        image.size_wh,
        things.instances,
        named,
        parse_errors=sum(part.parse_errors for part in parts),
        truncated=any(part.truncated for part in parts),
        foreign=all(part.foreign for part in parts),
        presence={phrase: value for part in parts for phrase, value in part.presence.items()},
        absent=tuple(phrase for part in parts for phrase in part.absent),
        image=image.image if keep_image else None,
    )


def assemble(size_wh: tuple[int, int], things: Sequence[Instance], stuff: Sequence[Instance], **more) -> Panoptic:
    """The map in which stuff is painted first and things upon it, each by ascending score: the surest lies on top.

    things, stuff: instances with outlines or boxes in pixels of an image of `size_wh`; a score of None is the lowest.
        All stuff of one label is one segment, with the best of its scores.
    more: the other fields of `Panoptic`.

    A segment of which surer ones leave less than `LEAST_OF_THING` or `LEAST_OF_STUFF` is not painted, nor one without
    any pixel; `Panoptic.dropped` counts them. Ids follow the paint order from the top: the surest thing is 1.
    """
    width, height = size_wh
    id_map = np.zeros((height, width), dtype=np.int32)
    segments: list[Segment] = []
    dropped = 0
    by_label: dict[str, list[Instance]] = {}
    for item in stuff:
        by_label.setdefault(item.label, []).append(item)
    # Painted from the top down, each into what is still free, so that a segment that is dropped hides nothing.
    for is_thing, groups in ((True, [[item] for item in things]), (False, list(by_label.values()))):
        for parts in sorted(groups, key=_best, reverse=True):
            segment_id, area, whole = len(segments) + 1, 0, 0
            windows = [rasterize_window(part.outlines, size_wh) for part in parts]
            for window, inside in windows:
                free = inside & (id_map[window] == 0)
                id_map[window][free] = segment_id
                area, whole = area + int(np.count_nonzero(free)), whole + int(np.count_nonzero(inside))
            if area and area >= (LEAST_OF_THING if is_thing else LEAST_OF_STUFF) * whole:
                score = _best(parts) if _best(parts) >= 0 else None
                segments.append(Segment(segment_id, parts[0].label, score, is_thing, area))
                continue
            dropped += 1
            for window, _ in windows:
                id_map[window][id_map[window] == segment_id] = 0
    return Panoptic(id_map, tuple(segments), dropped, **more)


def _best(parts: Sequence[Instance]) -> float:
    """The best score of the parts of a segment, -1 where none was measured."""
    return max(-1.0 if part.score is None else part.score for part in parts)
