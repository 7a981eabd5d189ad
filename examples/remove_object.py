# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Take an object out of a picture; all pixels but those of its mask stay as they are."""

from pathlib import Path

from PIL import Image

from florence_lite import Florence

florence = Florence.from_pretrained("scenes-nano")
image = Image.open(Path(__file__).with_name("lions.png")).convert("RGB")
removal = florence.remove(image, "the rabbit")  # inpaint=…: a model that fills the mask better than with smooth colours

print("painted over:" if removal.found else "not in the image:", int(removal.mask.sum()), "pixels")
both = Image.new("RGB", (2 * image.width, image.height))
both.paste(image, (0, 0))
both.paste(removal.image, (image.width, 0))
both.save("removed.png")
