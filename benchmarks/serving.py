"""How many requests a server answers in a second, asked by one client and by many, against a loop of single calls.

    python benchmarks/serving.py --json benchmarks/results/serving.json

`florence-lite serve` runs as its own process with the embedded checkpoint; clients are threads of this one, each with a
connection that stays open. The loop calls `Florence.run` in this process, with the same bytes. Rows: every request is
about a new image; and `MIXED` prompts about each image, which the server encodes once. Prompts are mixed in both.

Sides take turns with each round, whose files differ from all others behind the picture, so that no round finds its
images encoded. Shown are medians of the rounds' rates, of their ratios and of all requests' seconds. Answers must be
the same every time but for the rounding of float32, or the script ends with a message. Needs the extra serve.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from inference import median_ratio
from peer import environment
from pictures import write_files
from throughput import MIXED

from florence_lite import Florence

SINGLE = "single calls"
BOUNDARY = "a-boundary-that-no-picture-holds"
TOLERANCE = 1e-3  # of scores, and of pixels by the hundred

Question = tuple[bytes, str]  # a file and a prompt
Told = tuple[dict, float]  # an answer, and seconds that it took


class Client:
    """A connection that stays open."""

    def __init__(self, port: int):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def ask(self, question: Question) -> dict:
        image, prompt = question
        parts = (
            f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="prompt"\r\n\r\n{prompt}\r\n--{BOUNDARY}\r\n'
            'content-disposition: form-data; name="image"; filename="image"\r\n\r\n'
        )
        body = parts.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()
        headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        self.connection.request("POST", "/run", body, headers)
        response = self.connection.getresponse()
        told = json.load(response)
        if response.status != 200:
            raise SystemExit(f"the server answers {response.status}: {told['error']}")
        return told


@contextmanager
def server() -> Iterator[int]:
    """The port of a server that is a process."""
    command = [sys.executable, "-m", "florence_lite", "serve", "--port", "0", "--max-queue", "64", "--timeout", "600"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        if " answers at http" not in line:
            raise SystemExit(f"the server does not start: {line}{process.stderr.read()}")
        try:
            yield int(line.split()[3].rsplit(":", 1)[1])
        finally:
            process.terminate()


def timed(ask: Callable[[Question], dict], question: Question) -> Told:
    begin = time.perf_counter()
    return ask(question), time.perf_counter() - begin


def by_clients(port: int, count: int) -> Callable[[Sequence[Question]], list[Told]]:
    """Asks by `count` clients at a time, each of which asks again when it is answered."""

    def answers(questions: Sequence[Question]) -> list[Told]:
        own = threading.local()

        def connect() -> None:
            own.client = Client(port)

        with ThreadPoolExecutor(count, initializer=connect) as threads:
            return list(threads.map(lambda question: timed(own.client.ask, question), questions))

    return answers


def alike(told: object, expected: object) -> bool:
    """The same, but for the rounding of float32 that depends on the batch."""
    if isinstance(expected, dict):
        return told.keys() == expected.keys() and all(alike(told[name], expected[name]) for name in expected)
    if isinstance(expected, list):
        return len(told) == len(expected) and all(map(alike, told, expected))
    if isinstance(expected, float):
        return abs(told - expected) <= TOLERANCE * max(1, abs(expected) / 100)
    return told == expected


def measure(name: str, questions: Sequence[Question], ways: dict, rounds: int) -> dict:
    """Rates, ratios and seconds of a row."""
    taken: dict[str, list[float]] = {side: [] for side in ways}
    seconds: dict[str, list[float]] = {side: [] for side in ways}
    expected = None
    for number in range(rounds + 1):  # the first warms up
        for place, (side, way) in enumerate(ways.items()):
            fresh = [(image + f"{name} {number} {place}".encode(), prompt) for image, prompt in questions]
            begin = time.perf_counter()
            told = way(fresh)
            whole = time.perf_counter() - begin
            answers = [json.loads(json.dumps(answer)) for answer, _ in told]
            expected = expected or answers
            if not alike(answers, expected):
                raise SystemExit(f"{name}: {side} gives other answers")
            if number:
                taken[side].append(whole)
                seconds[side] += [each for _, each in told]
    return {
        "work": name,
        "requests": len(questions),
        "requests_a_second": {side: len(questions) / statistics.median(each) for side, each in taken.items()},
        "times_single_calls": {side: median_ratio(taken[SINGLE], each) for side, each in taken.items()},
        "median_seconds": {side: statistics.median(each) for side, each in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=96, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16], help="so many at a time")
    parser.add_argument("--json", metavar="OUT", help="file to write")
    arguments = parser.parse_args()
    told = {**environment(), "rounds": arguments.rounds, "rows": []}
    florence = Florence.from_pretrained()

    def single(questions: Sequence[Question]) -> list[Told]:
        return [timed(lambda each: florence.run(*each, keep_image=False).to_dict(), each) for each in questions]

    with tempfile.TemporaryDirectory() as folder, server() as port:
        files = [path.read_bytes() for path in write_files(Path(folder), arguments.requests)]
        prompts = [MIXED[number % len(MIXED)] for number in range(len(files))]
        some = files[: len(files) // len(MIXED)]
        ways = {SINGLE: single}
        for count in arguments.clients:
            ways[f"{count} client{'s' if count > 1 else ''}"] = by_clients(port, count)
        for name, questions in (
            ("every image new", list(zip(files, prompts, strict=True))),
            (f"{len(MIXED)} prompts about each image", [(image, prompt) for image in some for prompt in MIXED]),
        ):
            row = measure(name, questions, ways, arguments.rounds)
            told["rows"].append(row)
            rates = ", ".join(
                f"{side} {rate:.1f}/s ({row['times_single_calls'][side]:.2f}×, {row['median_seconds'][side]:.3f} s)"
                for side, rate in row["requests_a_second"].items()
            )
            print(f"{name}: {row['requests']} requests: {rates}", flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
