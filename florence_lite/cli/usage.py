"""What `--help` says beside the commands' own words: a line for each, true examples, and the exit codes."""

from __future__ import annotations

from typing import Any

SUMMARIES = {  # of 64 letters at most, which a terminal of 80 shows whole
    "run": "Answer one prompt about each of the images.",
    "segment": "Outline all objects of images, or what phrases name.",
    "panoptic": "Tell which thing or stuff every pixel belongs to.",
    "remove": "Paint over what a phrase names.",
    "match": "Tell how probably each text is true of each image.",
    "rank": "Order texts and images by how well they suit each other.",
    "find": "Find the images in which a phrase is most probably there.",
    "tasks": "List what can be asked.",
    "checkpoints": "List the checkpoints with their licences and figures.",
    "annotate": "Ask tasks about any number of images, each exactly once.",
    "refine": "Filter such answers in stages, and tell why each was dropped.",
    "train": "Train from scratch on scenes, or further on your own data.",
    "eval": "Measure a checkpoint on annotated images or on scenes.",
    "calibrate": "Fit how sure a checkpoint must be that a phrase is there.",
    "demo": "Show a page in the browser that asks any task.",
    "serve": "Answer prompts about images over HTTP.",
    "export": "Write a checkpoint as graphs that run without torch.",
    "data check": "Count what a data set holds, and report its problems.",
    "data convert": "Write annotated images in the format of another tool.",
}
EXAMPLES = {
    "run": (
        'florence-lite run sample "<OD>" --picture out.png',
        'florence-lite run photos "<CAPTION>" --checkpoint microsoft/Florence-2-base --out answers',
        'cat photo.jpg | florence-lite run - "<OCR_WITH_REGION>" --json',
    ),
    "segment": (
        "florence-lite segment photo.jpg --picture out.png",
        'florence-lite segment photo.jpg --phrase "the dog" --phrase "all cars" --json',
    ),
    "panoptic": ('florence-lite panoptic photo.jpg --stuff "the sky" --stuff "the grass" --picture out.png',),
    "remove": ('florence-lite remove photo.jpg "the bus" --output without.png',),
    "match": ('florence-lite match photo.jpg --text "a dog and a cat" --text "two dogs"',),
    "rank": ('florence-lite rank a.jpg b.jpg --text "a dog on a beach" --text "a red car"',),
    "find": (
        'florence-lite find photos --phrase "the dog" --top 3 --picture found.png',
        'florence-lite find "photos/**/*.jpg" --phrase "a red car" --threshold 0 --json',
    ),
    "tasks": ("florence-lite tasks",),
    "checkpoints": ("florence-lite checkpoints",),
    "annotate": (
        'florence-lite annotate photos --tasks "<OD>" "<CAPTION>" --output answers',
        'florence-lite annotate "photos/**/*.jpg" --tasks "<OPEN_VOCABULARY_DETECTION>" --phrase dog --output answers',
        "florence-lite annotate --config examples/annotate.toml",
    ),
    "refine": (
        "florence-lite refine answers --to clean --threshold 0.5",
        "florence-lite refine answers --to clean --config examples/refine.toml --corrections mine.jsonl",
    ),
    "train": ("florence-lite train examples/finetune.toml",),
    "eval": (
        'florence-lite eval --checkpoint runs/mine/best --data my-photos --split test --tasks "<OD>" --margins',
        "florence-lite eval --count 100 --json",
    ),
    "calibrate": ("florence-lite calibrate --checkpoint runs/mine/best --data my-photos --split validation",),
    "demo": ("florence-lite demo", "florence-lite demo --checkpoint runs/mine/best --port 8080"),
    "serve": ("florence-lite serve", "florence-lite serve --checkpoint runs/mine/best --port 8080 --max-queue 16"),
    "export": (
        "florence-lite export --to onnx --output exported",
        "florence-lite export --checkpoint runs/mine/best --to openvino --output exported",
    ),
    "data check": ("florence-lite data check my-photos --sheet sheet.png",),
    "data convert": (
        "florence-lite data convert my-photos --to coco --split train --split val --output my-photos-coco",
        "florence-lite data convert clean --to yolo --output for-yolo --copy-images",
    ),
}
START = ('florence-lite run sample "<OD>"', "florence-lite tasks", "florence-lite COMMAND --help")
EXIT_CODES = """Exit codes: 0 all went well; 1 some images could not be answered; 2 none could, or
the command has a mistake; 130 Ctrl-C stopped it."""


def taught(command: str) -> dict[str, Any]:
    """What typer is told of a command beside the function."""
    return {"short_help": SUMMARIES[command], "epilog": epilog(command)}


def epilog(command: str = "") -> str:
    """The end of the help of a command; without one, that of the whole."""
    lines = ["Examples:", *(f"  {line}" for line in (EXAMPLES[command] if command else START))]
    # \b keeps the line breaks of what follows, up to an empty line.
    return "\n".join(["\b", *lines, *([] if command else ["", "\b", *EXIT_CODES.splitlines()])])
