# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Find what phrases name; a phrase that names nothing in the image brings no box."""

from pathlib import Path

from florence_lite import Florence

florence = Florence.from_pretrained("scenes-nano")
phrases = ["rabbit", "the lion at the bottom", "all buses", "the bicycle"]
result = florence.detect(Path(__file__).with_name("lions.png"), phrases=phrases)

for phrase in phrases:
    found = [instance for instance in result.instances if instance.label == phrase]
    print(phrase, "" if found else "- not in the image")
    for instance in found:
        print(f"    {instance.score:.2f}  {[round(number) for number in instance.box]}")
result.draw().save("phrases.png")
