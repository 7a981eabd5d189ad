"""The training module: its loss is the mean over answer tokens, and it can be learned."""

import numpy as np
import pytest
import torch

from florence_lite.data.annotation import Annotation
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.model import FlorenceModel
from florence_lite.scenes.cells import TEXT_CLASS, SceneCollator
from florence_lite.scenes.trainer import ScratchTrainer
from florence_lite.tokens import Codec
from florence_lite.train.collate import IGNORED, TaskCollator
from florence_lite.train.losses import neighbour_weights, token_losses
from tests.data.annotated import ANNOTATED, SIZE
from tests.tiny import noise_image, tiny_config

CLASSES = ("dog", "door", TEXT_CLASS)
SIGMA = 3.0
RATES = {"<OD>": 1, "<CAPTION>": 2, "<OPEN_VOCABULARY_DETECTION>": 1}


@pytest.fixture
def config(toy_tokenizer):
    return tiny_config("decoder", toy_tokenizer.vocabulary.size)


@pytest.fixture
def trainer(toy_tokenizer, config):
    torch.manual_seed(0)
    return ScratchTrainer(FlorenceModel(config), len(CLASSES), toy_tokenizer.vocabulary.loc_first, dense_weight=0.5)


def make_batch(tokenizer, config, annotations=(ANNOTATED, ANNOTATED), rates=RATES):
    tasks = TaskCollator(Codec(tokenizer), Preprocessor(config.image_size_wh), rates, config.grid_wh)
    pairs = [(noise_image(seed, SIZE), annotation) for seed, annotation in enumerate(annotations)]
    return SceneCollator(tasks, CLASSES)(pairs, np.random.default_rng(0))


def test_loss(trainer, toy_tokenizer, config):
    """Recomputed row by row on the folded model."""
    batch = make_batch(toy_tokenizer, config)
    loss, metrics = trainer.eval()(batch, SIGMA)
    model = trainer.folded_model()
    weights = neighbour_weights(config.bins, SIGMA)
    by_task: dict[str, list[torch.Tensor]] = {}
    for group in batch.groups:
        for image in range(2):
            states, _ = model.encode(model.encode_image(batch.pixel_values[image : image + 1]))
            for column, name in enumerate(group.tasks):
                labels = group.labels[image, column]
                hidden = model.decode(group.input_ids[image, column][None], model.cross_cache(states))[0]
                kept = labels != IGNORED
                losses = token_losses(
                    model.logits(hidden)[kept], labels[kept], toy_tokenizer.vocabulary.loc_first, weights
                )
                by_task.setdefault(name, []).append(losses)
    means = {name: torch.cat(parts).mean().item() for name, parts in by_task.items()}
    assert {name: metrics[name].mean().item() for name in RATES} == pytest.approx(means, rel=1e-4)
    everything = torch.cat([torch.cat(parts) for parts in by_task.values()])
    dense = metrics["dense/class"] + metrics["dense/box"]
    assert loss.item() == pytest.approx((everything.mean() + 0.5 * dense).item(), rel=1e-4)
    assert set(metrics) == {*RATES, "dense/class", "dense/box"}


def test_prompts_and_padding_carry_no_loss(trainer, toy_tokenizer, config):
    """What stands where labels are ignored behind the answer changes nothing."""
    batch = make_batch(toy_tokenizer, config)
    before, _ = trainer.eval()(batch, SIGMA)
    for group in batch.groups:
        padding = (group.labels == IGNORED) & (group.input_ids == toy_tokenizer.vocabulary.pad)
        assert padding.any() or len(group.tasks) == 1
        group.input_ids[padding] = 7
    after, _ = trainer(batch, SIGMA)
    assert after.item() == pytest.approx(before.item(), rel=1e-6)  # the cells of the box loss come in random order


def test_images_without_an_answer(trainer, toy_tokenizer, config):
    """Of a task that one image tells nothing about, the other still counts; a batch may even ask nothing at all."""
    batch = make_batch(toy_tokenizer, config, (Annotation(SIZE), ANNOTATED))
    loss, metrics = trainer(batch, SIGMA)
    assert loss.isfinite() and metrics["<CAPTION>"].isfinite().all()
    batch = make_batch(toy_tokenizer, config, (Annotation(SIZE),) * 2, {"<CAPTION>": 1})
    loss, metrics = trainer(batch, SIGMA)
    assert set(metrics) == {"dense/class", "dense/box"}
    assert loss.item() == pytest.approx(0.5 * metrics["dense/class"].item())
    loss.backward()


def test_every_parameter_is_trained(trainer, toy_tokenizer, config):
    loss, _ = trainer(make_batch(toy_tokenizer, config), SIGMA)
    loss.backward()
    for name, parameter in trainer.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0 or name.endswith("k_proj.bias"), name


def test_one_batch_can_be_learned(trainer, toy_tokenizer, config):
    batch = make_batch(toy_tokenizer, config)
    optimizer = torch.optim.AdamW(trainer.parameters(), lr=5e-3)
    losses = []
    for _ in range(20):
        loss, metrics = trainer(batch, SIGMA)
        losses.append({name: value.mean().item() for name, value in metrics.items()} | {"loss": loss.item()})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1]["loss"] < 0.7 * losses[0]["loss"]
    assert all(losses[-1][name] < losses[0][name] for name in losses[0])
