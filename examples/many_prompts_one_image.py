# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Ask many things about one image: it goes through the vision tower once, and the prompts are answered in one batch."""

from pathlib import Path

from florence_lite import Florence, Prompt

florence = Florence.from_pretrained("scenes-nano")
encoded = florence.encode(Path(__file__).with_name("meadow.png"))

prompts = [
    "<CAPTION>",
    "<DETAILED_CAPTION>",
    "<OCR>",
    Prompt("<VQA>", text="how many objects are there?"),
    Prompt("<REGION_TO_CATEGORY>", region=(18, 58, 83, 126)),
]
for result in florence.run(encoded, prompts):
    print(f"{result.task:25} {result.text}  ({result.score or 0:.2f})")
