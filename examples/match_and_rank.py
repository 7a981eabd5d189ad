# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Which sentence belongs to which picture: all images against all texts, both ways."""

from pathlib import Path

from PIL import Image

from florence_lite import Florence, Result

florence = Florence.from_pretrained("scenes-nano")
images = sorted(Path(__file__).parent.glob("*.png"))
texts = ["two soccer balls and a penguin", "a rabbit, two lions and two buses", "a penguin, a cat and a hamburger"]

ranking = florence.rank(images, texts)
side = 400
sheet = Image.new("RGB", (side * len(texts), side + 30), "white")
for place, text in enumerate(texts):
    best = images[ranking.images_of(place)[0]]
    print(f"{text}: {best.name}")
    with Image.open(best) as picture:
        drawn = Result("<CAPTION>", picture.size, text, image=picture.convert("RGB")).draw(max_side=side)
    sheet.paste(drawn, (place * side, 0))
sheet.save("ranked.png")

if "<IMAGE_TEXT_MATCHING>" in florence.card.tasks:  # rank orders; a checkpoint that learned to match says "none" too
    print(florence.match(images, texts).round(2))
