# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Labels from a list of your own: nothing else can be said, and what is not on the list is called by what is."""

from pathlib import Path

from florence_lite import Florence

image = Path(__file__).with_name("meadow.png")
florence = Florence.from_pretrained("scenes-nano")
encoded = florence.encode(image)

for labels in (None, ["cat", "penguin", "pizza"]):
    result = florence.run(encoded, "<OD>", labels=labels)
    print(f"{labels or 'any label'}:")
    for item in result.instances:
        print(f"    {item.label:12} {item.score:.2f}")
result.draw().save("closed.png")

region = result.instances[1].box
for labels in (["cat", "dog"], ["penguin", "hamburger", "owl"]):
    answer = florence.run(encoded, "<REGION_TO_CATEGORY>", region=region, labels=labels)
    print(f"{' or '.join(labels)}: {answer.text} ({answer.score:.2f})")
