# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Find the objects in an image and draw them:  python detect_and_draw.py [IMAGE]"""

import sys
from pathlib import Path

from florence_lite import Florence

image = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("meadow.png")
florence = Florence.from_pretrained("scenes-nano")
result = florence.detect(image)

for label, score, box in zip(result.labels, result.scores, result.boxes_xyxy.round(1).tolist(), strict=True):
    print(f"{label:12} {score:.2f}  {box}")
result.draw().save("detected.png")
print("drawn in detected.png")
