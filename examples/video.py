# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite[vis]", "trackers"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Objects of a video with a number that stays:  python video.py [VIDEO.gif or .webp, or FOLDER of frames]

Frames from imageio.v3.imiter or cv2.VideoCapture (mind its BGR) do as well, and any tracker that takes
`supervision.Detections`. Without a video a camera pans over a picture. Needs  pip install trackers
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageSequence
from trackers import ByteTrackTracker

from florence_lite import Florence


def frames(source: Path | None) -> Iterator[Image.Image]:
    if source is None:
        picture = Image.open(Path(__file__).with_name("meadow.png"))
        yield from (picture.crop((x, 0, x + 176, picture.height)) for x in range(0, picture.width - 176, 4))
    elif source.is_dir():
        yield from map(Image.open, sorted(file for file in source.iterdir() if file.suffix in (".png", ".jpg")))
    else:
        yield from ImageSequence.Iterator(Image.open(source))


florence = Florence.from_pretrained("scenes-nano")
tracker, pictures, seen = ByteTrackTracker(track_activation_threshold=0.5, minimum_consecutive_frames=1), [], {}
for frame in (each.convert("RGB") for each in frames(Path(sys.argv[1]) if len(sys.argv) > 1 else None)):
    tracked = tracker.update(florence.detect(frame, threshold=0.3).to_supervision())
    pen = ImageDraw.Draw(frame)
    for box, number, label in zip(tracked.xyxy.tolist(), tracked.tracker_id, tracked.data["class_name"], strict=True):
        if number >= 0:  # -1: not sure yet
            seen.setdefault(int(number), str(label))
            pen.rectangle(box, outline="red", width=2)
            pen.text(box[:2], f"{number} {label}", fill="red", stroke_width=2, stroke_fill="white")
    pictures.append(frame)
pictures[0].save("tracked.gif", save_all=True, append_images=pictures[1:], duration=120, loop=0)
print(f"{len(pictures)} frames, drawn in tracked.gif; seen: {seen}")
