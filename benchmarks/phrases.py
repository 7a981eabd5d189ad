"""Hundreds of phrases about one image in one call against as many calls of one phrase each.

    python benchmarks/phrases.py --json

`scenes-nano` on a scene of the test split, with the phrases of it and of other scenes, so that most of them are absent.
The peer is this library, asked as a user would write it in a loop: once on an image that was encoded before, which is
what counts, and once on the picture, which each call then encodes. Rounds alternate; the table shows medians. Both
sides must say the same: ids equal, presences and scores within 1e-4. Memory is how far the process's peak lies above
its use before the call, all phrases answered, in a process of its own, against the bound `Florence.memory` (Linux).
Needs the extra `scenes`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from peer import environment

from florence_lite import Florence, Result
from florence_lite.inference.answering import joined
from florence_lite.rules import pairs
from florence_lite.scenes import Scenes
from florence_lite.scenes.catalogue import DEFAULT_STYLES

TASK = "<OPEN_VOCABULARY_DETECTION>"
SOURCES = 200  # scenes that the phrases are taken from


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phrases", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", type=int, default=2**30, help="the bound, in bytes")
    parser.add_argument("--style", nargs="+", default=DEFAULT_STYLES, help="artwork of the scenes")
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    florence = Florence.from_pretrained("scenes-nano", memory=arguments.memory, device=arguments.device)
    scenes = Scenes("test", tuple(arguments.style))
    picture, phrases = scenes[0].load(), phrases_of(scenes, arguments.phrases)
    if arguments.only_memory:
        print(json.dumps(peak_growth(florence, picture, phrases)))
        return
    rows = measure(florence, picture, phrases, arguments.rounds)
    done = subprocess.run([sys.executable, *sys.argv, "--only-memory"], capture_output=True, text=True, check=True)
    memory = {"bound_mib": arguments.memory / 2**20, "peak_growth_mib": json.loads(done.stdout)}
    if arguments.json:
        told = {**environment(), "threads": arguments.threads}
        print(json.dumps({**told, "rows": rows, "memory": memory}, indent=2))
        return
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    print("  ".join(f"{name} {value:.0f}" for name, value in memory.items()))


def phrases_of(scenes: Scenes, count: int) -> list[str]:
    found: dict[str, None] = {}
    for number in range(SOURCES):
        if len(found) >= count:
            break
        found |= dict.fromkeys(pair.inputs["phrases"][0] for pair in pairs(TASK, scenes[number].annotation))
    return list(found)[:count]


def measure(florence: Florence, picture, phrases: list[str], rounds: int) -> list[dict]:
    """A row for the encoded image and one for the picture: median seconds of both sides, and their ratio."""
    rows = []
    for name, image in (("encoded image", florence.encode(picture)), ("picture", picture)):

        def together(image=image) -> Result:
            return florence.detect(image, phrases)

        def alone(image=image) -> list[Result]:
            return [florence.run(image, TASK, phrases=[phrase]) for phrase in phrases]

        whole, parts = together(), alone()  # also the warm-up
        difference = compare(whole, joined(parts))
        times = {together: [], alone: []}
        for _ in range(rounds):
            for run, taken in times.items():
                begin = time.perf_counter()
                run()
                taken.append(time.perf_counter() - begin)
        ratios = [single / batch for batch, single in zip(times[together], times[alone], strict=True)]
        rows.append(
            {
                "image": name,
                "phrases": len(phrases),
                "present": len(phrases) - len(whole.absent),
                "one_call_s": round(statistics.median(times[together]), 4),
                "single_calls_s": round(statistics.median(times[alone]), 4),
                "ratio": round(statistics.median(ratios), 2),
                "largest_difference": difference,
            }
        )
    return rows


def compare(one: Result, other: Result) -> float:
    """The largest difference of presences and scores. SystemExit where the two do not say the same."""
    if one.token_ids != other.token_ids or one.absent != other.absent:
        raise SystemExit("the two ways give different ids")
    differences = [abs(one.presence[phrase] - other.presence[phrase]) for phrase in other.presence]
    differences += [abs(a - b) for a, b in zip(one.scores, other.scores, strict=True)]
    if max(differences) > 1e-4:
        raise SystemExit(f"presences or scores differ by {max(differences)}")
    return max(differences)


def peak_growth(florence: Florence, picture, phrases: list[str]) -> float:
    """MiB that one call takes at its peak beside what the process has before it, all phrases answered."""
    encoded = florence.encode(picture)
    florence.run(encoded, TASK, phrases=phrases[:1])
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    florence.detect(encoded, phrases, threshold=0.0)
    return (status("VmHWM") - before) / 2**10


def status(name: str) -> int:
    """KiB, as Linux tells it of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


if __name__ == "__main__":
    main()
