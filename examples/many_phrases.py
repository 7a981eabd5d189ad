# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Ask for hundreds of phrases at once: each gets its own probability, and boxes only where it is present."""

from pathlib import Path

from florence_lite import Florence
from florence_lite.scenes import CLASSES

PLACES = ("on the left", "on the right")
florence = Florence.from_pretrained("scenes-nano")
phrases = [f"the {label}" for label in CLASSES] + [f"the {label} {place}" for label in CLASSES for place in PLACES]
result = florence.detect(Path(__file__).with_name("meadow.png"), phrases, threshold=0.9)

print(f"{len(phrases)} phrases, {len(result.absent)} absent")
for phrase in sorted(result.presence, key=result.presence.get, reverse=True)[:8]:
    print(f"{result.presence[phrase]:.2f}  {phrase}")
result.draw().save("many_phrases.png")
