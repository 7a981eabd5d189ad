# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Find the 200 small things of a large image in tiles; asked as one image, the network sees none of them."""

import json
from pathlib import Path

from PIL import Image

from florence_lite import Florence
from florence_lite.geometry import box_iou

folder, side, things = Path(__file__).parent, 224, []
truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
large = Image.new("RGB", (10 * side, 5 * side))
for row, column in ((number // 10, number % 10) for number in range(50)):
    name = sorted(truth)[(row + column) % len(truth)]
    large.paste(Image.open(folder / name).resize((side, side)), (column * side, row * side))
    for thing in truth[name]["objects"]:
        x0, y0, x1, y1 = (number * side / truth[name]["size_wh"][0] for number in thing["box"])
        things.append((x0 + column * side, y0 + row * side, x1 + column * side, y1 + row * side))
florence = Florence.from_pretrained("scenes-nano")
for way, tile in (("as one image", None), ("in tiles", (side, 70))):
    result = florence.detect(large, tile=tile)
    print(f"{way}: {(box_iou(things, result.boxes_xyxy) >= 0.5).any(1).sum()} of {len(things)} found")
result.filter(score=0.2).draw().save("tiles.png")
