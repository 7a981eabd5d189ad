"""What a call returns: an answer with its scores, which shows and converts itself."""

from __future__ import annotations

import base64
import html
import io
import math
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from florence_lite.answers import Answer, Box, Instance, confidence, set_frozen
from florence_lite.checks import is_number
from florence_lite.geometry import non_maximum_suppression, rasterize
from florence_lite.results import handover
from florence_lite.results.pictures import draw

NOTEBOOK_SIDE = 1000  # pixels that a picture in a notebook has at most


@dataclass(frozen=True)
class Result:
    """The answer to one prompt about one image.

    It is a sequence of its instances: `len(result)`, `for instance in result`, `result[0]`, and `result[:5]` for a
    result with the first five. It is true where it says anything, instances or text.

    task: name of the task card, or the free prompt.
    size_wh: width and height of the image in pixels.
    text: the words of prose or of the answer about a region; of several such answers in one, a line for each. "" for
        lists, whose words are the labels of the instances.
    instances, parse_errors, truncated: as in `Answer`.
    dropped: instances that were left out because the call asked for that (`general_phrases=False`, `threshold`), as
        guesses about a foreign picture, and by `filter`, `nms` and slices since.
    foreign: the checkpoint knows one kind of pictures only, as its card says, and this one is of another, or the prompt
        has words that its training did not ask with (`CheckpointCard.unknown_words`), or nothing in the answer is sure;
        of several phrases, all that found something.
        Guesses are left out then of lists and of what phrases name, unless the call gives a `threshold`.
    presence: phrase that was asked for → the probability that it means something in the image, whatever else was asked.
        Calibrated where the checkpoint is.
    absent: those of them whose presence is below the threshold of the call, or whose boxes were left out as guesses, so
        that they have no instance; it stays when instances are left out later. None: those without an instance.
    score: confidence of the answer as a whole in [0, 1]; None where nothing was said or measured, and for lists, whose
        instances have a score each.
    choices: of a question with a closed list of answers, each of them with its probability; they add up to 1.
    token_ids: the ids the model produced after its prompt; token_logprobs: their natural log-probabilities, or None.
    image: the picture itself, RGB, or None; kept for display only; it does not count in comparisons.
    """

    task: str
    size_wh: tuple[int, int]
    text: str = ""
    instances: tuple[Instance, ...] = ()
    parse_errors: int = 0
    truncated: bool = False
    dropped: int = 0
    foreign: bool = False
    score: float | None = None
    choices: Mapping[str, float] = field(default_factory=dict, hash=False)
    presence: Mapping[str, float] = field(default_factory=dict, hash=False)
    absent: tuple[str, ...] | None = None
    token_ids: tuple[int, ...] = field(default=(), repr=False)
    token_logprobs: tuple[float, ...] | None = field(default=None, repr=False)
    image: Image.Image | None = field(default=None, compare=False, repr=False)

    def __post_init__(self):
        set_frozen(self, "size_wh", tuple(int(side) for side in self.size_wh))
        set_frozen(self, "instances", tuple(self.instances))
        set_frozen(self, "token_ids", tuple(int(token_id) for token_id in self.token_ids))
        set_frozen(self, "score", confidence(self.score))
        set_frozen(self, "presence", {phrase: confidence(value) for phrase, value in self.presence.items()})
        if self.absent is None:  # an outline without a label answers the one phrase that there is
            labels = set(self.labels)
            set_frozen(self, "absent", [] if "" in labels else [each for each in self.presence if each not in labels])
        set_frozen(self, "absent", tuple(self.absent))
        if len(self.size_wh) != 2 or min(self.size_wh) < 1:
            raise ValueError(f"size_wh is {self.size_wh}; it must be a positive width and height in pixels")
        if self.token_logprobs is not None:
            set_frozen(self, "token_logprobs", tuple(float(number) for number in self.token_logprobs))
            if len(self.token_logprobs) != len(self.token_ids):
                raise ValueError(
                    f"token_logprobs has {len(self.token_logprobs)} numbers for {len(self.token_ids)} token_ids"
                )

    @classmethod
    def from_answer(cls, task: str, size_wh: tuple[int, int], answer: Answer, **more: Any) -> Result:
        """A result that says what `answer` says; `more` are the other fields of `Result`."""
        return cls(task, size_wh, answer.text, answer.instances, answer.parse_errors, answer.truncated, **more)

    # ---- a sequence of instances, some of which can be left out ------------------------------------------------------

    def __len__(self) -> int:
        return len(self.instances)

    def __bool__(self) -> bool:
        return bool(self.instances or self.text)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self.instances)

    @overload
    def __getitem__(self, place: int) -> Instance: ...
    @overload
    def __getitem__(self, place: slice) -> Result: ...
    def __getitem__(self, place: int | slice) -> Instance | Result:
        if isinstance(place, slice):
            return self._with(self.instances[place])
        return self.instances[operator.index(place)]

    def filter(self, score: float | None = None, label: str | Sequence[str] | None = None) -> Result:
        """The result with some of its instances, in their order; `dropped` counts the others too.

        score: the least that remains, from 0 to 1. An instance without a score remains: nothing says that it has less.
        label: the label that remains, or several, as they are written; a label that no instance has finds nothing.

        What belongs to the whole answer (`text`, `score`, `presence`, `absent`, the ids) stays as it is. Raises
        ValueError for a score outside of 0 to 1, for a label that is no text and for an empty list of them.
        """
        if score is not None:
            _check_share("score", score)
        labels = (label,) if isinstance(label, str) or not isinstance(label, Iterable) else tuple(label)
        if label is not None and not (labels and all(isinstance(each, str) for each in labels)):
            raise ValueError(f"label is {label!r}; it must be a label or a list of at least one")
        return self._with(
            item
            for item in self.instances
            if (score is None or item.score is None or item.score >= score) and (label is None or item.label in labels)
        )

    def nms(self, iou: float) -> Result:
        """The result without instances that overlap a surer one of the same label: non-maximum suppression.

        iou: from 0 to 1; an instance is left out where the intersection of its box with that of one that remains is
            more than this share of their union. Quads and polygons count with their bounds.

        The order is kept, and `dropped` counts what is left out. Instances without a score count as the least sure,
        those without coordinates remain. Raises ValueError for an iou outside of 0 to 1.
        """
        _check_share("iou", iou)
        labels, boxes = np.array(self.labels, dtype=object), self.boxes_xyxy
        scores = np.array([0.0 if score is None else score for score in self.scores])
        placed: NDArray[np.bool_] = np.logical_not(np.isnan(boxes).any(axis=1))
        kept: NDArray[np.bool_] = np.logical_not(placed)
        for label in set(self.labels):
            [rows] = np.nonzero(placed & (labels == label))
            kept[rows[non_maximum_suppression(boxes[rows], scores[rows], iou)]] = True
        return self._with(item for item, stays in zip(self.instances, kept, strict=True) if stays)

    def _with(self, instances: Iterable[Instance]) -> Result:
        """This result with some of its instances."""
        kept = tuple(instances)
        return replace(self, instances=kept, dropped=self.dropped + len(self.instances) - len(kept))

    # ---- as arrays and in other formats ------------------------------------------------------------------------------

    @property
    def labels(self) -> list[str]:
        """The N labels; the arrays and lists below have the same order."""
        return [instance.label for instance in self.instances]

    @property
    def scores(self) -> list[float | None]:
        """The N scores, None where nothing was measured."""
        return [instance.score for instance in self.instances]

    @property
    def boxes_xyxy(self) -> NDArray[np.float64]:
        """float64[N, 4], pixels, x0 y0 x1 y1: boxes, bounds of quads and polygons; NaN without coordinates."""
        rows = [instance.bounds or (math.nan,) * 4 for instance in self.instances]
        return np.array(rows, dtype=np.float64).reshape(-1, 4)

    @property
    def quads(self) -> NDArray[np.float64]:
        """float64[N, 8], pixels, x0 y0 … x3 y3; NaN for instances that are no quads."""
        rows = [instance.quad or (math.nan,) * 8 for instance in self.instances]
        return np.array(rows, dtype=np.float64).reshape(-1, 8)

    @property
    def polygons(self) -> list[list[NDArray[np.float64]]]:
        """For each instance its outlines float64[n, 2], pixels, even-odd rule; an empty list where it has none."""
        return [[np.array(ring, dtype=np.float64) for ring in instance.polygons] for instance in self.instances]

    def masks(self) -> Iterator[NDArray[np.bool_]]:
        """The N masks, one after the other, bool[H, W]: True where the centre of a pixel lies inside the polygon, quad
        or box, nowhere without coordinates.

        Each is made when it is asked for: of a photograph of 12 megapixels it takes 12 MB, and fifty of them at once,
        `np.stack(list(result.masks()))`, take 600.
        """
        return (rasterize(instance.outlines, self.size_wh) for instance in self.instances)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: task, size_wh, text, instances, parse_errors, truncated, dropped, foreign,
        score, presence, and choices where there were some.

        Each instance has label, box (its bounds, or null) and score (or null); a quad adds `quad` (8 numbers), a
        polygon adds `polygons` (a list of outlines of [x, y]). Token ids stay on the object.
        """
        return {
            "task": self.task,
            "size_wh": list(self.size_wh),
            "text": self.text,
            "instances": [instance_dict(instance) for instance in self.instances],
            "parse_errors": self.parse_errors,
            "truncated": self.truncated,
            "dropped": self.dropped,
            "foreign": self.foreign,
            "score": self.score,
            "presence": dict(self.presence),
            **({"choices": dict(self.choices)} if self.choices else {}),
        }

    def to_coco(self, image_id: int = 1, category_ids: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
        """Rows of a COCO results file, one for each instance that has coordinates.

        Each row holds image_id, category_id, category_name, bbox [x, y, width, height], area, score (left out where
        nothing was measured, so that the rows can also serve as annotations) and, for quads and polygons,
        segmentation: [[x, y, x, y, …]] for one ring, an uncompressed RLE {"size": [height, width], "counts": […]}
        for several, because COCO's lists of polygons cannot say a hole.

        category_ids: label → id, as the COCO file of a data set has them. Instances with a label outside it are left
            out, with a warning: the format cannot name them. Without it a label's id follows from its words
            (`handover.label_id`), so that it is the same in all images.
        """
        return handover.to_coco(self.instances, self.size_wh, image_id, category_ids)

    def to_yolo(self, classes: handover.Classes) -> list[str]:
        """Lines of a YOLO label file, one for each instance that has coordinates, without scores.

        classes: the labels in the order of the data set (`Dataset.classes`), label → number, or number → label, as the
            `names` of a data.yaml may be. Instances with another label are left out, with a warning.

        A line holds the class, then shares of the image: the centre and the size of the box; or, where all instances
        are quads or polygons, the points of the outline. That is one ring: parts are joined by lines that enclose
        nothing, holes are filled. What leaves the image is cut at its edge, and what lies outside is left out, with a
        warning. Raises ValueError for classes that are no list or mapping of labels.
        """
        return handover.to_yolo(self.instances, self.size_wh, classes)

    def to_labelme(self, image_path: str | os.PathLike) -> dict[str, Any]:
        """The content of a LabelMe file, to be written as JSON beside the image: a rectangle or polygons for each
        instance that has coordinates.

        image_path: of the image, as seen from that file: "photo.jpg".

        Parts of one instance share a group_id, and holes are filled, which polygons of LabelMe cannot have. A score
        stands as "score" in its shape, where LabelMe keeps it when the file is saved again.
        """
        return handover.to_labelme(self.instances, self.size_wh, image_path)

    def to_supervision(self, classes: handover.Classes | None = None) -> Any:
        """The instances that have coordinates as `supervision.Detections`; needs the extra `florence-lite[vis]`.

        xyxy float[N, 4] pixels; class_id int[N], with data["class_name"] for it; data["xyxyxyxy"] float[N, 4, 2] where
        an instance is a quad; mask where one is a polygon, and of every instance of a task that outlines: a
        `supervision.CompactMask`, which acts as a bool[N, H, W] and takes a fraction of its memory, or that array where
        the installed version has none; confidence float[N], None unless every instance was scored.

        classes: as in `to_yolo`, so that a label has one number in all images of a data set. Without it the number
            follows from the words of the label, as in `to_coco`, which is the same in all images too.

        Raises ImportError where the package is not installed, ValueError as `to_yolo`.
        """
        return handover.to_supervision(self.instances, self.size_wh, self.task, classes)

    def to_fiftyone(self) -> Any:
        """A label for a field of a FiftyOne sample, with coordinates as shares of the image; needs fiftyone.

        `fiftyone.Detections` of boxes; `fiftyone.Polylines` of tasks that answer with quads or outlines, and where an
        instance is one; of an answer in words, which has no coordinates, `fiftyone.Classification` with the text as its
        label, or None where there are no words. So the answers of a task fit into one field, whatever an image holds.
        Scores are confidences.

        Raises ImportError where the package is not installed.
        """
        return handover.to_fiftyone(self.instances, self.size_wh, self.task, self.text, self.score)

    def draw(self, image: Any = None, max_side: int | None = None) -> Image.Image:
        """A new RGB picture of the answer: the image with shapes, labels and scores on it, and the words below it.

        image: anything that `florence_lite.load_image` takes; without it the picture that the result keeps. Where its
            size is not `size_wh` (a thumbnail, say), the coordinates are scaled to it.
        max_side: pixels that the longer side of the picture, without the words, may have at most. Without it a small
            picture is enlarged so that its labels can be read.

        Raises ValueError where there is no image and for a max_side below 1, and as `load_image`.
        """
        if image is None and self.image is None:
            raise ValueError(
                f"this {self.task} result keeps no image: draw it with result.draw(image), or ask with keep_image=True"
            )
        return draw(self.image if image is None else image, self.instances, self.size_wh, self.text, max_side)

    def show(self) -> None:
        """Open the drawn answer in the system's picture viewer."""
        self.draw().show()

    def _repr_html_(self) -> str:
        picture = (
            "" if self.image is None else f'<img src="data:image/jpeg;base64,{_base64(self._notebook_picture())}"/>'
        )
        rows = "".join(
            f"<tr><td>{html.escape(instance.label)}</td><td>{_shown(instance.bounds)}</td>"
            f"<td>{'' if instance.score is None else f'{instance.score:.2f}'}</td></tr>"
            for instance in self.instances
        )
        table = f"<table><tr><th>label</th><th>box</th><th>score</th></tr>{rows}</table>" if rows else ""
        if self.absent:
            table += f"<p>not in the image: {html.escape(', '.join(self.absent))}</p>"
        words = f"<b>{html.escape(self.task)}</b><p>{html.escape(self.text)}</p>"
        doubt = (
            "<p>unsure: the picture may be of a kind that the checkpoint was not trained on</p>" if self.foreign else ""
        )
        return f"<div>{words}{doubt}{picture}{table}</div>"

    def _notebook_picture(self) -> Image.Image:
        """The drawn answer, with its list and its words no larger than `NOTEBOOK_SIDE`."""
        side = NOTEBOOK_SIDE
        picture = self.draw(max_side=side)
        if max(picture.size) > NOTEBOOK_SIDE:  # drawn again smaller, so that its letters stay sharp
            picture = self.draw(max_side=max(1, side * NOTEBOOK_SIDE // max(picture.size)))
            picture.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
        return picture


def _check_share(name: str, value: float) -> None:
    if not (is_number(value) and 0 <= value <= 1):
        raise ValueError(f"{name} is {value!r}; it must be a number from 0 to 1")


def _base64(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=90, subsampling=0)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _shown(bounds: Box | None) -> str:
    return "" if bounds is None else " ".join(f"{number:.1f}" for number in bounds)


def instance_dict(instance: Instance) -> dict[str, Any]:
    bounds = instance.bounds
    entry = {"label": instance.label, "box": None if bounds is None else list(bounds), "score": instance.score}
    if instance.quad is not None:
        entry["quad"] = list(instance.quad)
    if instance.polygons:
        entry["polygons"] = [[list(point) for point in ring] for ring in instance.polygons]
    return entry
