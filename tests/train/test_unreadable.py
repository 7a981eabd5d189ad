"""Images that cannot be read, met while training: left out, in this run and in the resumed one, and reported once."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from florence_lite import cli
from florence_lite.data import read_dataset
from florence_lite.data.augment import Augmentation
from florence_lite.train.finetuning import finetune
from florence_lite.train.log import TrainingLog
from florence_lite.train.loop import start
from florence_lite.train.sources import MixedBatches, Source, epoch_order
from florence_lite.train.unreadable import UnreadableImages
from tests.tiny import noise_image
from tests.train.squares import settings, write_base, write_squares
from tests.train.stopped import Stopped
from tests.train.test_finetune import Collate, assert_same_weights


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def only_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_another_size(path: Path) -> None:
    Image.open(path).resize((20, 20)).save(path)


@pytest.fixture(scope="module")
def base(toy_tokenizer, tmp_path_factory) -> Path:
    return write_base(toy_tokenizer, "encoder", tmp_path_factory.mktemp("base"), dropout=0.1)


@pytest.fixture
def data(tmp_path) -> Path:
    """Six pictures, two of which cannot be read."""
    data = write_squares(tmp_path / "data")
    cut(data / "1.png")
    only_header(data / "4.png")
    return data


def logged(output: Path) -> list[dict]:
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "unreadable" in line]


def sources(data: Path) -> list[Source]:
    return [Source(read_dataset(data), Collate(), 1.0)]


def test_one_of_two_pictures_in_batches_of_one(base, tmp_path, capfd):
    """The command ends well, and says which picture is left out and why: once, not once a step."""
    labels = tmp_path / "data" / "labels"
    for name in ("images", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for name in ("good", "bad"):
        noise_image(0, (300, 200)).save(tmp_path / "data" / "images" / f"{name}.jpg", quality=100)
        (labels / f"{name}.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "data" / "data.yaml").write_text("train: images\nnames: [cat]\n")
    bad = tmp_path / "data" / "images" / "bad.jpg"
    bad.write_bytes(bad.read_bytes()[:-4000])
    config = tmp_path / "run.toml"
    config.write_text(
        f'output = "{tmp_path / "run"}"\ncheckpoint = "{base}"\nsteps = 3\nbatch = 1\nsave_every = 1\n'
        f'[[data]]\npath = "{tmp_path / "data"}"\n[data.tasks]\n"<OD>" = 1\n'
    )
    with pytest.raises(SystemExit) as ended:
        cli.app(["train", str(config)], prog_name="florence-lite")
    assert not ended.value.code
    err = " ".join(capfd.readouterr().err.split())
    assert err.count("bad.jpg is left out, another takes its place") == 1 and "damaged or cut short" in err
    (line,) = logged(tmp_path / "run")
    assert line["count"] == 1 and list(line["unreadable"]) == ["images/bad.jpg"]
    assert "Traceback" not in err


def test_the_resumed_run_leaves_them_out_too(base, data, tmp_path, capfd, monkeypatch):
    """It says so again, and comes to the weights of the run that was not stopped."""
    whole, part = (
        settings(base, data, tmp_path / name, steps=6, save_every=2, evaluate_every=3) for name in ("whole", "part")
    )
    finetune(whole)

    def stop(*arguments, **options):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr("florence_lite.train.finetuning.save_checkpoint", stop)
        with pytest.raises(Stopped):
            finetune(part)
    assert logged(tmp_path / "part")
    capfd.readouterr()
    finetune(part)
    err = " ".join(capfd.readouterr().err.split())
    assert [err.count(f"image {name} is left out") for name in ("1.png", "4.png")] == [1, 1]
    assert sorted(logged(tmp_path / "part")[-1]["unreadable"]) == ["1.png", "4.png"]
    assert_same_weights(*(tmp_path / name / "checkpoint" for name in ("whole", "part")))


def test_kept_features_leave_them_out_too(base, data, tmp_path):
    """The same others stand in, so that the weights are the same."""
    frozen = {"steps": 4, "freeze_vision": True, "precision": "fp32", "flips": 0.0}
    runs = {
        features: settings(base, data, tmp_path / features, features=features, **frozen)
        for features in ("computed", "memory", "disk")
    }
    folders = {features: finetune(run) for features, run in runs.items()}
    assert_same_weights(folders["memory"], folders["disk"])
    named = [{name for line in logged(Path(run.output)) for name in line["unreadable"]} for run in runs.values()]
    assert named == [{"1.png", "4.png"}] * 3


# ---- what is drawn


def test_the_next_of_the_epoch_stands_in(data):
    source, names = sources(data)[0], read_dataset(data).names
    readable = {n.annotation.objects[0].box: n.name for n in read_dataset(data) if n.name not in ("1.png", "4.png")}
    for number in range(12):
        epoch, place = divmod(number, 6)
        order = [names[i] for i in np.roll(epoch_order(6, 3, epoch), -place)]
        drawn = source.draw(number, np.random.default_rng(0), 3, Augmentation())
        wanted = next(name for name in order if name in readable.values())
        assert readable[drawn.annotation.objects[0].box] == wanted
        assert list(drawn.unreadable) == order[: order.index(wanted)]


@pytest.mark.parametrize("damage", [cut, empty, of_another_size, Path.unlink])
def test_whatever_is_wrong_with_them(data, damage):
    """What was read as an image of the data set before may be anything by now."""
    source = sources(data)[0]
    damage(data / "0.png")
    found = [source.draw(number, np.random.default_rng(0), 0, Augmentation()) for number in range(6)]
    assert {name for each in found for name in each.unreadable} == {"0.png", "1.png", "4.png"}


def test_chance_is_as_if_they_were_not_there(data):
    """The stand-in is changed as it would be in its own place."""
    source = sources(data)[0]
    changes = Augmentation(flips=0.5, crops=0.5)
    for number in range(6):
        drawn = source.draw(number, np.random.default_rng(number), 3, changes)
        sample = next(s for s in source.samples if s.annotation.size_wh and same_object(s, drawn, number, changes))
        assert sample.name not in drawn.unreadable


def same_object(sample, drawn, number, changes) -> bool:
    try:
        image, annotation = changes(sample.load(), sample.annotation, np.random.default_rng(number))
    except ValueError:
        return False
    return annotation == drawn.annotation and np.array_equal(np.asarray(image), np.asarray(drawn.image))


def test_whoever_shares_a_batch_passes_over_the_same(data):
    config = settings("base", data, "out", steps=5, batch=4, crops=0.5)

    class Named(Collate):
        def __call__(self, examples, rng, first):
            return Told(tuple(annotation for _, annotation in examples))

    def batches(*parts):
        found = MixedBatches(config, [Source(read_dataset(data), Named(), 1.0)], 0, parts)
        return [found[step] for step in range(5)]

    for whole, halves in zip(batches(range(4)), batches(range(2), range(2, 4)), strict=True):
        assert whole[0].annotations == halves[0].annotations + halves[1].annotations
        assert whole[0].unreadable == halves[0].unreadable | halves[1].unreadable


@dataclasses.dataclass(frozen=True)
class Told:
    """Stands in for a batch."""

    annotations: tuple
    unreadable: dict = dataclasses.field(default_factory=dict)


def test_a_data_set_of_which_nothing_can_be_read(base, tmp_path):
    data = write_squares(tmp_path / "data", images=2)
    cut(data / "0.png")
    cut(data / "1.png")
    with pytest.raises(ValueError, match=r"none of 2 images can be read; \d.png: .* is damaged or cut short"):
        finetune(settings(base, data, tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoint").exists()


# ---- what is told


def test_each_is_told_once(tmp_path, capfd):
    accelerator = start(settings(tmp_path, tmp_path, tmp_path / "run"))
    log = TrainingLog(tmp_path / "log.jsonl", accelerator)
    told = UnreadableImages(main=True)
    told.meet([Told((), {"a.png": "damaged"}), Told(())])
    told.meet([Told((), {"a.png": "damaged", "b.png": "gone"})])
    told.write(log, 2)
    told.meet([Told((), {"b.png": "gone"})])
    told.write(log, 4)
    assert capfd.readouterr().err.splitlines() == [
        "image a.png is left out, another takes its place: damaged",
        "image b.png is left out, another takes its place: gone",
    ]
    assert logged(tmp_path) == [{"step": 2, "count": 2, "unreadable": {"a.png": "damaged", "b.png": "gone"}}]


def test_the_main_process_tells_what_others_met(tmp_path, capfd, monkeypatch):
    """Once, also where several met the same."""
    log = TrainingLog(tmp_path / "log.jsonl", start(settings(tmp_path, tmp_path, tmp_path / "run")))
    main, other = UnreadableImages(main=True), UnreadableImages(main=False)
    main.meet([Told((), {"a.png": "damaged"})])
    other.meet([Told((), {"a.png": "damaged", "b.png": "gone"})])
    assert capfd.readouterr().err.count("left out") == 1
    met = [main._new, other._new]
    monkeypatch.setattr("florence_lite.train.unreadable.gather_object", lambda new: met)
    other.write(log, 2)
    assert capfd.readouterr().err == ""
    main.write(log, 2)
    assert capfd.readouterr().err == "image b.png is left out, another takes its place: gone\n"
    met[:] = [{}, {}]
    for each in (main, other):
        each.meet([Told((), {"a.png": "damaged", "b.png": "gone"})])
        each.write(log, 4)
    assert capfd.readouterr().err == ""
    assert [sorted(line["unreadable"]) for line in logged(tmp_path)] == [["a.png", "b.png"]] * 2  # one for each here
