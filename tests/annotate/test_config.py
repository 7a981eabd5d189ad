"""Configurations: what they mean, and what is wrong with them."""

import pytest

from florence_lite.annotate import AnnotateConfig, CheckpointConfig, TaskConfig
from florence_lite.annotate.questions import questions_of

RUN = {"source": "photos", "output": "answers", "tasks": ["<OD>"]}


def test_a_file_says_what_python_says(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        """
        source = ["photos", "more.tar"]
        output = "answers"
        images_per_part = 8
        [[checkpoints]]
        checkpoint = "scenes-nano"
        threshold = 0.3
        [[checkpoints]]
        checkpoint = "scenes-nano"
        tag = "beams"
        decoding = { num_beams = 3 }
        [[tasks]]
        task = "<OD>"
        [[tasks]]
        task = "<REGION_TO_CATEGORY>"
        of = "<OD>"
        [[tasks]]
        task = "<OPEN_VOCABULARY_DETECTION>"
        phrases = ["a dog", "a cat"]
        threshold = 0.7
        decoding = { max_new_tokens = 16 }
        """
    )
    read = AnnotateConfig.from_toml(file, output="elsewhere")
    assert read == AnnotateConfig(
        source=("photos", "more.tar"),
        output="elsewhere",
        tasks=(
            TaskConfig("<OD>"),
            TaskConfig("<REGION_TO_CATEGORY>", of="<OD>"),
            TaskConfig(
                "<OPEN_VOCABULARY_DETECTION>",
                phrases=("a dog", "a cat"),
                threshold=0.7,
                decoding={"max_new_tokens": 16},
            ),
        ),
        checkpoints=(
            CheckpointConfig(threshold=0.3),
            CheckpointConfig(tag="beams", decoding={"num_beams": 3}),
        ),
        images_per_part=8,
    )


def test_options_of_the_checkpoint_hold_where_they_have_a_part():
    checkpoint = CheckpointConfig(threshold=0.3, decoding={"num_beams": 3, "max_new_tokens": 9})
    tasks = [TaskConfig("<OD>"), TaskConfig("<CAPTION>", decoding={"num_beams": 1}), TaskConfig("<OD>", threshold=0.5)]
    assert [checkpoint.options(task) for task in tasks] == [
        {"num_beams": 3, "max_new_tokens": 9, "threshold": 0.3},
        {"num_beams": 1, "max_new_tokens": 9},
        {"num_beams": 3, "max_new_tokens": 9, "threshold": 0.5},
    ]


def test_the_identity_of_a_question_holds_all_that_changes_its_answer():
    def ids(revision="1", **changes):
        config = AnnotateConfig(**RUN | {"tasks": ["<OD>", {"task": "<REGION_TO_CATEGORY>", "of": "<OD>"}]} | changes)
        return [question.done_id(7) for question in questions_of(config, [revision])]

    base = ids()
    assert ids(source="others", output="else", checkpoints=["another name"], images_per_part=2) == base
    assert ids(checkpoints=[{"device": "cuda"}]) == base
    for changes in (
        {"revision": "2"},
        {"checkpoints": [{"tag": "second"}]},
        {"checkpoints": [{"threshold": 0.5}]},
        {"checkpoints": [{"precision": "int8"}]},
        {"checkpoints": [{"decoding": {"num_beams": 3}}]},
    ):
        assert not set(ids(**changes)) & set(base), changes
    assert len({*base, *(question.done_id(8) for question in questions_of(AnnotateConfig(**RUN), ["1"]))}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": []}, "source = .* must name images"),
        ({"source": [5]}, r"source = \[5\] must name images"),
        ({"column": 3}, "column = 3 must be the name of a column"),
        ({"output": ""}, "output = '' must be the path of a folder"),
        ({"tasks": []}, r"tasks = \[\] must be a list with at least one task"),
        ({"tasks": ["<ODD>"]}, r"number 1: .*'<ODD>'.*<OD>"),
        ({"tasks": ["<REGION_TO_CATEGORY>"]}, 'number 1: task <REGION_TO_CATEGORY> needs a region: .* of = "<OD>"'),
        ({"tasks": ["<OPEN_VOCABULARY_DETECTION>"]}, "needs phrases"),
        ({"tasks": [{"task": "<OD>", "text": "a dog"}]}, "takes no input"),
        ({"tasks": ["<OD>", "<OD>"]}, "task <OD> is asked twice with the same input"),
        ({"tasks": [{"task": "<OD>", "phrasez": ["a"]}]}, "unknown field 'phrasez'; did you mean 'phrases'"),
        ({"tasks": [{"task": "<OPEN_VOCABULARY_DETECTION>", "phrases": "dog"}]}, "phrases = 'dog' must be a list"),
        ({"tasks": [{"task": "<REGION_TO_CATEGORY>", "region": [5, 5, 1, 1]}]}, "must have 0 <= x0 < x1"),
        ({"tasks": [{"task": "<REGION_TO_CATEGORY>", "of": "<OD>"}]}, "no task before it is called so"),
        ({"tasks": ["<OD>", {"task": "<CAPTION>", "of": "<OD>"}]}, "takes no input, so it cannot be asked of"),
        (
            {"tasks": ["<CAPTION>", {"task": "<REGION_TO_CATEGORY>", "of": "<CAPTION>"}]},
            "takes boxes, but of = '<CAPTION>' answers with none",
        ),
        (
            {"tasks": ["<OD>", {"task": "<CAPTION_TO_PHRASE_GROUNDING>", "of": "<OD>"}]},
            "takes text, but of = '<OD>' answers with places",
        ),
        (
            {"tasks": ["<OD>", {"task": "<REGION_TO_CATEGORY>", "of": "<OD>", "region": [0, 0, 1, 1]}]},
            "leave out its own",
        ),
        ({"tasks": [{"task": "<CAPTION>", "threshold": 0.5}]}, "threshold = 0.5 has no part in task <CAPTION>"),
        ({"tasks": ["<CAPTION>"], "checkpoints": [{"threshold": 0.5}]}, "none answers with places"),
        ({"tasks": [{"task": "<OD>", "threshold": 5}]}, "threshold = 5 must be a number between 0 and 1"),
        ({"tasks": [{"task": "<OD>", "decoding": {"threshold": 0.5}}]}, "'threshold', which stands beside decoding"),
        ({"tasks": [{"task": "<OD>", "decoding": {"tile": [1, 2]}}]}, "'tile', which is no option of decoding here"),
        ({"checkpoints": [{"precision": "fp8"}]}, "precision = 'fp8' must be one of fp32, bf16, int8"),
        ({"checkpoints": ["scenes-nano", "scenes-nano"]}, 'the very same twice.*tag = "second"'),
        ({"checkpoints": ["scenes-nano", {"checkpoint": "scenes-nano", "device": "cuda"}]}, "the very same twice"),
        ({"checkpoints": 5}, "checkpoints = 5 must be a list"),
        ({"images_per_part": 0}, "images_per_part = 0 must be a whole number of at least 1"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        AnnotateConfig(**RUN | changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("tasks = [", "is no valid TOML"),
        ('source = "a"\noutput = "b"\ntask = ["<OD>"]', "unknown field 'task'; did you mean 'tasks'"),
        ('source = "a"\ntasks = ["<OD>"]', "missing output"),
    ],
)
def test_a_file_with_a_mistake_is_named(tmp_path, content, message):
    (tmp_path / "run.toml").write_text(content)
    with pytest.raises(ValueError, match=f"run.toml.*{message}"):
        AnnotateConfig.from_toml(tmp_path / "run.toml")
