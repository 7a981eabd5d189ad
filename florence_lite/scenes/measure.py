"""How well a checkpoint sees generated scenes: the public metrics of some tasks, with scenes as the data set."""

from __future__ import annotations

from collections.abc import Sequence

from florence_lite.evaluate import Report, evaluate, evaluate_panoptic, evaluate_retrieval
from florence_lite.evaluate.closed import COMMON_LISTS
from florence_lite.florence import Florence
from florence_lite.model import FlorenceConfig
from florence_lite.scenes.catalogue import CLASSES, DEFAULT_STYLES
from florence_lite.scenes.config import TrainConfig
from florence_lite.scenes.scene import Scenes
from florence_lite.train.validation import Validation

TASKS = ("<OD>", "<CAPTION>", "<OPEN_VOCABULARY_DETECTION>", "<OCR>")
"""What is asked about the scenes unless something else is asked for."""


def evaluate_scenes(
    florence: Florence,
    split: str = "test",
    count: int = 200,
    styles: Sequence[str] = DEFAULT_STYLES,
    tasks: Sequence[str] = TASKS,
    with_margins: bool = False,
) -> Report:
    """The report on the first `count` scenes of a split, drawn at the checkpoint's own image size; without tasks, of
    panoptic segmentation. with_margins: as in `evaluate`.

    Raises what `Scenes`, `florence_lite.evaluate.evaluate` and `evaluate_panoptic` raise.
    """
    scenes = Scenes(split, tuple(styles), florence.model.config.image_size_wh)
    return (
        evaluate(florence, scenes, tasks, count, with_margins) if tasks else evaluate_panoptic(florence, scenes, count)
    )


def retrieval_of_scenes(
    florence: Florence, split: str = "test", count: int = 200, styles: Sequence[str] = DEFAULT_STYLES
) -> Report:
    """What `evaluate_retrieval` reports on the first `count` scenes of a split, drawn at the checkpoint's own image
    size. Raises what `Scenes` and it raise."""
    scenes = Scenes(split, tuple(styles), florence.model.config.image_size_wh)
    return evaluate_retrieval(florence, scenes, count, COMMON_LISTS | {"classes": tuple(CLASSES)})


def scene_validation(config: TrainConfig) -> Validation:
    """What measures the checkpoints of a run, on validation scenes. Raises what `Scenes` and `Validation` raise."""
    size_wh = FlorenceConfig.preset(config.preset).image_size_wh
    return Validation(Scenes("validation", config.styles, size_wh), TASKS, config.evaluate_scenes)
