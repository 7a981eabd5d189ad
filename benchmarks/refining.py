"""Are the filters of `florence-lite refine` worth it? Boxes of generated scenes, held against the truth, with each.

    python benchmarks/refining.py                            # scenes as the embedded checkpoint knows them
    python benchmarks/refining.py --style noto               # scenes in artwork that its training never saw

The embedded checkpoint annotates the scenes without a threshold, is asked about each of its boxes, and writes captions;
a second opinion comes from beams instead of the likeliest next word. Then `refine` runs with each stage alone, with all
at once, and with a scale of thresholds. Precision and recall are of boxes with the right label and an IoU of 0.5, over
all scenes: a scene that is dropped as a whole is not found.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from florence_lite.annotate import AnnotateConfig, CheckpointConfig, TaskConfig, annotate
from florence_lite.answers import Instance
from florence_lite.data.rows import from_record
from florence_lite.evaluate.metrics.measurement import Case
from florence_lite.evaluate.metrics.places import box_f1
from florence_lite.refine import RefineConfig, refine
from florence_lite.results import Result
from florence_lite.rules import Pair
from florence_lite.scenes import DEFAULT_STYLES, Scenes

DETECTION = "<OD>"
STAGES = ("faults", "slivers", "whole", "twins", "opinions", "captions", "regions", "duplicates")  # alone
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="scenes of the test split")
    parser.add_argument("--style", nargs="+", default=DEFAULT_STYLES, help="artwork styles")
    parser.add_argument("--folder", type=Path, help="keep scenes and answers here, and go on with them")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = measured(arguments.folder or Path(scratch), arguments.count, tuple(arguments.style))
    if arguments.json:
        print(json.dumps({"count": arguments.count, "styles": list(arguments.style), "rows": rows}, indent=1))
        return
    print("| stages | boxes | precision | recall | F1 |\n|---|---|---|---|---|")
    for row in rows:
        print("| {stages} | {boxes:,} | {precision:.3f} | {recall:.3f} | {f1:.3f} |".format(**row))


def measured(folder: Path, count: int, styles: tuple[str, ...]) -> list[dict[str, Any]]:
    truth = write_scenes(folder / "scenes", count, styles)
    answers = folder / "answers"
    detection, source = TaskConfig(DETECTION, threshold=0.0), str(folder / "scenes")
    first = (detection, "<CAPTION>", TaskConfig("<REGION_TO_CATEGORY>", of=DETECTION))
    beams = CheckpointConfig(tag="beams", decoding={"num_beams": 3})
    for asked in (
        AnnotateConfig(source, str(answers), first),
        AnnotateConfig(source, str(answers), (detection,), checkpoints=(beams,)),
    ):
        annotate(asked, tell=lambda line: None)
    runs = {"none": RefineConfig((), sheet=0)}
    runs |= {name: RefineConfig((name,), sheet=0) for name in STAGES}
    for threshold in THRESHOLDS:
        runs[f"scores from {threshold}"] = RefineConfig(
            ("scores",), settings={"scores": {"threshold": threshold}}, sheet=0
        )
    runs["the default"] = RefineConfig(sheet=0)
    runs["all"] = RefineConfig(settings={"captions": {}, "regions": {}}, sheet=0)
    rows = []
    for name, config in runs.items():
        refine(answers, folder / "kept", config)
        rows.append({"stages": name} | boxes(folder / "kept", truth))
    return rows


def write_scenes(folder: Path, count: int, styles: tuple[str, ...]) -> dict[str, Pair]:
    """Draw the scenes into files; file → its true boxes."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = {}
    for number, sample in enumerate(Scenes("test", styles, length=count)):
        file = folder / f"{number:05d}.png"
        if not file.is_file():
            sample.load().save(file)
        objects = (Instance(item.label, box=item.box) for item in sample.annotation.objects)
        truth[str(file.resolve())] = Pair(instances=tuple(objects))
    return truth


def boxes(folder: Path, truth: dict[str, Pair]) -> dict[str, float]:
    """How many boxes are kept, and how good they are."""
    import pyarrow.parquet as pq

    found = {source: Result(DETECTION, (1, 1)) for source in truth}
    for part in (folder / "parts").glob("*.parquet"):
        for row in map(from_record, pq.read_table(part).to_pylist()):
            if row.query.task == DETECTION and not row.query.tag:
                found[row.image.source] = row.result
    values = box_f1([Case(truth[source], result) for source, result in found.items()]).metrics
    count = sum(map(len, found.values()))
    return {"boxes": count} | {name.removeprefix("box_"): value for name, value in values.items()}


if __name__ == "__main__":
    main()
