"""Fine-tuning: a checkpoint and data of one's own in, a better checkpoint out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from accelerate import Accelerator
from torch.utils.data import Dataset

from florence_lite.checkpoint import (
    find_checkpoint,
    load_checkpoint,
    read_decoding,
    read_preprocessor,
    save_checkpoint,
    write_companions,
)
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.model import FlorenceModel
from florence_lite.tokens.codec import Codec
from florence_lite.tokens.tokenizer import Tokenizer
from florence_lite.train.collate import TaskCollator
from florence_lite.train.config import FineTuneConfig
from florence_lite.train.features import image_features
from florence_lite.train.loop import fit, shares, start
from florence_lite.train.lora import add_lora, save_adapter
from florence_lite.train.sources import Generator, MixedBatches, Source, read_source
from florence_lite.train.trainer import AnswerTrainer
from florence_lite.train.validation import Validation


def finetune(config: FineTuneConfig, generators: Mapping[str, Generator] | None = None) -> Path:
    """Train, or go on training, the run in `config.output`; returns the folder of the finished checkpoint.

    With `lora_rank` that folder holds an adapter, which `Florence.from_pretrained` merges into its base.

    generators: what draws samples instead of reading them, by the name that stands as the path of a data set; the
        command passes `{"scenes": florence_lite.scenes.Scenes}`.

    Raises what reading the checkpoint and the data raises, and ValueError for an answer that is too long for the
    network, before training begins; OSError where the disk is full.
    """
    validation = Validation.on(config.validation) if config.validation else None
    folder, _ = find_checkpoint(config.checkpoint)
    model, tokenizer = load_checkpoint(folder), Tokenizer.from_file(folder)
    network, decoding = model.config, read_decoding(folder)
    preprocessor = read_preprocessor(folder, network.image_size_wh)
    sources = read_sources(config, model, tokenizer, preprocessor, generators)
    accelerator = start(config)
    parts = shares(config, accelerator)
    for data, source in zip(config.data, sources, strict=True):
        for line in source.checked(config.flips if config.upright else 1.0):
            accelerator.print(f"data set {data.path}: {line}")

    adapter = None
    if config.lora_rank:
        adapter = add_lora(model, config.lora_rank, config.lora_targets, config.checkpoint)
    elif config.freeze_vision:
        for part in (model.vision, model.projector):
            part.requires_grad_(False)
    keep_features(config, sources, model, preprocessor, accelerator)
    trainer = AnswerTrainer(model, tokenizer.vocabulary.loc_first, tokenizer.vocabulary.pad)

    def batches(first: int) -> Dataset:
        return MixedBatches(config, sources, first, parts)

    def save(trainer: AnswerTrainer, folder: Path) -> None:
        if adapter is not None:
            save_adapter(adapter, folder)
            return
        write_companions(folder, tokenizer, preprocessor, network, decoding)
        save_checkpoint(trainer.model, folder, image_token_id=tokenizer.image_id)

    if validation is None:
        return fit(config, accelerator, trainer, batches, save)
    return fit(config, accelerator, trainer, batches, save, validation.metrics, validation.merit)


def read_sources(
    config: FineTuneConfig,
    model: FlorenceModel,
    tokenizer: Tokenizer,
    preprocessor: Preprocessor,
    generators: Mapping[str, Generator] | None = None,
) -> list[Source]:
    """The data sets of a run with their collators."""
    network = model.config
    sources = []
    for data in config.data:
        collate = TaskCollator(
            Codec(tokenizer),
            preprocessor,
            data.tasks,
            network.grid_wh,
            network.bins,
            network.text.positions,
            network.prompt_side,
            data.shorten,
        )
        sources.append(
            Source(read_source(data, network.image_size_wh, generators or {}), collate, data.weight, data.language)
        )
    return sources


def keep_features(
    config: FineTuneConfig,
    sources: list[Source],
    model: FlorenceModel,
    preprocessor: Preprocessor,
    accelerator: Accelerator,
) -> None:
    """Have the features of all data sets computed, if the run keeps them; those of generated samples never end."""
    if config.features == "computed":
        return
    for number, source in enumerate(sources):
        if not source.endless:
            folder = Path(config.output) / "features" / str(number) if config.features == "disk" else None
            mirrored = source.mirrored() if config.flips else None
            source.features = image_features(model, preprocessor, source.samples, mirrored, accelerator, folder)
