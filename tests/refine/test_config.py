"""Stages and their settings from TOML."""

import pytest

from florence_lite.refine import STAGES, RefineConfig
from florence_lite.refine.judged import Opinion
from florence_lite.refine.stage import Found


def found(*checkpoints: str) -> Found:
    whole = Found()
    for task in ("<OD>", "<CAPTION>", "<REGION_TO_CATEGORY>"):
        for checkpoint in checkpoints:
            whole.add(task, Opinion(checkpoint, "1", "{}", ""), 1)
    return whole


def names(config, *checkpoints):
    return [stage.NAME for stage in config.make(found(*checkpoints))]


def test_what_is_on_request_and_what_needs_several_opinions_is_off_where_nothing_is_said():
    off = {"opinions", "captions", "regions", "balance"}
    assert names(RefineConfig(), "a") == [name for name in STAGES if name not in off]
    assert names(RefineConfig(), "a", "b") == [name for name in STAGES if name not in off - {"opinions"}]


def test_settings_put_a_stage_on():
    assert "captions" in names(RefineConfig(settings={"captions": {}}), "a")
    assert "scores" not in names(RefineConfig(without=("scores",)), "a")
    with pytest.raises(ValueError, match="no task has answers of two opinions; there is 'a'"):
        RefineConfig(settings={"opinions": {}}).make(found("a"))


def test_stages_that_are_named_judge_in_that_order():
    assert names(RefineConfig(stages=("balance", "scores")), "a") == ["balance", "scores"]


def test_a_file_says_it_all(tmp_path):
    file = tmp_path / "refine.toml"
    file.write_text(
        'stages = ["errors", "scores"]\nempty_are_negatives = true\nsheet = 5\n'
        '[scores]\nthreshold = 0.4\n[scores.tasks]\n"<OD>" = 0.6\n[scores.labels]\ndog = 0.7\n'
    )
    config = RefineConfig.from_toml(file)
    assert (config.stages, config.empty_are_negatives, config.sheet) == (("errors", "scores"), True, 5)
    _, scores = config.make(found("a"))
    assert [scores.threshold_of(*each) for each in (("<OD>", "dog"), ("<OD>", "cat"), ("<CAPTION>", "cat"))] == [
        0.7,
        0.6,
        0.4,
    ]


def test_every_stage_says_what_it_is_for():
    assert all(stage.__doc__ and len(stage.__doc__) > 20 for stage in STAGES.values())


@pytest.mark.parametrize(
    "text, message",
    [
        ("[score]\nthreshold = 0.5", "unknown stage or field 'score'; did you mean 'scores'"),
        ("[scores]\ntreshold = 0.5", "scores: unknown field 'treshold'; did you mean 'threshold'"),
        ("[scores]\nthreshold = 1.5", "scores: threshold = 1.5 must be a number between 0 and 1"),
        ('[scores.labels]\ndog = "high"', "scores: labels: 'dog' = 'high' must be a number between 0 and 1"),
        ("scores = 0.5", r"scores = 0.5 must be a table of its settings, \[scores\]"),
        ("[presence]\nthreshold = -1", "presence: threshold = -1 must be"),
        ("[faults]\ntruncated = 1", "faults: truncated = 1 must be true or false"),
        ("[slivers]\nratio = 0.5", "slivers: ratio = 0.5 must be a number of at least 1"),
        ("[twins]\niou = 2", "twins: iou = 2 must be"),
        ("[duplicates]\ndistance = 12", "duplicates: distance = 12 must be a whole number from 0 to 11"),
        ('[duplicates]\nprefer = "last"', "duplicates: prefer = 'last' must be one of instances, first"),
        ("[balance]\nmost = 0", "balance: most = 0 must be a whole number of at least 1"),
        ('[captions.words]\nperson = "man"', "captions: words = .* must be a table of lists of words"),
        ("[captions.words]\nperson = [1]", "captions: words = .* must be a table of lists of words"),
        ('stages = ["scores", "score"]', "unknown stage 'score'; did you mean 'scores'"),
        ('stages = ["scores", "scores"]', "names one of them twice"),
        ('stages = ["errors"]\n[scores]', "there are settings for scores, which is not among the stages"),
        ('without = ["nothing"]', "unknown stage 'nothing'"),
        ("sheet = -1", "sheet = -1 must be a whole number of at least 0"),
        ("stages = [", "is no valid TOML"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path, text, message):
    file = tmp_path / "refine.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        RefineConfig.from_toml(file)
    assert str(file) in str(error.value)
