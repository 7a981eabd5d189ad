"""Training from scratch on generated scenes: from a configuration to a checkpoint, its tokenizer included."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch.utils.data import Dataset

from florence_lite.cards import tasks as task_cards
from florence_lite.checkpoint import save_checkpoint
from florence_lite.data.annotation import Annotation
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.model import FlorenceConfig, FlorenceModel
from florence_lite.scenes.catalogue import CLASSES
from florence_lite.scenes.cells import CHARACTERS, TEXT_CLASS, SceneBatch, SceneCollator
from florence_lite.scenes.config import TrainConfig
from florence_lite.scenes.scene import TRAIN, render_scene
from florence_lite.scenes.trainer import ScratchTrainer
from florence_lite.tokens.codec import Codec
from florence_lite.tokens.tokenizer import Tokenizer
from florence_lite.train.collate import TaskCollator
from florence_lite.train.loop import Evaluate, fit, shares, start
from florence_lite.train.record import run_folder

APART = 60  # batches until scenes are shown again; a multiple of most numbers of workers, who then have kept them
TOKENIZER_SCENES = 4000  # scenes whose sentences the tokenizer learns from
CELL_CLASSES = (*CLASSES, TEXT_CLASS, *CHARACTERS)
_QUOTED = re.compile('"[^"]*"')


class SceneBatches(Dataset):
    """Item i is the part of batch number `first + i` that falls to this process, as one or several smaller batches.

    Batch number n of a run always has the same scenes and rows, however many processes share it.
    parts: numbers of the scenes of each smaller batch, within the batch.
    """

    def __init__(
        self,
        config: TrainConfig,
        collate: SceneCollator,
        size_wh: tuple[int, int],
        first: int,
        parts: Sequence[range],
    ):
        self.config, self.collate, self.size_wh, self.first, self.parts = config, collate, size_wh, first, parts
        self.kept: dict[int, tuple[Image.Image, Annotation]] = {}  # scenes that this process will show again

    def __len__(self) -> int:
        return self.config.steps - self.first

    def __getitem__(self, index: int) -> list[SceneBatch]:
        step = self.first + index
        cycle, place = divmod(step, APART * self.config.shows)
        show, place = divmod(place, APART)
        start = (self.config.seed * self.config.steps + cycle * APART + place) * self.config.batch
        again = show + 1 < self.config.shows
        batches = []
        for part in self.parts:
            numbers = range(start + part.start, start + part.stop)
            examples = [self.kept.pop(n, None) or self._render(n) for n in numbers]
            if again:
                self.kept.update(zip(numbers, examples, strict=True))
            batches.append(self.collate(examples, np.random.default_rng([self.config.seed, step]), part.start))
        return batches

    def _render(self, number: int) -> tuple[Image.Image, Annotation]:
        return render_scene(TRAIN[number % len(TRAIN)], self.config.styles, self.size_wh, self.config.variety)


def train(config: TrainConfig, evaluate: Evaluate | None = None, continue_with_changes: bool = False) -> Path:
    """Train, or go on training, the run in `config.output`; returns the folder to go on with: `best` where the run is
    measured, else `checkpoint`, the last.

    evaluate: called at intervals and at the end with the checkpoint folder and the run's device; its metrics are
        logged. continue_with_changes: go on with a run whose settings have changed, which is refused without it.

    Raises ValueError for a run folder that another run works in, that holds another run, or whose state is damaged.
    """
    accelerator = start(config)
    with run_folder(config, accelerator, continue_with_changes=continue_with_changes) as resumed:
        return _train(config, accelerator, resumed, evaluate)


def _train(config: TrainConfig, accelerator: Accelerator, resumed: int | None, evaluate: Evaluate | None) -> Path:
    parts = shares(config, accelerator)
    with accelerator.main_process_first():
        tokenizer = scene_tokenizer(config, Path(config.output) / "tokenizer.json")
    trainer, collate = scene_trainer(config, tokenizer), scene_collator(config, tokenizer)
    size_wh = trainer.model.config.image_size_wh

    def batches(first: int) -> Dataset:
        return SceneBatches(config, collate, size_wh, first, parts)

    def save(trainer: ScratchTrainer, folder: Path) -> None:
        tokenizer.save(folder / "tokenizer.json")
        save_checkpoint(trainer.folded_model(), folder, torch.float16)

    return fit(config, accelerator, resumed, trainer, batches, save, evaluate)


def scene_trainer(config: TrainConfig, tokenizer: Tokenizer) -> ScratchTrainer:
    """The network of a run, with random weights, and its loss."""
    network = FlorenceConfig.preset(config.preset)
    text = {**network.to_dict()["text"], "vocab_size": tokenizer.vocabulary.size}
    network = FlorenceConfig.from_dict({**network.to_dict(), "text": text})

    first_location = tokenizer.vocabulary.loc_first
    return ScratchTrainer(FlorenceModel(network), len(CELL_CLASSES), first_location, config.dense_weight)


def scene_collator(config: TrainConfig, tokenizer: Tokenizer) -> SceneCollator:
    """What makes the batches of a run."""
    network = FlorenceConfig.preset(config.preset)
    tasks = TaskCollator(
        Codec(tokenizer),
        Preprocessor(network.image_size_wh).pixels,
        config.tasks,
        network.grid_wh,
        network.bins,
        network.text.positions,
        negatives=config.negatives,
    )
    return SceneCollator(tasks, CELL_CLASSES)


def scene_tokenizer(config: TrainConfig, path: Path) -> Tokenizer:
    """The run's tokenizer, trained on the sentences of training scenes if it is not there yet."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        Tokenizer.train(scene_sentences(config), config.vocabulary).save(path)
    return Tokenizer.from_file(path)


def scene_sentences(config: TrainConfig) -> Iterator[str]:
    """Everything a model may have to say about training scenes but the text in them: it is spelled, and so learned
    character by character."""
    for card in task_cards():
        yield card.template.replace("{input}", "")
    for number in range(TOKENIZER_SCENES):
        _, truth = render_scene(TRAIN[-1 - number], config.styles, variety=config.variety)
        yield from (_QUOTED.sub('""', caption) for caption in truth.captions)
        yield from (words for item in truth.objects for words in (item.label, item.phrase))
        yield from (expression.phrase for expression in truth.expressions)
        written = " ".join(line.text for line in truth.lines)
        answers = (pair.answer for pair in truth.questions if pair.answer != written)
        yield from (*(pair.question for pair in truth.questions), *answers)
