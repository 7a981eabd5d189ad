# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Words that a sentence lacks, from the picture: each <mask> gets one or more."""

from pathlib import Path

from florence_lite import Florence

florence = Florence.from_pretrained("scenes-nano")
image = florence.encode(Path(__file__).with_name("meadow.png"))

for text in ("a penguin, a cat and a <mask>", "a <mask>, a <mask> and a hamburger"):
    result = florence.infill(image, text)
    print(f"{text}: {result.text}")
    for number, words in enumerate(result.instances, 1):
        print(f"    mask {number}: {words.label} ({words.score:.2f})")
result.draw().save("filled.png")
