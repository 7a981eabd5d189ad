"""What a run tells of itself."""

from pathlib import Path

from florence_lite.annotate import AnnotateConfig
from florence_lite.annotate.progress import Progress, Report, Told, kind_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "annotate.toml"


def progress_at(seconds, report, total):
    """The lines that a run tells at the beginning, at once and at that time, and its progress then."""
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
        "answers go to answers",
        "1,204 of 5,000 images (300 done before), 3 errors",
        "1,204 of 5,000 images (300 done before), 9.0 images/s, 7 min left, 3.1 h for 100,000 images, 3 errors",
    ]
    assert report.seconds == 100


def test_lines_come_no_more_often_than_the_interval_and_know_no_end_without_a_total():
    told, _ = progress_at(29, Report("answers", answered=5), None)
    assert told[1:] == ["5 images, 0 errors"]
    told, _ = progress_at(50, Report("answers", answered=5, failed=1), None)
    assert told[2:] == ["5 images, 0.10 images/s, 277.8 h for 100,000 images, 1 error"]


def test_errors_are_counted_by_kind():
    assert kind_of("image /a/b.png is damaged or cut short: broken data", "/a/b.png") == "is damaged or cut short"
    assert kind_of("tar /s.tar is damaged or cut short: end", "/s.tar") == "tar  is damaged or cut short"
    report = Report("answers")
    for number in range(100):
        report.add(Told(f"{number}.png", (f"kind {number}",)))
    assert len(report.errors) <= 21 and sum(report.errors.values()) == 100 == report.failed
    assert "  1 × kind 3; the first: 3.png" in report.lines()


def test_what_was_left_out_and_unlike_is_told():
    report = Report("answers", images=2)
    report.add(Told("a.png", (), True, 3))
    report.add(Told("b.png"))
    lines = "\n".join(report.lines())
    assert "  3 instances scored too little" in lines and "  1 images unlike those that the checkpoint knows" in lines
    assert len(Report("answers").lines()) == 2


def test_the_example_is_a_configuration():
    config = AnnotateConfig.from_toml(EXAMPLE, source="photos", output="answers")
    assert [task.of for task in config.tasks] == [None, "<OD>", None, "<CAPTION>", None]
    assert [each.tag for each in config.checkpoints] == ["", "beams"]
