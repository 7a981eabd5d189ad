"""`florence-lite tasks` and `florence-lite checkpoints`."""

import florence_lite
from florence_lite.cards import CheckpointCard


def test_tasks_lists_every_task(command):
    code, out, _ = command("tasks")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [card.name for card in florence_lite.tasks()]
    assert (
        "<VQA>                                --text    the answer to a question about the image (Florence.ask)\n"
        in out
    )


def test_checkpoints_lists_licence_and_metrics(command, monkeypatch):
    card = CheckpointCard(
        name="small",
        summary="a small one",
        source="org/name",
        licence="MIT",
        image_size_wh=(224, 192),
        tasks=("<OD>",),
        metrics={"<OD>/box_f1": 0.81234, "<OCR>/wer": 1.0},
        baselines={"weights before": {"<OCR>/wer": 0.9}, "nothing": {"<OCR>/wer": 1.0}},
        protocol="on two scenes",
        command="florence-lite train small.toml",
        seed=3,
        hardware="one core",
        notes="Trained twice.\nThe second one counts.\n",
    )
    monkeypatch.setattr("florence_lite.cards.checkpoints", lambda: (card,))
    code, out, _ = command("checkpoints")
    assert code == 0
    assert out.splitlines() == [
        "small  (org/name, MIT, 224×192 pixels, 1 tasks)",
        "  a small one",
        "  <OD>/box_f1  0.8123",
        "  <OCR>/wer    1  (weights before 0.9, nothing 1)",
        "  measured: on two scenes",
        "  trained: florence-lite train small.toml, seed 3, on one core",
        "  Trained twice.",
        "  The second one counts.",
    ]
