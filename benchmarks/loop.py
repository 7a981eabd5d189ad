"""The loop annotate → refine → train on blood cells, of which people annotated only some.

    python benchmarks/loop.py BCCD_Dataset --output runs/loop

A teacher is fine-tuned on the photos of the training split that come first by the hash of their names; it annotates the
others, whose truth nobody looks at. Students are fine-tuned on both, all from the same start and for as many steps as
the teacher: with the answers as they are, and refined; a second round has the first student as its teacher. All are
measured on the test split, against people's boxes and against the first teacher's answers. What is done already in the
output folder is not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from peer import environment
from refining import boxes

from florence_lite import Florence
from florence_lite.annotate import AnnotateConfig, annotate
from florence_lite.answers import Instance
from florence_lite.data import Dataset, Sample, read_dataset, to_jsonl
from florence_lite.data.rows import int64_of
from florence_lite.evaluate.report import evaluate
from florence_lite.refine import refine
from florence_lite.rules import Pair
from florence_lite.train.config import FineTuneConfig
from florence_lite.train.finetuning import finetune

CONFIG = Path(__file__).parent.parent / "examples" / "loop.toml"
TASK = "<OD>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of the data set")
    parser.add_argument("--output", required=True, type=Path, help="folder for photos, answers and runs")
    parser.add_argument("--people", type=int, default=40, help="photos whose boxes by people are used")
    parser.add_argument("--steps", type=int, help="of each training, instead of those of the file")
    arguments = parser.parse_args()
    loop = Loop(arguments.data, arguments.output, arguments.people, arguments.steps)
    print(json.dumps(loop.run(), indent=2))


class Loop:
    """The experiment in a folder. people: photos whose truth is used; steps: of each training, None for the file's."""

    def __init__(self, data: str, output: Path, people: int, steps: int | None):
        self.data, self.output, self.people = data, output, people
        self.config = FineTuneConfig.from_toml(CONFIG)
        if steps:
            self.config = replace(self.config, steps=steps, evaluate_every=steps)
        train = sorted(read_dataset(data, split="train"), key=lambda sample: int64_of(sample.name.encode()))
        if not 0 < people < len(train):
            raise SystemExit(f"--people {people}: the training split has {len(train)} photos, some must be left")
        output.mkdir(parents=True, exist_ok=True)
        self.by_people = to_jsonl(train[:people], output / "people.jsonl")
        self.unlabelled, self.test = output / "unlabelled", output / "test"
        copy_photos(train[people:], self.unlabelled)
        self.hidden = {  # looked at by nothing but `quality`
            str((self.unlabelled / Path(sample.name).name).resolve()): Pair(
                instances=tuple(Instance(item.label, box=item.box) for item in sample.annotation.objects)
            )
            for sample in train[people:]
        }
        copy_photos(list(read_dataset(data, split="test")), self.test)

    def run(self) -> dict:
        teacher = self.train("teacher", [])
        answers, refined = self.annotated("answers-1", teacher)
        raw_student = self.train("student-1-raw", [answers])
        student = self.train("student-1", [refined])
        raw_answers, _ = self.annotated("answers-2-raw", raw_student)
        _, refined_again = self.annotated("answers-2", student)
        rows = {
            "teacher: the photos by people alone": teacher,
            "one round, unfiltered": raw_student,
            "one round, refined": student,
            "two rounds, unfiltered": self.train("student-2-raw", [raw_answers]),
            "two rounds, refined": self.train("student-2", [refined_again]),
        }
        truths = {"people": read_dataset(self.data, split="test"), "teacher": self.teachers_view(teacher)}
        measured = {name: {by: self.measured(run, truth) for by, truth in truths.items()} for name, run in rows.items()}
        refinements = ("answers-1", "answers-2-raw", "answers-2")
        result = {
            **environment(),
            "photos": {
                "by people": len(read_dataset(self.by_people, outside=True)),
                "by the teacher": len(self.hidden),
            },
            "steps": self.config.steps,
            "batch": self.config.batch,
            "test": measured,
            "answers": {
                name: boxes(self.output / name, self.hidden)
                for each in refinements
                for name in (each, f"{each}-refined")
            },
            "refined": {name: self.counts(name) for name in refinements},
        }
        (self.output / "result.json").write_text(json.dumps(result, indent=2) + "\n")
        return result

    def train(self, name: str, answers: Sequence[Path]) -> Path:
        """The checkpoint of a run on the photos by people and on folders of answers."""
        output = self.output / name
        people, by_teacher = self.config.data
        data = [replace(people, path=str(self.by_people), outside=True)]
        data += [replace(by_teacher, path=str(folder)) for folder in answers]
        return finetune(replace(self.config, output=str(output), data=tuple(data)))

    def annotated(self, name: str, checkpoint: Path) -> tuple[Path, Path]:
        """Folders of a checkpoint's answers about the photos that nobody annotated: as they are, and refined."""
        answers = self.answers(name, checkpoint, self.unlabelled)
        refined = self.output / f"{name}-refined"
        refine(answers, refined)
        return answers, refined

    def answers(self, name: str, checkpoint: Path, photos: Path) -> Path:
        output = self.output / name
        annotate(AnnotateConfig(str(photos), str(output), (TASK,), checkpoints=(str(checkpoint),)))
        return output

    def teachers_view(self, teacher: Path) -> Dataset:
        """The test photos with what the teacher says of them, refined, as if it were the truth."""
        refined = self.output / "test-refined"
        refine(self.answers("test-answers", teacher, self.test), refined)
        return read_dataset(refined)

    def measured(self, run: Path, truth: Dataset) -> dict[str, float | None]:
        metrics = evaluate(Florence.from_pretrained(run), truth, [TASK]).to_dict()["metrics"][TASK]
        return {name: metrics[name] for name in ("ap", "ap50", "box_f1")}

    def counts(self, name: str) -> dict:
        """Objects that were read, and that each stage left out."""
        report = json.loads((self.output / f"{name}-refined" / "report.json").read_text())
        left_out = {stage["name"]: stage["instances"] for stage in report["stages"] if stage["instances"]}
        return {"read": report["read"]["instances"], "left out": left_out}


def copy_photos(samples: Sequence[Sample], folder: Path) -> None:
    """Photos without their annotations."""
    folder.mkdir(exist_ok=True)
    for sample in samples:
        if not (copy := folder / Path(sample.name).name).exists():
            shutil.copyfile(sample.image, copy)


if __name__ == "__main__":
    main()
