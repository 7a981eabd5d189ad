"""What a person says wins over the model."""

import json
import shutil
import tarfile

import pytest
from PIL import Image

from florence_lite.data import read_dataset
from florence_lite.data.annotation import (
    Annotation,
    ObjectAnnotation,
    Question,
    ReferringExpression,
    Region,
    TextLine,
)
from florence_lite.data.rows import ImageSource, int64_of
from florence_lite.refine import STAGES, RefineConfig, refine
from florence_lite.refine.corrections import rows_of
from tests.refine.answers import SIZE, failed, item, listed, picture, query, said, write_answers
from tests.refine.test_run import rows_in

SQUARE = ((10.0, 10.0), (40.0, 10.0), (40.0, 40.0), (10.0, 40.0))
HOLE = ((20.0, 20.0), (30.0, 20.0), (30.0, 30.0))
OBJECTS = (
    ObjectAnnotation("dog", (10.0, 10.0, 40.0, 40.0), (SQUARE, HOLE), "the dog on the left"),
    ObjectAnnotation("cat", (60.0, 10.0, 90.0, 40.0)),
)
EVERYTHING = Annotation(
    SIZE,
    OBJECTS,
    lines=(TextLine("STOP", (5.0, 50.0, 35.0, 50.0, 35.0, 60.0, 5.0, 60.0)),),
    captions=("a dog", "a dog and a cat", "a long paragraph"),
    expressions=(ReferringExpression("both animals", (0, 1)), ReferringExpression("a horse", ())),
    questions=(Question("how many dogs?", "1"),),
    exhaustive=frozenset({"objects", "lines"}),
    regions=(Region("a lawn", (0.0, 62.0, 100.0, 80.0)),),
    more_captions=("an animal",),
    wrong_captions=("a horse",),
)


@pytest.mark.parametrize(
    "annotation",
    [
        EVERYTHING,
        Annotation(SIZE, OBJECTS[:1], exhaustive=frozenset()),
        Annotation(SIZE, exhaustive=frozenset({"objects"})),
        Annotation(SIZE, captions=("", "a dog")),
    ],
)
def test_annotations_as_rows_are_read_as_they_were(tmp_path, annotation):
    image = picture(tmp_path, "a.png", 1)
    write_answers(tmp_path / "in", list(rows_of(annotation, image)))
    [sample] = read_dataset(tmp_path / "in")
    back = sample.annotation
    for name in vars(annotation):
        if name != "negative":
            assert getattr(back, name) == getattr(annotation, name), name


def test_coordinates_are_scaled_to_the_image(tmp_path):
    image = picture(tmp_path, "a.png", 1, (200, 160))
    write_answers(tmp_path / "in", list(rows_of(EVERYTHING, image)))
    [sample] = read_dataset(tmp_path / "in")
    assert sample.annotation.objects[1].box == (120.0, 20.0, 180.0, 80.0)
    assert sample.annotation.objects[0].polygons[1] == ((40.0, 40.0), (60.0, 40.0), (60.0, 60.0))
    assert sample.annotation.lines[0].quad[:4] == (10.0, 100.0, 70.0, 100.0)


@pytest.fixture
def answered(tmp_path):
    """Three photos about which a model says much that is not right."""
    photos = [picture(tmp_path / "photos", f"{name}.png", seed) for seed, name in enumerate("abc")]
    rows = []
    for image in photos:
        rows += [
            listed(image, item("dog", score=0.9), item("cow", (0, 0, 100, 80), 0.2)),
            said(image, "dog", "<REGION_TO_CATEGORY>", region=(10.0, 10.0, 50.0, 40.0)),
            said(image, "a dog and a cow"),
            said(image, "1", "<VQA>", text="how many dogs?"),
        ]
    write_answers(tmp_path / "in", rows)
    return photos


def jsonl(file, *records):
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def test_a_corrected_image_is_the_persons_and_no_stage_judges_it(answered, tmp_path):
    thin = {"label": "leash", "box": [0, 0, 100, 0.2]}
    wanted = {"label": "cat", "box": [0, 0, 100, 80]}
    records = {"image": answered[0].source, "objects": [wanted, wanted, thin]}, {"image": "b.png", "objects": []}
    file = jsonl(tmp_path / "photos" / "corrected.jsonl", *records)
    report = refine(tmp_path / "in", tmp_path / "out", RefineConfig(settings={"captions": {}}), file)
    rows = [row for row in rows_in(tmp_path / "out" / "parts") if row["checkpoint"] == "person"]
    assert all(row["tag"] == "person" and row["verified"] and row["score"] is None for row in rows)
    first, second, third = (sample.annotation for sample in read_dataset(tmp_path / "out"))
    assert [(each.label, each.box, each.score) for each in first.objects] == [
        ("cat", (0, 0, 100, 80), None),
        ("cat", (0, 0, 100, 80), None),
        ("leash", (0, 0, 100, 0.2), None),
    ]
    assert second.is_negative and first.captions == ("a dog and a cow",) and first.questions
    assert [each.label for each in third.objects] == ["dog"]
    replaced = [row for row in rows_in(tmp_path / "out" / "dropped") if row["reason"] == "corrected: by a person"]
    assert sorted(row["task"] for row in replaced) == ["<OD>", "<OD>", "<REGION_TO_CATEGORY>", "<REGION_TO_CATEGORY>"]
    assert (report.added, report.stages[0].name, report.stages[0].rows) == (2, "corrections", 4)
    assert report.empty["verified"] == 1


def test_corrections_tell_how_many_of_the_models_objects_are_right_at_which_score(answered, tmp_path):
    right, other = {"label": "Dog", "box": [12, 10, 52, 40]}, {"label": "dog", "box": [60, 10, 90, 40]}
    records = (
        {"image": "a.png", "objects": [right]},
        {"image": "b.png", "objects": [other]},
        {"image": "c.png", "objects": [right], "exhaustive": []},
    )
    file = jsonl(tmp_path / "photos" / "corrected.jsonl", *records)
    report = refine(tmp_path / "in", tmp_path / "out", corrections=file)  # balance and duplicates look at all twice
    lines = report.stages[0].told
    assert lines[-2:] == ["  0.2 to 0.3: 0 of 2, 0%", "  0.9 to 1.0: 1 of 2, 50%"]


def test_what_a_person_says_of_words_replaces_those_words_only(answered, tmp_path):
    record = {"image": "a.png", "captions": ["a cat"], "questions": [{"question": "how many dogs?", "answer": "0"}]}
    file = jsonl(tmp_path / "photos" / "corrected.jsonl", record)
    refine(tmp_path / "in", tmp_path / "out", corrections=file)
    first, second, _ = (sample.annotation for sample in read_dataset(tmp_path / "out"))
    assert (first.captions, first.questions[0].answer) == (("a cat",), "0")
    assert [each.label for each in first.objects] == ["dog"] and second.captions == ("a dog and a cow",)


def test_a_refined_folder_can_be_refined_again(answered, tmp_path):
    file = jsonl(tmp_path / "photos" / "corrected.jsonl", {"image": "a.png", "objects": []})
    refine(tmp_path / "in", tmp_path / "once", corrections=file)
    strict = RefineConfig(settings={"scores": {"threshold": 0.95}})
    report = refine(tmp_path / "once", tmp_path / "twice", strict)
    first, *_ = (sample.annotation for sample in read_dataset(tmp_path / "twice"))
    assert first.is_negative and report.empty == {"verified": 1, "unverified": 2, "emptied": 2}


def coco(file, name, size_wh):
    image = {"id": 1, "file_name": name, "width": size_wh[0], "height": size_wh[1]}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 20, 40, 40], "area": 1600, "iscrowd": 0}
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "cat"}]}))
    return file


def test_images_are_known_by_content_by_number_and_by_name(answered, tmp_path):
    """COCO from a tool that copied, renamed or scaled the images."""
    exported = tmp_path / "export"
    exported.mkdir()
    shutil.copy(answered[0].source, exported / "renamed.png")
    Image.open(answered[1].source).save(exported / f"{answered[1].image_id}.jpg")
    Image.open(answered[2].source).resize((200, 160)).save(exported / "c.png")
    for name, place, box in (
        ("renamed.png", 0, (20, 20, 60, 60)),
        (f"{answered[1].image_id}.jpg", 1, (20, 20, 60, 60)),
        ("c.png", 2, (10, 10, 30, 30)),
    ):
        file = coco(exported / "instances.json", name, Image.open(exported / name).size)
        refine(tmp_path / "in", tmp_path / "out", corrections=file)
        samples = read_dataset(tmp_path / "out")
        assert [each.box for each in samples[place].annotation.objects] == [box], name
        assert samples[place].annotation.objects[0].label == "cat"


def test_corrections_that_match_nothing_are_counted_and_named(answered, tmp_path):
    picture(tmp_path / "other", "z.png", 9)
    picture(tmp_path / "other", "a.png", 8, (50, 80))
    records = {"image": "z.png", "objects": []}, {"image": "a.png", "objects": []}, {"image": "gone.png", "objects": []}
    file = jsonl(tmp_path / "other" / "corrected.jsonl", *records)
    with pytest.raises(ValueError, match="none of the 2 images .* the first: z.png: no row is about this image"):
        refine(tmp_path / "in", tmp_path / "out", corrections=file)
    assert not (tmp_path / "out").exists()
    file = jsonl(file, *records, {"image": answered[0].source, "objects": []})
    report = refine(tmp_path / "in", tmp_path / "out", corrections=file)
    assert len(report.unmatched) == 3 and any("gone.png" in line for line in report.unmatched)
    assert any("a.png: it is 50×80 pixels, the image of that name is 100×80" in line for line in report.unmatched)
    told = "\n".join(report.lines())
    assert "corrections: 1 of 3 corrected images are among the rows'" in told and "3 could not be used" in told


def test_an_image_that_could_not_be_read_is_not_corrected(answered, tmp_path):
    lost = picture(tmp_path / "photos", "lost.png", 7)
    write_answers(tmp_path / "in", [failed(lost)])
    both = {"objects": [{"label": "dog", "box": [1, 1, 9, 9]}]}
    file = jsonl(tmp_path / "c.jsonl", *({"image": each.source, **both} for each in (lost, answered[0])))
    report = refine(tmp_path / "in", tmp_path / "out", corrections=file)
    assert report.added == 1 and "lost.png: it could not be read when it was asked about" in report.unmatched[0]


def test_corrections_in_the_output_are_refused(answered, tmp_path):
    refine(tmp_path / "in", tmp_path / "out")
    with pytest.raises(ValueError, match="lie in the output .*, which is replaced; copy them out"):
        refine(tmp_path / "in", tmp_path / "out", corrections=tmp_path / "out" / "to_check.jsonl")
    with pytest.raises(FileNotFoundError):
        refine(tmp_path / "in", tmp_path / "out", corrections=tmp_path / "nothing.jsonl")


@pytest.mark.parametrize("place", ["in", "in/parts", "refined", "refined/parts"])
def test_a_models_answers_are_no_corrections(answered, tmp_path, place):
    refine(tmp_path / "in", tmp_path / "refined")
    folder = place.split("/")[0]
    with pytest.raises(ValueError, match=f"are answers of a model, .* into {tmp_path / folder}; give a file that a"):
        refine(tmp_path / "in", tmp_path / "out", corrections=tmp_path / place)
    assert not (tmp_path / "out").exists()


def test_corrections_in_which_nothing_was_changed_are_told(answered, tmp_path):
    write_answers(tmp_path / "in", [listed(picture(tmp_path / "photos", "near.png", 7), item("dog", score=0.25))])
    refine(tmp_path / "in", tmp_path / "refined")
    file = tmp_path / "refined" / "to_check.jsonl"
    line = f"warning: nothing in {file} was changed since refine wrote it; the model's answers in it count as a"
    report = refine(tmp_path / "in", tmp_path / "out", corrections=file)
    assert any(told.startswith(line) for told in report.lines())
    file.write_text(file.read_text().replace("dog", "fox"))
    report = refine(tmp_path / "in", tmp_path / "out2", corrections=file)
    assert report.added and not any("was changed" in told for told in report.lines())


@pytest.mark.parametrize("in_a_tar", [False, True])
def test_what_is_near_goes_out_is_edited_and_comes_back(tmp_path, in_a_tar):
    """The file of what is near, copied elsewhere, is a correction as it stands; what is edited in it wins."""
    image = picture(tmp_path / "photos", "a.png", 1)
    if in_a_tar:
        with tarfile.open(tmp_path / "shard.tar", "w") as tar:
            tar.add(image.source, "a.png")
        content = (tmp_path / "photos" / "a.png").read_bytes()
        image = ImageSource(int64_of(content), f"{tmp_path}/shard.tar!a.png", SIZE, len(content))
    items = item("dog", score=0.25), item("cat", (60, 10, 90, 40), 0.9), item("cow", (60, 45, 90, 70), 0.01)
    write_answers(tmp_path / "in", [listed(image, *items, ask=query(checkpoint="teacher"))])
    refine(tmp_path / "in", tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    [line] = (tmp_path / "copy" / "to_check.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert [each["label"] for each in record["objects"]] == ["dog", "cat"]
    record["objects"][0]["label"] = "fox"
    (tmp_path / "copy" / "to_check.jsonl").write_text(json.dumps(record) + "\n")
    for _ in range(2):  # also when the first output is gone
        refine(tmp_path / "in", tmp_path / "out", corrections=tmp_path / "copy" / "to_check.jsonl")
    [sample] = read_dataset(tmp_path / "out")
    assert [each.label for each in sample.annotation.objects] == ["fox", "cat"] and sample.annotation.has_all_objects


def test_no_stage_touches_a_persons_rows(answered, tmp_path):
    thin = {"label": "leash", "box": [0, 0, 100, 0.2]}
    record = {"image": "a.png", "objects": [thin, thin, {"label": "all", "box": [0, 0, 100, 80]}], "captions": ["?"]}
    file = jsonl(tmp_path / "photos" / "corrected.jsonl", record)
    stages = tuple(name for name in STAGES if name != "opinions")
    settings = {"balance": {"most": 1, "count": "instances"}}
    refine(tmp_path / "in", tmp_path / "out", RefineConfig(stages, settings=settings), file)
    own = [row for row in rows_in(tmp_path / "out" / "parts") if row["checkpoint"] == "person"]
    assert sorted(len(row["instances"]) for row in own) == [0, 3]
    assert not [row for row in rows_in(tmp_path / "out" / "dropped") if row["checkpoint"] == "person"]
