"""The training module: its loss is the mean over answer tokens, and it can be learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from florence_lite.data.annotation import Annotation
from florence_lite.inference.preprocessing import Preprocessor
from florence_lite.model import FlorenceModel
from florence_lite.scenes.cells import TEXT_CLASS, SceneCollator
from florence_lite.scenes.trainer import ScratchTrainer
from florence_lite.tokens import Codec
from florence_lite.train.collate import TaskCollator
from florence_lite.train.config import RunConfig
from florence_lite.train.lanes import IGNORED
from florence_lite.train.log import RunningMeans
from florence_lite.train.loop import gradients, start
from florence_lite.train.losses import neighbour_weights, token_losses
from tests.data.annotated import ANNOTATED, SIZE
from tests.tiny import noise_image, tiny_config
from tests.train.unpacked import unpacked

DENSE = ("dense/object", "dense/background", "dense/box")
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


def make_parts(tokenizer, config, annotations, rates, parts):
    tasks = TaskCollator(Codec(tokenizer), Preprocessor(config.image_size_wh).pixels, rates, config.grid_wh)
    pairs = [(noise_image(seed, SIZE), annotation) for seed, annotation in enumerate(annotations)]
    collate = SceneCollator(tasks, CLASSES)
    return [collate(pairs[part.start : part.stop], np.random.default_rng(0), part.start) for part in parts]


def make_batch(tokenizer, config, annotations=(ANNOTATED, ANNOTATED), rates=RATES):
    return make_parts(tokenizer, config, annotations, rates, [range(len(annotations))])[0]


def test_loss(trainer, toy_tokenizer, config):
    """Recomputed row by row on the folded model."""
    rates = RATES | {"<VQA>": 3}
    batch = make_batch(toy_tokenizer, config, rates=rates)
    loss, metrics = trainer.eval()(batch, SIGMA)
    model = trainer.folded_model()
    weights = neighbour_weights(config.bins, SIGMA)
    pixel_values = Preprocessor(config.image_size_wh)([noise_image(seed, SIZE) for seed in range(2)])
    by_task: dict[str, list[torch.Tensor]] = {}
    caches = [model.cross_cache(model.encode(model.encode_image(each[None]))[0]) for each in pixel_values]
    rows = list(unpacked(batch))
    assert 2 * batch.groups[0].labels.shape[1] < len(rows)  # several in a lane
    for name, image, input_ids, row_labels in rows:
        labels = torch.tensor(row_labels)
        hidden = model.decode(torch.tensor(input_ids)[None], caches[image])[0]
        kept = labels != IGNORED
        losses = token_losses(model.logits(hidden)[kept], labels[kept], toy_tokenizer.vocabulary.loc_first, weights)
        by_task.setdefault(name, []).append(losses)
    means = {name: torch.cat(parts).mean().item() for name, parts in by_task.items()}
    assert {name: metrics[name].mean().item() for name in rates} == pytest.approx(means, rel=1e-4)
    everything = torch.cat([torch.cat(parts) for parts in by_task.values()])
    dense = sum(metrics[name].mean() for name in DENSE)
    assert loss.item() == pytest.approx((everything.mean() + 0.5 * dense).item(), rel=1e-4)
    assert set(metrics) == {*rates, *DENSE}


UNEQUAL = (  # of more and fewer words and objects; one part of two has no object, one of four has no word
    ANNOTATED,
    replace(ANNOTATED, objects=ANNOTATED.objects[:1], expressions=(), captions=("a dog",)),
    Annotation(SIZE, captions=("nothing but the grey sky over a grey sea",)),
    Annotation(SIZE, exhaustive=frozenset()),
)


@pytest.mark.parametrize("dense_weight", [0.5, 30.0])
def test_parts_of_a_batch_make_its_loss(trainer, toy_tokenizer, config, tmp_path, dense_weight):
    """Loss and gradients are those of the whole, however it is divided; so are the logged means."""
    trainer.eval().dense_weight = dense_weight
    accelerator = start(RunConfig(str(tmp_path), precision="fp32"))

    def run(size: int):
        parts = make_parts(toy_tokenizer, config, UNEQUAL, RATES, [range(n, n + size) for n in range(0, 4, size)])
        trainer.zero_grad()
        loss, metrics = gradients(accelerator, trainer, parts, SIGMA)
        means = RunningMeans()
        for each in metrics:
            means.add(each)
        return loss, means.take(), {name: p.grad.clone() for name, p in trainer.named_parameters()}, parts

    loss, means, whole, _ = run(4)
    for size in (2, 1):
        again, means_again, found, parts = run(size)
        assert len({part.tokens for part in parts}) > 1
        assert again.item() == pytest.approx(loss.item(), rel=1e-6) and means_again == pytest.approx(means, abs=2e-4)
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, whole[name], rtol=1e-4, atol=1e-6 * dense_weight)


def test_prompts_and_padding_carry_no_loss(trainer, toy_tokenizer, config):
    """What stands where labels are ignored behind the answer changes nothing."""
    batch = make_batch(toy_tokenizer, config)
    before, _ = trainer.eval()(batch, SIGMA)
    for group in batch.groups:
        padding = (group.labels == IGNORED) & (group.input_ids == toy_tokenizer.vocabulary.pad)
        assert padding.any()
        group.input_ids[padding] = 7
    after, _ = trainer(batch, SIGMA)
    assert after.item() == pytest.approx(before.item(), rel=1e-6)


def test_images_without_an_answer(trainer, toy_tokenizer, config):
    """Of a task that one image tells nothing about, the other still counts; a batch may even ask nothing at all."""
    batch = make_batch(toy_tokenizer, config, (Annotation(SIZE), ANNOTATED))
    loss, metrics = trainer(batch, SIGMA)
    assert loss.isfinite() and metrics["<CAPTION>"].isfinite().all()
    batch = make_batch(toy_tokenizer, config, (Annotation(SIZE),) * 2, {"<CAPTION>": 1})
    loss, metrics = trainer(batch, SIGMA)
    assert set(metrics) == set(DENSE) and not len(metrics["dense/object"]) and not len(metrics["dense/box"])
    assert loss.item() == pytest.approx(0.5 * metrics["dense/background"].mean().item())
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
