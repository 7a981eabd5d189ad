"""The report on a checkpoint: metrics, counts, what was left out, and the command that prints it."""

import dataclasses
import json
import sys

import pytest
from PIL import Image

from florence_lite import Florence, cli
from florence_lite.answers import Instance
from florence_lite.cards import TaskCard, task, tasks
from florence_lite.data import read_dataset
from florence_lite.data.annotation import Annotation, ObjectAnnotation, Question, ReferringExpression
from florence_lite.data.samples import Dataset, Sample
from florence_lite.evaluate import metrics
from florence_lite.evaluate.metrics import METRICS, metrics_of
from florence_lite.evaluate.report import Report, evaluate
from florence_lite.inference import Prompt
from florence_lite.results import Result
from florence_lite.rules import pairs, tasks_with_rules
from tests.data.annotated import ANNOTATED, SIZE
from tests.evaluate.given import Named, samples
from tests.tiny import noise_image, tiny_florence

QUESTIONS = tasks_with_rules()

NEEDED = ("faster_coco_eval", "shapely", "pycocoevalcap.cider.cider", "sacrebleu", "jiwer")
MODEST = ["<VQA>", "<REGION_TO_CATEGORY>", "<OPEN_VOCABULARY_DETECTION>"]  # tasks with a metric that needs no extra


@pytest.fixture
def only_own(monkeypatch):
    """Task cards whose metrics need no extra."""

    def own(card):
        return {name: METRICS[name] for name in card.metrics if not METRICS[name].needs}

    monkeypatch.setattr("florence_lite.evaluate.report.metrics_of", own)


# Of truth for an answer: errors; one box for several objects; a description of two words, without three in a row; two
# sentences that say "an animal" and "a cat" of one more label.
NONE = (0, 0)
EXPECTED = {"cer": NONE, "wer": NONE, "ar1": (0.5, 1), "cider": (8.7, 10), "ece": NONE, "presence_fpr95": NONE}
EXPECTED |= {"object_recall": (2 / 3, 1), "object_f1": (0.8, 1)}


class Oracle:
    """Stands in for `Florence`: answers every prompt with its truth, nothing, or a fault."""

    def __init__(self, samples, silent=False, refuses=None, **faults):
        self.truths = {sample.name: sample.annotation for sample in samples}
        self.silent, self.refuses, self.faults = silent, refuses, faults
        self.calls, self.tiles = [], []

    def encode(self, pictures, keep_image):
        return [picture.info["name"] for picture in pictures]

    def run(self, scenes, prompts, keep_image, tile=None):
        self.tiles.append(tile)
        if tile:  # one picture, which is encoded tile by tile
            scenes = self.encode([scenes] * len(prompts), keep_image)
        self.calls.append(len(scenes))
        return [self.answer(*pair) for pair in zip(scenes, prompts, strict=True)]

    def answer(self, scene, prompt):
        if self.refuses and self.refuses in (prompt.text, "everything"):
            raise ValueError(f"the prompt of task {prompt.task} has 999 tokens")
        annotation = self.truths[scene]
        asked = {repr(Prompt(prompt.task, **pair.inputs)): pair for pair in pairs(prompt.task, annotation)}
        truth = asked[repr(prompt)]
        answer = {} if self.silent else {"text": "".join(truth.texts[:1]), "instances": truth.instances}
        presence = {phrase: float(bool(truth.instances)) for phrase in prompt.phrases or ()}
        return Result(prompt.task, annotation.size_wh, **answer, presence=presence, **self.faults)


OTHER = Annotation(
    SIZE,
    (ObjectAnnotation("a cat with a very long tail", (10, 10, 50, 50), (((10, 10), (50, 10), (50, 50)),), "the cat"),),
    captions=("a cat with a very long tail on a green sofa", "an animal that sleeps on a sofa", "A cat sleeps here."),
    expressions=(ReferringExpression("the only cat here", (0,)),),
    questions=(Question("is it asleep?", "yes"),),
)


def test_truth_gets_full_marks_for_every_task():
    for module in NEEDED:
        pytest.importorskip(module, reason="the extra eval is not installed")
    data = samples(ANNOTATED, OTHER)
    report = evaluate(Oracle(data), data, list(QUESTIONS))
    assert list(report.metrics) == list(QUESTIONS)
    for name, values in report.metrics.items():
        for metric, value in values.items():
            if metric.endswith(("_random", "_changed", "abs_ap")):  # the kind of the absent phrases is not known
                assert value is None
                continue
            least, most = EXPECTED.get(metric, (0.999, 1))
            assert least <= value <= most + 1e-9, (name, metric)
    assert report.images == 2 and report.problems == ()
    assert report.answers["<OD>"] == 2 and report.answers["<VQA>"] == 3
    silent = evaluate(Oracle(data, silent=True), data, list(QUESTIONS))
    assert silent.metrics["<OD>"]["ap"] == silent.metrics["<CAPTION>"]["bleu1"] == 0
    assert silent.metrics["<OCR>"]["cer"] == silent.metrics["<OPEN_VOCABULARY_DETECTION>"]["absent_rejected"] == 1


def test_faults_are_counted_beside_the_metrics(only_own):
    data = samples(ANNOTATED, OTHER)
    report = evaluate(Oracle(data, parse_errors=2, truncated=True), data, MODEST)
    assert report.answers == {"<VQA>": 3, "<REGION_TO_CATEGORY>": 4, "<OPEN_VOCABULARY_DETECTION>": 5}
    assert report.parse_errors == {name: 2 * count for name, count in report.answers.items()}
    assert report.truncated == report.answers
    row = next(line for line in str(report).splitlines() if "vqa_accuracy" in line)
    assert row.split() == ["<VQA>", "vqa_accuracy", "1.0000", "3", "6", "3"]


def test_intervals_of_answers_that_are_sometimes_wrong(only_own):
    """About every third image the one question is answered wrongly; of few images no interval can be told."""
    wrong = dataclasses.replace(OTHER, questions=(Question("is it asleep?", "no"),))
    data = samples(*[OTHER] * 160)
    oracle = Oracle(data)
    oracle.truths |= {sample.name: wrong for sample in data[::3]}
    report = evaluate(oracle, data, ["<VQA>"], with_margins=True)
    assert report.metrics["<VQA>"]["vqa_accuracy"] == pytest.approx(106 / 160)
    assert 0 < report.margins["<VQA>"]["vqa_accuracy"] < 0.2
    assert f"0.6625 ± {report.margins['<VQA>']['vqa_accuracy']:.4f}" in str(report) and not report.notes
    few = evaluate(Oracle(data), data, ["<VQA>"], count=9, with_margins=True)
    assert few.margins == {"<VQA>": {}} and few.notes == ("intervals need at least 160 images",)


def test_images_that_cannot_be_read_are_left_out_and_told(only_own, tmp_path):
    (tmp_path / "broken.png").write_text("no image", encoding="utf-8")
    data = [
        *samples(ANNOTATED),
        Named(tmp_path / "broken.png", ANNOTATED, "broken.png"),
        Named(tmp_path / "missing.png", ANNOTATED, "missing.png"),
        Named(Image.new("RGB", (5, 5)), ANNOTATED, "small"),
    ]
    report = evaluate(Oracle(data), data, ["<VQA>"])
    assert (report.images, report.answers) == (1, {"<VQA>": 2})
    assert [problem.record for problem in report.problems] == ["broken.png", "missing.png", "small"]
    text = str(report)
    assert "left out: image left out: 3" in text
    assert "missing.png does not exist" in text


def test_prompts_that_cannot_be_asked_are_told(only_own):
    marked = dataclasses.replace(ANNOTATED, questions=(Question("salt<and>pepper?", "yes"), *ANNOTATED.questions))
    data = samples(marked, OTHER)
    report = evaluate(Oracle(data), data, ["<VQA>"])
    assert report.answers == evaluate(Oracle(data), samples(ANNOTATED, OTHER), ["<VQA>"]).answers
    (problem,) = report.problems
    assert (problem.record, problem.kind) == ("image 0", "prompt of <VQA> left out")
    assert "'salt<and>pepper?' holds <and>" in problem.what


def test_one_refused_prompt_loses_no_other(only_own):
    data = samples(ANNOTATED, OTHER)
    report = evaluate(Oracle(data, refuses="is it asleep?"), data, ["<VQA>"])
    assert report.answers == {"<VQA>": 2}
    (problem,) = report.problems
    assert (problem.record, problem.kind) == ("image 1", "prompt of <VQA> left out")
    assert "999 tokens" in problem.what
    report = evaluate(Oracle(data, refuses="everything"), data, ["<VQA>"])
    assert report.metrics == {"<VQA>": {"vqa_accuracy": None}} and len(report.problems) == 3


def test_images_in_tiles(only_own):
    data = samples(ANNOTATED, OTHER)
    oracle = Oracle(data)
    tasks = ["<REGION_PROPOSAL>", "<OPEN_VOCABULARY_DETECTION>"]
    report = evaluate(oracle, data, tasks, tile=(30, 10))
    assert set(oracle.tiles) == {(30, 10)} and report == evaluate(Oracle(data), data, tasks)
    assert len(oracle.calls) == 4 and max(oracle.calls) > 1  # one for each image and task
    for tile, name, fault in (
        ((30, 40), "<REGION_PROPOSAL>", "overlap must be smaller"),
        ((30, 10), "<CAPTION>", "no list of places"),
    ):
        with pytest.raises(ValueError, match=fault):
            evaluate(None, data, [name], tile=tile)


def test_nothing_to_measure(only_own):
    data = samples(Annotation(SIZE))
    report = evaluate(Oracle(data), data, MODEST)
    assert {value for metrics in report.metrics.values() for value in metrics.values()} == {None}
    assert report.notes[0] == "<VQA>: the data set holds nothing that this task could be measured by"
    row = next(line for line in str(report).splitlines() if "vqa_accuracy" in line)
    assert row.split() == ["<VQA>", "vqa_accuracy", "–", "0", "0", "0"]


def test_count_batches_and_order(only_own):
    data = samples(*[ANNOTATED] * 11)
    oracle = Oracle(data)
    report = evaluate(oracle, data, ["<VQA>", "<VQA>"], count=10)
    assert (report.images, report.answers) == (10, {"<VQA>": 20})
    assert oracle.calls == [8, 8, 4]
    assert evaluate(oracle, data, ["<VQA>"], count=99).images == 11


@pytest.mark.parametrize(
    "tasks, count, fault",
    [
        ([], None, r'tasks is \[\]; it must be a list of task markers, such as \["<OD>"\]'),
        ("<OD>", None, "tasks is '<OD>'; it must be a list"),
        (["<VQA>"], 0, "count is 0; at least one image is needed"),
        (["<VAQ>"], None, "unknown task '<VAQ>'; did you mean '<VQA>'"),
        (["what is this?"], None, "task what is this\\? cannot be measured: its card names no metrics"),
    ],
)
def test_mistakes(tasks, count, fault):
    with pytest.raises(ValueError, match=fault):
        evaluate(None, samples(ANNOTATED), tasks, count)


def test_no_samples():
    with pytest.raises(ValueError, match="no samples"):
        evaluate(None, [], ["<VQA>"])


def test_the_card_of_every_task_names_known_metrics():
    for card in tasks():
        if card.name in QUESTIONS:
            assert card.metrics and set(card.metrics) <= METRICS.keys(), card.name


def test_authors_of_cards_learn_of_unknown_metrics():
    card = TaskCard("<TAGS>", "tags", "Tags?", "text", metrics=("accuracy", "label_f2"))
    with pytest.raises(ValueError, match="card of task <TAGS>: unknown metric 'label_f2'; did you mean 'label_f1'?"):
        metrics_of(card)


def test_a_missing_package_is_told_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(ImportError, match=r'needs the package jiwer: pip install "florence-lite\[eval\]"'):
        metrics_of(task("<OCR>"))


def test_a_metric_of_ones_own(monkeypatch, only_own):
    def length(cases):
        return metrics.Measurement({"letters": sum(len(case.result.text) for case in cases)}, ("a note",))

    monkeypatch.setitem(METRICS, "letters", metrics.Metric(length))
    monkeypatch.setattr(
        "florence_lite.evaluate.report.task_card", lambda name: dataclasses.replace(task(name), metrics=("letters",))
    )
    data = samples(ANNOTATED)
    report = evaluate(Oracle(data), data, ["<VQA>"])
    assert (report.metrics, report.notes) == ({"<VQA>": {"letters": 4}}, ("<VQA>: a note",))


def test_every_metric_has_a_line_of_its_own():
    """However long the names are."""
    names = ["<OPEN_VOCABULARY_DETECTION>", "<REFERRING_EXPRESSION_SEGMENTATION>", "<" + "A_LONG_NAME_" * 10 + ">"]
    counts = dict.fromkeys(names, 123456)
    report = Report({name: {"presence_auroc_changed": 0.5} for name in names}, counts, counts, counts, images=1)
    rows = [line.split() for line in str(report).splitlines() if "0.5000" in line]
    assert rows == [[name, "presence_auroc_changed", "0.5000", *["123456"] * 3] for name in names]


def test_a_report_is_plain_data():
    report = Report({"<OD>": {"ap": 0.5, "ap50": None}}, {"<OD>": 1}, {"<OD>": 0}, {"<OD>": 0}, images=1)
    assert json.loads(json.dumps(report.to_dict())) == {
        "metrics": {"<OD>": {"ap": 0.5, "ap50": None}},
        "answers": {"<OD>": 1},
        "parse_errors": {"<OD>": 0},
        "truncated": {"<OD>": 0},
        "images": 1,
        "notes": [],
        "problems": [],
        "margins": {},
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.images = 2


def boxes(*labels, **more):
    return Annotation(SIZE, tuple(ObjectAnnotation(label, (10, 10, 40, 40)) for label in labels), **more)


class NamedData(Dataset):
    """Whose pictures tell their names."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return Named(sample.image, sample.annotation, sample.name)


class Rejecting(Oracle):
    """Finds what an image has, and nothing else."""

    def answer(self, scene, prompt):
        found = [item for item in self.truths[scene].objects if item.label in prompt.phrases]
        instances = tuple(Instance(item.label, box=item.box, score=0.9) for item in found)
        return Result(prompt.task, SIZE, instances=instances, presence={prompt.phrases[0]: 0.9 if found else 0.1})


def test_absent_phrases_are_drawn_where_data_name_none():
    for package in ("torchmetrics", "faster_coco_eval"):
        pytest.importorskip(package, reason="the extra eval is not installed")
    task = "<OPEN_VOCABULARY_DETECTION>"
    data = samples(boxes("dog"), boxes("cat"), boxes("dog", "cow"), boxes("yak", exhaustive=frozenset()))
    report = evaluate(Rejecting(data), NamedData.of(data), [task])
    assert report.answers == {task: (1 + 3) + (1 + 3) + (2 + 2) + 0}  # labels that an image has, and all others
    found = report.metrics[task]
    assert {found[name] for name in ("presence_auroc", "presence_auroc_random", "n_acc", "t_acc", "full_ap")} == {1}
    assert found["presence_auroc_changed"] is None
    assert report.notes == (
        f"{task}: the data name nothing that is absent; 8 absent phrases are labels of other images, up to 4 for an "
        "image, if all of its objects are known",
    )
    assert evaluate(Rejecting(data), NamedData.of(data), [task], count=1).answers == {task: 1 + 3}
    assert evaluate(Rejecting(data), data, [task]).answers == {task: 4}  # no data set


def test_why_no_absent_phrases_are_drawn(only_own):
    task = "<OPEN_VOCABULARY_DETECTION>"
    data = samples(boxes("dog", exhaustive=frozenset(), expressions=(ReferringExpression("the dog", (0,)),)))
    report = evaluate(Oracle(data), NamedData.of(data), [task])
    assert report.answers == {task: 1}
    assert report.notes == (
        f"{task}: no phrase is absent, rejection is not measured: of no image are all objects known, so that nothing "
        "is known to be absent",
    )
    known = samples(boxes("dog", expressions=(ReferringExpression("a yak"),)), boxes("cat"))
    report = evaluate(Oracle(known), NamedData.of(known), [task])
    assert (report.answers, report.notes) == ({task: 2}, ())


# ---- a real network and the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_a_real_network_is_measured_on_every_task(toy_tokenizer, side):
    for module in NEEDED:
        pytest.importorskip(module, reason="the extra eval is not installed")
    data = [Sample(noise_image(n, SIZE), ANNOTATED, f"image {n}") for n in range(2)]
    report = evaluate(tiny_florence(toy_tokenizer, side), data, list(QUESTIONS))
    assert report.images == 2
    asked = {name: 2 * len(pairs(name, ANNOTATED)) for name in QUESTIONS}
    left_out = sum(problem.kind.startswith("prompt") for problem in report.problems)
    assert sum(report.answers.values()) + left_out == sum(asked.values())
    assert all(report.answers.values())
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["images"] == 2


@pytest.fixture
def folder(tmp_path, toy_tokenizer):
    """A checkpoint with random weights and a small COCO folder of three images, one file of which is broken."""
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(3):
        name = f"photo {number}.png"
        noise_image(number, SIZE).save(data / "images" / name)
        images.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": [10, 10, 40, 30], "iscrowd": 0})
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "red apple"}]}
    (data / "annotations.json").write_text(json.dumps(coco), encoding="utf-8")
    tiny_florence(toy_tokenizer, "decoder").save_pretrained(tmp_path / "checkpoint")
    return tmp_path


def command(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.app([str(argument) for argument in arguments], prog_name="florence-lite")
    return (ended.value.code or 0, *capsys.readouterr())


def test_the_command_measures_a_folder(folder, capsys):
    pytest.importorskip("faster_coco_eval", reason="the extra eval is not installed")
    options = ["eval", "--checkpoint", folder / "checkpoint", "--data", folder / "data", "--count", "2"]
    both = ["--tasks", "<OD>", "<REGION_TO_CATEGORY>"]
    code, out, err = command(capsys, *options, *both, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["images"] == 2 and report["answers"] == {"<OD>": 2, "<REGION_TO_CATEGORY>": 2}
    assert set(report["metrics"]["<OD>"]) > {"ap", "ap50", "ap75", "ar100", "label_f1"}
    code, out, err = command(capsys, *options, "--tasks", "<OD>", "--tasks", "<REGION_TO_CATEGORY>")
    assert code == 0, err
    assert [line.split()[:2] for line in out.splitlines() if "accuracy" in line] == [
        ["<REGION_TO_CATEGORY>", "accuracy"]
    ]
    assert "images: 2" in out


def test_the_command_asks_in_tiles(folder, capsys):
    pytest.importorskip("faster_coco_eval", reason="the extra eval is not installed")
    options = ["eval", "--checkpoint", folder / "checkpoint", "--data", folder / "data", "--tasks", "<OD>"]
    code, out, err = command(capsys, *options, "--tile", 30, 10, "--json")
    assert code == 0, err
    florence = Florence.from_pretrained(folder / "checkpoint")
    data = read_dataset(folder / "data")
    results = [florence.run(sample.load(), "<OD>", tile=(30, 10)) for sample in data]
    assert json.loads(out)["truncated"] == {"<OD>": sum(each.truncated for each in results)}
    assert json.loads(out)["metrics"]["<OD>"] == evaluate(florence, data, ["<OD>"], tile=(30, 10)).metrics["<OD>"]


def test_the_command_measures_columns(folder, capsys, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the extra train is not installed")
    pictures = sorted((folder / "data" / "images").iterdir())
    rows = {"photo": [str(path) for path in pictures], "sign": ["red apple"] * 3, "place": [[10, 10, 40, 30]] * 3}
    datasets.Dataset.from_dict(rows).save_to_disk(folder / "rows")
    options = ["eval", "--checkpoint", folder / "checkpoint", "--data", folder / "rows", "--format", "huggingface"]
    for column in ("image=photo", "labels=sign", "boxes_xywh=place"):
        options += ["--column", column]
    code, _, err = command(capsys, *options, "--tasks", "<REGION_TO_CATEGORY>", "--json")
    assert code == 2 and "names outside of the folder are read with outside=True (--outside)" in err
    options.append("--outside")
    code, out, err = command(capsys, *options, "--tasks", "<REGION_TO_CATEGORY>", "--json")
    assert code == 0, err
    assert json.loads(out)["answers"] == {"<REGION_TO_CATEGORY>": 3}
    monkeypatch.setitem(sys.modules, "datasets", None)
    code, _, err = command(capsys, *options, "--tasks", "<REGION_TO_CATEGORY>")
    assert (code, err) == (2, "error: the package datasets is missing; pip install 'florence-lite[train]'\n")


@pytest.mark.parametrize(
    "options, fault",
    [
        (["--data", "{data}"], 'error: --data needs --tasks, the markers of what to ask, such as --tasks "<OD>"'),
        (["--data", "{data}", "--tasks", "<OF>"], "error: unknown task '<OF>'"),
        (["--data", "{data}", "--tasks", "<VQA>", "--style", "noto"], "error: --style belongs to generated scenes"),
        (["--data", "nowhere", "--tasks", "<REGION_TO_CATEGORY>"], "error: there is no data set nowhere"),
        (["--data", "{data}", "--tasks", "<OD>", "--tile", "9", "9"], "error: --tile 9 9: the overlap must be smaller"),
        (["--data", "{data}", "--tasks", "<VQA>", "--tile", "9", "3"], "error: task <VQA> cannot be asked in tiles"),
        (["--tile", "9", "3"], "error: --tile belongs to tasks on annotated images"),
        (["--column", "image=photo"], "error: --format, --column and --outside belong to annotated images"),
        (
            ["--data", "{data}", "--tasks", "<REGION_TO_CATEGORY>", "--column", "image"],
            "error: --column image must be MEANING=COLUMN",
        ),
    ],
)
def test_mistakes_are_told_before_the_network_loads(capsys, tmp_path, monkeypatch, options, fault):
    monkeypatch.setattr(cli.training, "load", None)
    code, out, err = command(capsys, "eval", *[option.format(data=tmp_path) for option in options])
    assert (code, out) == (2, "")
    assert err.startswith(fault)
