"""Generated images with exact truth for every task: artwork and words on varied backgrounds.

`render_scene(seed)` makes one scene; `Scenes` is the sequence of them for one split; `export_coco` writes them to disk.

The artwork is installed beside this package, is no part of it and keeps its own licence: Fluent Emoji (`fluent`, MIT),
OpenMoji (`openmoji`, CC BY-SA 4.0), Noto Color Emoji (`noto`, SIL OFL 1.1). Images with OpenMoji that are passed on
must credit "All emojis designed by OpenMoji" and stay under CC BY-SA 4.0.
"""

from florence_lite.data.scenes.artwork import available_styles
from florence_lite.data.scenes.catalogue import CLASSES, HELD_OUT_STYLES, STYLES, TRAINING_STYLES
from florence_lite.data.scenes.export import export_coco
from florence_lite.data.scenes.scene import TEST, TRAIN, VALIDATION, Scenes, render_scene, scene_seeds

__all__ = [
    "CLASSES",
    "HELD_OUT_STYLES",
    "STYLES",
    "TEST",
    "TRAIN",
    "TRAINING_STYLES",
    "VALIDATION",
    "Scenes",
    "available_styles",
    "export_coco",
    "render_scene",
    "scene_seeds",
]
