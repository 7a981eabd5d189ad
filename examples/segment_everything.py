# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Outline everything in an image:  python segment_everything.py [IMAGE]"""

import sys
from pathlib import Path

from florence_lite import Florence

image = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("meadow.png")
florence = Florence.from_pretrained("scenes-nano")
result = florence.segment(image)  # with phrases=["the rabbit", "all buses"]: only these

for instance, mask in zip(result.instances, result.masks(), strict=True):
    points = sum(len(ring) for ring in instance.polygons)  # 0: no outline could be read, the box stays
    print(f"{instance.label:12} {instance.score:.2f}  {mask.sum():6} pixels, {points} points")
result.draw().save("outlines.png")
print("drawn in outlines.png")
