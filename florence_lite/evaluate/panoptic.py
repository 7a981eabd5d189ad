"""Panoptic segmentation held against annotated images, beside a baseline of boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from florence_lite.answers import Instance, same_label
from florence_lite.data.annotation import Annotation
from florence_lite.data.samples import Problem, Sample
from florence_lite.evaluate.metrics.panoptic import PanopticMeter
from florence_lite.evaluate.report import Report, problem_of, read_samples
from florence_lite.florence import Florence
from florence_lite.geometry import box_area, rasterize
from florence_lite.inference import IMAGES_AT_ONCE
from florence_lite.inference.chunks import chunks
from florence_lite.inference.panoptic import assemble
from florence_lite.progress import progress_bar
from florence_lite.results import Panoptic

PANOPTIC, BASELINE = "panoptic", "panoptic baseline"  # what a report calls them, in the place of tasks


def evaluate_panoptic(florence: Florence, samples: Sequence[Sample], count: int | None = None) -> Report:
    """What `florence.panoptic` makes of annotated images, by the metrics of `PanopticMeter`.

    Things are what `<OD>` finds; stuff is asked for by all its labels that the annotations know, as "the sky". The
    baseline paints the detected boxes instead of outlines, on the commonest stuff everywhere.

    samples: annotated images; only the first `count` of them if it is given. Those whose objects are not all known with
        their outlines cannot tell, and are left out and reported, as images that cannot be read.

    Returns a report with "panoptic" and "panoptic baseline" in the place of tasks. Raises ValueError where no sample
    can tell, and for a count below 1; ModuleNotFoundError, with the remedy, where a package is missing.
    """
    if count is not None and count < 1:
        raise ValueError(f"count is {count}; at least one image is needed")
    places = range(len(samples) if count is None else min(count, len(samples)))
    things: set[str] = set()
    stuff: Counter[str] = Counter()
    for place in places:
        annotation = samples[place].annotation
        things |= {same_label(item.label) for item in annotation.objects}
        stuff.update({item.phrase for item in annotation.stuff})
    if not things and not stuff:
        raise ValueError("no sample has objects or stuff: there is nothing to measure panoptic segmentation by")
    phrases = [phrase for phrase, _ in stuff.most_common()]
    meters = {name: PanopticMeter(sorted(things), phrases) for name in (PANOPTIC, BASELINE)}

    problems: list[Problem] = []
    faults = {name: Counter[str]() for name in meters}
    images = 0
    with progress_bar(len(places) > IMAGES_AT_ONCE) as progress:
        bar = progress.add_task("images", total=len(places))
        for few in chunks(places, IMAGES_AT_ONCE):
            known = []
            for sample in (samples[place] for place in few):
                if _is_known(sample.annotation):
                    known.append(sample)
                else:
                    problems.append(problem_of(sample, "image left out", "not all objects are known with outlines"))
            readable, pictures = read_samples(known, problems)
            images += len(readable)
            if readable:
                encoded = florence.encode(pictures, keep_image=False)
                answers = florence.panoptic(encoded, stuff=phrases, keep_image=False)
                boxes = florence.detect(encoded, keep_image=False)
                for sample, answer, found in zip(readable, answers, boxes, strict=True):
                    width, height = found.size_wh
                    ground = [Instance(phrase, box=(0, 0, width, height)) for phrase in phrases[:1]]
                    plain = assemble(found.size_wh, found.instances, ground)
                    truth = true_panoptic(sample.annotation)
                    meters[PANOPTIC].add(truth, _comparable(answer))
                    meters[BASELINE].add(truth, _comparable(plain))
                    faults[PANOPTIC].update(parse_errors=answer.parse_errors, truncated=answer.truncated)
                    faults[BASELINE].update(parse_errors=found.parse_errors, truncated=found.truncated)
            progress.advance(bar, len(few))
    return Report(
        {name: meter.measure().metrics for name, meter in meters.items()},
        answers=dict.fromkeys(meters, images),
        parse_errors={name: each["parse_errors"] for name, each in faults.items()},
        truncated={name: each["truncated"] for name, each in faults.items()},
        images=images,
        notes=(f"stuff that was asked for: {', '.join(phrases) or 'none'}",),
        problems=tuple(problems),
    )


def true_panoptic(annotation: Annotation) -> Panoptic:
    """The map that an annotation tells; 0 where it tells nothing, and at ignored objects. Where outlines of objects
    overlap, the smaller object lies on top: what is worn or carried is outlined within what has it."""
    by_size = sorted(annotation.objects, key=lambda item: box_area(item.box))
    things = [Instance(item.label, polygons=item.polygons) for item in by_size]
    stuff = [Instance(item.phrase, polygons=item.polygons) for item in annotation.stuff]
    truth = _comparable(assemble(annotation.size_wh, things, stuff))
    for item in annotation.ignored:
        shape = Instance(polygons=item.polygons) if item.polygons else Instance(box=item.box)
        truth.id_map[rasterize(shape.outlines, annotation.size_wh)] = 0
    return truth


def _is_known(annotation: Annotation) -> bool:
    return "objects" in annotation.exhaustive and all(item.polygons for item in annotation.objects)


def _comparable(result: Panoptic) -> Panoptic:
    """With labels of things in the form in which they are compared."""
    segments = (replace(each, label=same_label(each.label)) if each.is_thing else each for each in result.segments)
    return replace(result, segments=tuple(segments))
