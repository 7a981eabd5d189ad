"""Give a task a name of its own: a sentence with a place for the input, and the form of its answer."""

from pathlib import Path

from florence_lite import Florence, TaskCard, register_task

register_task(
    TaskCard(
        name="<COUNT>",
        summary="how many of the named things there are",
        template="how many {input} are there?",
        input="text",
        grammar="text",
        max_new_tokens=8,
        scoring="text",
    )
)
florence = Florence.from_pretrained("scenes-nano")
for things in ("donuts", "chairs", "lions"):
    result = florence.run(Path(__file__).with_name("donuts.png"), "<COUNT>", text=things)
    print(f"{things}: {result.text}  ({result.score:.2f})")
