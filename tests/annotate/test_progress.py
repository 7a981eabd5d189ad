"""What a run tells of itself."""

from pathlib import Path

from florence_lite.annotate import AnnotateConfig
from florence_lite.annotate.progress import Progress, Report, kind_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "annotate.toml"


def progress_at(seconds, report, total):
    """The lines that a run tells, and its progress at that time."""
    told, times = [], [0.0]
    progress = Progress(report, told.append, interval=30, clock=lambda: times[0])
    progress.total = total
    with progress:
        progress.update()
        times[0] = seconds
        progress.update()
    return told, progress


def test_lines_tell_what_a_user_needs():
    report = Report("answers", answered=900, done=300, duplicates=4, failed=3)
    told, progress = progress_at(100, report, 5000)
    assert told == [
        "1,204 of 5,000 images (300 done before), 9.0 images/s, 7 min left, 3.1 h for 100,000 images, 3 errors"
    ]
    assert report.seconds == 100


def test_lines_come_no_more_often_than_the_interval_and_know_no_end_without_a_total():
    told, _ = progress_at(29, Report("answers", answered=5), None)
    assert told == []
    told, _ = progress_at(50, Report("answers", answered=5, failed=1), None)
    assert told == ["5 images, 0.1 images/s, 277.8 h for 100,000 images, 1 error"]


def test_errors_are_counted_by_kind():
    assert kind_of("image /a/b.png is damaged or cut short: broken data", "/a/b.png") == "is damaged or cut short"
    assert kind_of("tar /s.tar is damaged or cut short: end", "/s.tar") == "tar  is damaged or cut short"
    report = Report("answers")
    for number in range(100):
        report.add([f"kind {number}"])
    assert len(report.errors) <= 21 and sum(report.errors.values()) == 100 == report.failed


def test_the_example_is_a_configuration():
    config = AnnotateConfig.from_toml(EXAMPLE, source="photos", output="answers")
    assert [task.of for task in config.tasks] == [None, "<OD>", None, "<CAPTION>", None]
    assert [each.tag for each in config.checkpoints] == ["", "beams"]
