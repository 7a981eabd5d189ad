# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Questions with a closed list of answers: one of the list is always given, with a probability for each."""

from dataclasses import replace
from pathlib import Path

from florence_lite import Florence

questions = {
    "is there a rabbit?": ["yes", "no"],
    "what is on the right?": ["bus", "cat", "lion", "rabbit"],
    "what is the largest object?": ["bus", "cat", "lion", "rabbit"],
}
florence = Florence.from_pretrained("scenes-nano")
image = florence.encode(Path(__file__).with_name("lions.png"))

said = []
for question, choices in questions.items():
    result = florence.ask(image, question, choices=choices)
    shares = ", ".join(f"{choice} {share:.2f}" for choice, share in result.choices.items())
    print(f"{question} {result.text}  ({shares})")
    said.append(f"{question} {result.text} ({result.score:.2f})")
replace(result, text="\n".join(said)).draw().save("answers.png")
