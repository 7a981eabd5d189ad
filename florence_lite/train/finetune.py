"""Fine-tuning: a checkpoint and data of one's own in, a better checkpoint out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.utils import set_seed
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from florence_lite.checkpoint import (
    find_checkpoint,
    load_checkpoint,
    read_decoding,
    read_preprocessor,
    save_checkpoint,
    write_companions,
)
from florence_lite.data.annotation import Annotation
from florence_lite.data.augment import can_mirror, mirror
from florence_lite.data.collate import Batch, TaskCollator
from florence_lite.data.samples import Sample, read_dataset
from florence_lite.data.scenes import Scenes
from florence_lite.model import FlorenceModel
from florence_lite.tokens.codec import Codec
from florence_lite.tokens.tokenizer import Tokenizer
from florence_lite.train.config import DataConfig, FineTuneConfig
from florence_lite.train.loop import Evaluate, fit
from florence_lite.train.trainer import AnswerTrainer

SCENES = "scenes"  # as the path of a data set: generated scenes
LORA_TARGETS = r"(encoder|decoder)\.layers\.\d+\.(attention|cross_attention)\.(q_proj|v_proj)"


def finetune(config: FineTuneConfig, evaluate: Evaluate | None = None) -> Path:
    """Train, or go on training, the run in `config.output`; returns the folder of the finished checkpoint.

    With `lora_rank` that folder holds an adapter, which `Florence.from_pretrained` merges into its base.
    evaluate: called at intervals and at the end with the checkpoint folder; its figures are logged.

    Raises what reading the checkpoint and the data raises, and ValueError for an answer that is too long for the
    network, before training begins.
    """
    accelerator = Accelerator(mixed_precision="bf16")
    set_seed(config.seed)
    folder, _ = find_checkpoint(config.checkpoint)
    model, tokenizer = load_checkpoint(folder), Tokenizer.from_file(folder)
    network, decoding = model.config, read_decoding(folder)
    preprocessor = read_preprocessor(folder, network.image_size_wh)

    def collator(data: DataConfig) -> TaskCollator:
        return TaskCollator(
            Codec(tokenizer),
            preprocessor,
            data.tasks,
            (),
            network.grid_wh,
            network.bins,
            network.text.positions,
            network.prompt_side,
        )

    sources = [Source(read_source(data, network.image_size_wh), collator(data), data.weight) for data in config.data]
    for source in sources:
        source.check_lengths()
    trainer = AnswerTrainer(model, tokenizer.vocabulary.loc_first, tokenizer.vocabulary.pad)
    adapter = None
    if config.lora_rank:
        adapter = add_lora(model, config)
    elif config.freeze_vision:
        for part in (model.vision, model.projector):
            part.requires_grad_(False)

    def batches(first: int) -> Dataset:
        return MixedBatches(config, sources, first)

    def save(trainer: AnswerTrainer, folder: Path) -> None:
        if adapter is not None:
            save_adapter(adapter, folder)
            return
        write_companions(folder, tokenizer, preprocessor, network, decoding)
        save_checkpoint(trainer.model, folder, image_token_id=tokenizer.image_id)

    return fit(config, accelerator, trainer, batches, save, evaluate)


def read_source(data: DataConfig, size_wh: tuple[int, int]) -> Sequence:
    """The samples of a data set."""
    if data.path == SCENES:
        return GeneratedSamples(Scenes(data.split or "train", size_wh=size_wh))
    dataset = read_dataset(data.path, data.format, data.split)
    if not len(dataset):
        raise ValueError(f"data set {data.path!r} has no images{f' in split {data.split!r}' if data.split else ''}")
    return dataset


class GeneratedSamples(Sequence):
    """Generated scenes as samples."""

    def __init__(self, scenes: Scenes):
        self.scenes = scenes

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        scene = self.scenes[index]
        return Sample(scene["image"], scene["annotation"], f"scene {scene['seed']}")


class Source:
    """Samples, what is asked about them, and how often."""

    def __init__(self, samples: Sequence, collate: TaskCollator, weight: float):
        self.samples, self.collate, self.weight = samples, collate, weight

    def check_lengths(self) -> None:
        """ValueError for the first answer that the network cannot write; generated scenes are known to be short."""
        if isinstance(self.samples, GeneratedSamples):
            return
        everything = {task: 1.0 for task in self.collate.rates}
        for annotation, name in zip(self.samples.annotations, self.samples.names, strict=True):
            try:
                self.collate.rows(everything, [annotation], np.random.default_rng(0))
            except ValueError as error:
                raise ValueError(f"image {name}: {error}") from None

    def draw(self, number: int, rng: np.random.Generator, seed: int, flips: float) -> tuple[Image.Image, Annotation]:
        """Sample `number` of an endless order in which every epoch has each sample once, mirrored by chance."""
        epoch, place = divmod(number, len(self.samples))
        if not isinstance(self.samples, GeneratedSamples):  # those differ by chance already, in any order
            place = int(epoch_order(len(self.samples), seed, epoch)[place])
        sample = self.samples[place]
        image, annotation = sample.load(), sample.annotation
        if rng.random() < flips and can_mirror(annotation):
            return mirror(image, annotation)
        return image, annotation


@lru_cache(maxsize=4)
def epoch_order(length: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch's samples, int64 [length]."""
    return np.random.default_rng([seed, epoch]).permutation(length)


class MixedBatches(Dataset):
    """Batch number i of a run: always the same samples and rows, whichever process draws it. A batch comes from one
    source, so that its images are asked the same tasks."""

    def __init__(self, config: FineTuneConfig, sources: Sequence[Source], first: int):
        self.config, self.sources, self.first = config, sources, first
        weights = np.array([source.weight for source in sources], dtype=float)
        chosen = np.random.default_rng([config.seed, 0]).choice(len(sources), config.steps, p=weights / weights.sum())
        counts = [count() for _ in sources]
        self.plan = [(int(source), next(counts[source])) for source in chosen]  # (source, batches of it before)

    def __len__(self) -> int:
        return self.config.steps - self.first

    def __getitem__(self, index: int) -> Batch:
        step = self.first + index
        number, before = self.plan[step]
        source, rng = self.sources[number], np.random.default_rng([self.config.seed, 1, step])
        start = before * self.config.batch
        numbers = range(start, start + self.config.batch)
        pairs = [source.draw(number, rng, self.config.seed, self.config.flips) for number in numbers]
        return source.collate(pairs, rng)


def add_lora(model: FlorenceModel, config: FineTuneConfig) -> nn.Module:
    """Put adapters into `model`, all else frozen; returns peft's view of it."""
    from peft import LoraConfig, PeftModel

    lora = LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules=LORA_TARGETS)
    lora.base_model_name_or_path = config.checkpoint
    return PeftModel(model, lora)


def save_adapter(adapter: nn.Module, folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`."""
    adapter.save_pretrained(str(folder), save_embedding_layers=False)
