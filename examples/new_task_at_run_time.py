# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Give a task a name of its own: a sentence with a place for the input, and the form of its answer."""

from pathlib import Path

from florence_lite import Florence, TaskCard, register_task

register_task(
    TaskCard(
        name="<WHAT_IS>",
        summary="what there is at a place",
        template="what is {input}?",
        input="text",
        grammar="text",
        max_new_tokens=8,
        scoring="text",
    )
)
florence = Florence.from_pretrained("scenes-nano")
for place in ("at the top left", "in the center", "on the right"):
    result = florence.run(Path(__file__).with_name("donuts.png"), "<WHAT_IS>", text=place)
    print(f"{place}: {result.text}  ({result.score:.2f})")
