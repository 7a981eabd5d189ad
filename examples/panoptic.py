# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Which thing or stuff does each pixel belong to?"""

from pathlib import Path

import numpy as np

from florence_lite import Florence

florence = Florence.from_pretrained("scenes-nano")
result = florence.panoptic(Path(__file__).with_name("football.png"), stuff=["the sky", "the grass"])

for segment in result.segments:
    kind = "thing" if segment.is_thing else "stuff"
    print(f"{segment.id:3}  {segment.label:12} {kind}  {segment.area:6} pixels")
semantic = result.semantic_map()  # k stands for result.labels[k - 1]
print(f"pixels of no segment: {np.mean(semantic == 0):.0%}")  # result.to_png() and to_coco(): as COCO writes them
result.draw().save("panoptic.png")
