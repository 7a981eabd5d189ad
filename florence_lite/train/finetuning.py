"""Fine-tuning: a checkpoint and data of one's own in, a better checkpoint out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils import data as torch_data

from florence_lite.checkpoint import Pretrained, load_pretrained, save_checkpoint, write_companions
from florence_lite.data.samples import Dataset
from florence_lite.evaluate.negatives import Negatives
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.model import FlorenceModel
from florence_lite.rules import NEGATIVES
from florence_lite.tokens.codec import Codec
from florence_lite.tokens.tokenizer import Tokenizer
from florence_lite.train.collate import TaskCollator
from florence_lite.train.config import FineTuneConfig
from florence_lite.train.features import image_features
from florence_lite.train.folders import checkpoint_problem, replace_folder
from florence_lite.train.log import tell
from florence_lite.train.loop import fit, shares, start
from florence_lite.train.lora import add_lora, save_adapter
from florence_lite.train.record import checkpoint_content, data_content, on_main, run_folder
from florence_lite.train.sources import Generator, MixedBatches, Source, read_source
from florence_lite.train.trainer import AnswerTrainer
from florence_lite.train.validation import Validation


def finetune(
    config: FineTuneConfig,
    generators: Mapping[str, Generator] | None = None,
    continue_with_changes: bool = False,
) -> Path:
    """Train, or go on training, the run in `config.output`; returns the folder to go on with: `best` where the run is
    validated, else `checkpoint`, the last.

    With `lora_rank` that folder holds an adapter, which `Florence.from_pretrained` merges into its base.

    generators: what draws samples instead of reading them, by the name that stands as the path of a data set; the
        command passes `florence_lite.scenes.GENERATORS`.
    continue_with_changes: go on with a run whose data or settings have changed since it was started; without it such a
        run is refused.

    Raises what reading the checkpoint and the data raises, and ValueError, before training begins, for an answer that
    is too long for the network, for data that teach nothing of what is asked, for a run folder that another run works
    in, that holds another run, or whose state is damaged; OSError where the disk is full.
    """
    validation = Validation.on(config.validation) if config.validation else None
    loaded = load_pretrained(config.checkpoint, torch.float32)
    sources = read_sources(config, loaded.model, loaded.tokenizer, loaded.preprocessor, generators)
    accelerator = start(config)
    parts = shares(config, accelerator)
    for line in (*told(config, sources), *(validation.told() if validation else ())):
        if accelerator.is_main_process:
            tell(line)
    fingerprints = partial(contents, config, loaded, sources, validation)
    with run_folder(config, accelerator, fingerprints, continue_with_changes) as resumed:
        return _train(config, accelerator, resumed, loaded, sources, parts, validation)


def _train(
    config: FineTuneConfig,
    accelerator: Accelerator,
    resumed: int | None,
    loaded: Pretrained,
    sources: list[Source],
    parts: Sequence[range],
    validation: Validation | None,
) -> Path:
    model, adapter = loaded.model, None
    if config.lora_rank:
        base = on_main(accelerator, lambda: adapter_base(config, loaded))
        adapter = add_lora(model, config.lora_rank, config.lora_targets, base)
    elif config.freeze_vision:
        for part in (model.vision, model.projector):
            part.requires_grad_(False)
    keep_features(config, sources, model, loaded.preprocessor, accelerator)
    trainer = AnswerTrainer(model, loaded.tokenizer.vocabulary.loc_first, loaded.tokenizer.vocabulary.pad)

    def batches(first: int) -> torch_data.Dataset:
        return MixedBatches(config, sources, first, parts)

    def save(trainer: AnswerTrainer, folder: Path) -> None:
        if adapter is not None:
            save_adapter(adapter, folder)
        else:
            save_whole(trainer.model, loaded, folder)

    if validation is None:
        return fit(config, accelerator, resumed, trainer, batches, save)
    return fit(
        config, accelerator, resumed, trainer, batches, save, validation.metrics, validation.merit, validation.decisive
    )


def save_whole(model: FlorenceModel, loaded: Pretrained, folder: Path) -> None:
    """Write a network with all else that the checkpoint which it was trained from had."""
    decoding = {"forced_bos": loaded.tokenizer.vocabulary.bos} | loaded.decoding  # every target begins with it
    write_companions(folder, loaded.tokenizer, loaded.preprocessor, model.config, decoding)
    save_checkpoint(model, folder, image_token_id=loaded.tokenizer.image_id)


def adapter_base(config: FineTuneConfig, loaded: Pretrained) -> str:
    """What an adapter of this run will name as its base: the checkpoint, a folder by its full path.

    An adapter names one base. Where the checkpoint is itself an adapter on another, the sum of both is kept in the
    run's folder `base`, and is the base.
    """
    if not loaded.adapters:
        folder, is_embedded = Path(config.checkpoint), loaded.card is not None and loaded.card.source == "embedded"
        return str(folder.resolve()) if folder.is_dir() and not is_embedded else config.checkpoint
    folder = Path(config.output) / "base"
    if checkpoint_problem(folder):
        replace_folder(folder, partial(save_whole, loaded.model, loaded))
    return str(folder.resolve())


def told(config: FineTuneConfig, sources: Sequence[Source]) -> Iterator[str]:
    """What a run is trained on and what is left out of it, as lines for people. Raises as `Source.checked`."""
    for data, source in zip(config.data, sources, strict=True):
        name = f"data set {data.path}{f' ({data.split})' if data.split else ''}"
        yield from (f"{name}: {line}" for line in source.checked(config.flips if config.upright else 1.0))


def contents(
    config: FineTuneConfig, loaded: Pretrained, sources: Sequence[Source], validation: Validation | None
) -> dict[str, str | list[str] | None]:
    """Fingerprints of what the configuration names, for `run_folder`."""
    data = [
        data_content(source.samples, f"{each.path} {each.split}")
        for each, source in zip(config.data, sources, strict=True)
    ]
    measured = data_content(validation.samples, config.validation.path) if validation else None
    return {"checkpoint": checkpoint_content(loaded), "data": data, "validation": measured}


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
            NEGATIVES if data.negatives is None else data.negatives,
        )
        samples = read_source(data, network.image_size_wh, generators or {})
        negatives = Negatives.of(samples) if data.negatives and isinstance(samples, Dataset) else None
        sources.append(Source(samples, collate, data.weight, data.language, negatives))
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
