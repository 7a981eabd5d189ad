"""Generated scenes: images drawn from a seed, with exact truth for every task; training from scratch on them.

* The world: `catalogue` (what there is), `artwork`, `backgrounds`, `lettering`, `compose` (the picture),
  `language` (the words), `scene` (a scene from its seed, and the `Scenes` of a split as annotated samples).
* The training: `config`, `cells`, `location_basis`, `trainer`, `training`.
* The measurement: `measure`.

The artwork is installed beside this package, is no part of it and keeps its own licence: `LICENCES` has the credit that
images passed on must carry. Those with OpenMoji or the first Emoji One (`openmoji`, `emojione-v1`) must stay under
CC BY-SA 4.0.
"""

from collections.abc import Callable
from functools import partial

from florence_lite.scenes.catalogue import (
    CLASSES,
    DEFAULT_STYLES,
    HELD_OUT_STYLES,
    LICENCES,
    STYLES,
    TRAINING_STYLES,
)
from florence_lite.scenes.scene import TEST, TRAIN, VALIDATION, Scenes, render_scene, scene_seeds

__all__ = [
    "CLASSES",
    "DEFAULT_STYLES",
    "GENERATORS",
    "HELD_OUT_STYLES",
    "LICENCES",
    "STYLES",
    "TEST",
    "TRAIN",
    "TRAINING_STYLES",
    "VALIDATION",
    "Scenes",
    "render_scene",
    "scene_seeds",
]

GENERATORS: dict[str, Callable[..., Scenes]] = {
    "scenes": Scenes,
    "scenes-in-all-styles": partial(Scenes, styles=TRAINING_STYLES),
}
"""What may stand as the `path` of a data set in a configuration of fine-tuning."""
