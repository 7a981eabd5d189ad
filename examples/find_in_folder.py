# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Look through a folder for what a phrase names:  python find_in_folder.py [FOLDER PHRASE]"""

import sys
from pathlib import Path

from florence_lite import Florence

folder, phrase = sys.argv[1:] if len(sys.argv) > 1 else (Path(__file__).parent, "the chair")
florence = Florence.from_pretrained("scenes-nano")
search = florence.find(sorted(Path(folder).glob("*.png")), phrase, top=3)  # any number of images, in constant memory

for found in search:
    boxes = found.result.boxes_xyxy.round().astype(int).tolist()
    print(f"{found.presence:.2f}  {Path(found.name).name:14} {boxes}")
print(f"{search.images} images; absent from {search.absent}, {len(search.errors)} cannot be read")
if search.found:
    search[0].result.draw().save("found.png")
