# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Objects as soon as each is found, a caption word by word, and the whole answer at the end."""

from pathlib import Path

from florence_lite import Florence, Instance, Result

image = Path(__file__).with_name("meadow.png")
florence = Florence.from_pretrained("scenes-nano")
encoded = florence.encode(image)

for event in florence.stream(encoded, "<OD>"):
    if isinstance(event, Instance):
        print(f"{event.label:12} {event.score:.2f}", flush=True)
    elif isinstance(event, Result):
        event.draw().save("streamed.png")
        print(f"{len(event.instances)} objects, drawn in streamed.png")

for event in florence.stream(encoded, "<CAPTION>"):
    if isinstance(event, str):
        print(event, end="", flush=True)
print()
