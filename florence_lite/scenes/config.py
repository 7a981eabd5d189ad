"""The configuration of a training run from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

from florence_lite.checks import check_choice, check_not_negative, check_share, check_whole
from florence_lite.model.config import PRESETS
from florence_lite.rules import NEGATIVES
from florence_lite.scenes.catalogue import DEFAULT_STYLES, STYLES
from florence_lite.scenes.variety import Variety
from florence_lite.train.config import RunConfig, check_tasks


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Training from scratch on generated scenes; the fields of `RunConfig`, and these.

    tasks: rows per image of each task.
    preset: sizes of the network, a name of `FlorenceConfig.preset`.
    styles: artwork of the scenes. any_letters, strange_things: what the training scenes have beyond the catalogue, as
        in `Variety`.
    dense_weight: weight of the auxiliary loss on image tokens.
    vocabulary: ids of the byte-pair tokenizer that is trained on the scenes' sentences, added tokens included.
    shows: batches in which each scene is shown, far apart and with other rows: drawing it takes half of the time that
        it takes to prepare it, and the workers keep it in memory for so long.
    negatives: share, from 0 to 1, of the phrases and sentences asked about a scene that are not true of it.
    evaluate_scenes: validation scenes of an evaluation; 0 measures nothing.

    Raises ValueError naming the field, its value and the rule.
    """

    tasks: Mapping[str, float]
    _: KW_ONLY
    preset: str = "nano"
    styles: tuple[str, ...] = DEFAULT_STYLES
    any_letters: float = 0.0
    strange_things: float = 0.0
    dense_weight: float = 1.0
    vocabulary: int = 2304
    negatives: float = NEGATIVES
    evaluate_scenes: int = 64
    shows: int = 1

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "preset", sorted(PRESETS))
        check_whole(self, 1, "vocabulary", "shows")
        check_whole(self, 0, "evaluate_scenes")
        check_share(self, "negatives", "any_letters", "strange_things")
        check_not_negative(self, "dense_weight")
        if isinstance(self.styles, list):
            object.__setattr__(self, "styles", tuple(self.styles))
        if isinstance(self.styles, str) or not self.styles or not set(self.styles) <= set(STYLES):
            raise ValueError(f"styles = {self.styles!r} must be a list of some of {', '.join(STYLES)}")
        check_tasks(self.tasks)

    @property
    def variety(self) -> Variety:
        return Variety(self.any_letters, self.strange_things)
