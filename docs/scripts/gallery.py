"""The pictures of docs/images: answers of the embedded checkpoint about the example images.

    python docs/scripts/gallery.py

Run it again when the checkpoint has changed. The pictures are drawn by `Result.draw`, as by `--picture` of the command.
"""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from florence_lite import Florence

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
SAMPLE = ROOT / "florence_lite" / "cli" / "sample.jpg"  # what `florence-lite run sample` opens
MEADOW, LIONS, DONUTS, FOOTBALL = (
    ROOT / "examples" / f"{name}.png" for name in ("meadow", "lions", "donuts", "football")
)
SIDE = 480  # pixels
RABBIT = (79, 14, 176, 113)  # x0 y0 x1 y1 in pixels of LIONS

PICTURES: dict[str, Callable[[Florence], Image.Image]] = {
    "sample": lambda florence: florence.run(SAMPLE, "<OD>").draw(),
    "objects": lambda florence: florence.detect(DONUTS).draw(),
    "phrases": lambda florence: florence.detect(LIONS, phrases=["the rabbit", "all lions", "the penguin"]).draw(),
    "grounding": lambda florence: florence.ground(LIONS, "a rabbit and two lions").draw(),
    "regions": lambda florence: florence.describe(DONUTS).draw(),
    "proposals": lambda florence: florence.run(DONUTS, "<REGION_PROPOSAL>").draw(),
    "captions": lambda florence: florence.caption(MEADOW, "detailed").draw(),
    "questions": lambda florence: florence.ask(MEADOW, "what is the largest object?").draw(),
    "text": lambda florence: florence.ocr(MEADOW).draw(),
    "region": lambda florence: florence.describe(LIONS, region=RABBIT).draw(),
    "outlines": lambda florence: florence.segment(LIONS).draw(),
    "outline": lambda florence: florence.segment(LIONS, region=RABBIT).draw(),
    "panoptic": lambda florence: florence.panoptic(FOOTBALL, stuff=["the sky", "the grass"]).draw(),
    "removed": lambda florence: florence.remove(LIONS, "the rabbit", dilate=12).image,
}


def main() -> None:
    florence = Florence.from_pretrained("scenes-nano")
    IMAGES.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        picture = draw(florence)
        picture.thumbnail((SIDE, SIDE))
        picture.save(IMAGES / f"{name}.webp", quality=85, method=6)
        print(f"{name}.webp  {picture.width}×{picture.height}  {(IMAGES / f'{name}.webp').stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
