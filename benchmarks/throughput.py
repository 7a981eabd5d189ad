"""How many images are answered in a second: files from a folder in one call against a loop of single calls, and against
transformers with its best batch size.

    python benchmarks/throughput.py --size base --json results/throughput-base.json

The files are generated: JPEG and PNG of several sizes, scenes where their artwork is installed, else blurred noise.
`Florence.run_each` and `Florence.run` take all of them; so the first two rows, the embedded checkpoint, show what one
call does about hundreds of files: they are read by threads while the network works, and a prompt takes the place of
another as soon as that is answered. The others have random weights of `--size`, prompts that go to the encoder, and an
end token that never wins, so that every answer has `--tokens` ids; there transformers does the same work as its
documentation shows: pictures opened with PIL, its processor, `generate` with several pictures and prompts in a batch,
`post_process_generation`. The best of `BATCHES` is found on the first part of the files and takes part in the others.

The files are worked on in parts. Sides take turns with each part, after one for warming up; shown are medians of the
parts' rates and of their ratios. Ids must be equal every time, or the script ends with a message; but for two answers
in a hundred, where the rounding of another batch may tip a coordinate, and which are counted. Needs transformers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from inference import median_ratio, tokenizer_of
from native import build
from ours import save_for_users
from peer import environment
from pictures import write_files
from PIL import Image

from florence_lite import Florence
from florence_lite.model import FlorenceConfig

MIXED = ("<OD>", "<CAPTION>", "<DETAILED_CAPTION>", "<OCR>", "<MORE_DETAILED_CAPTION>", "<REGION_PROPOSAL>")
BATCHES = (1, 2, 4, 8, 16, 32)
AGAINST_PEER = {"nano": 500, "base": 24, "large": 8}  # files at most, which take transformers a minute or two
ROUNDED = 0.02  # share of the answers of a part that the rounding of another batch may change
SINGLE, TOGETHER, PEER = "single calls", "one call", "transformers"

Way = Callable[[Sequence[Path], Sequence[str]], list[list[int]]]  # files, a prompt about each → ids of the answers


def ways_of(florence: Florence, **options) -> dict[str, Way]:
    """Calls of this library; scores come with the answers."""

    def single(files: Sequence[Path], prompts: Sequence[str]) -> list[list[int]]:
        return [
            list(florence.run(file, prompt, keep_image=False, **options).token_ids)
            for file, prompt in zip(files, prompts, strict=True)
        ]

    def together(files: Sequence[Path], prompts: Sequence[str]) -> list[list[int]]:
        if len(set(prompts)) == 1:
            answers = florence.run_each(files, prompts[0], **options)
        else:
            answers = florence.run(list(files), list(prompts), keep_image=False, **options)
        return [list(answer.token_ids) for answer in answers]

    return {SINGLE: single, TOGETHER: together}


class Peer:
    """transformers, a batch of files at a time."""

    def __init__(self, folder: str, tokens: int, device: str):
        native = transformers.Florence2ForConditionalGeneration.from_pretrained(folder)
        self.native, self.tokens = native.eval().to(device), tokens
        self.processor = transformers.AutoProcessor.from_pretrained(folder)

    def batches_of(self, size: int) -> Way:
        def answer(files: Sequence[Path], prompts: Sequence[str]) -> list[list[int]]:
            found = []
            for first in range(0, len(files), size):
                found += self._together(files[first : first + size], prompts[first : first + size])
            return found

        return answer

    def _together(self, files: Sequence[Path], prompts: Sequence[str]) -> list[list[int]]:
        pictures = [Image.open(file).convert("RGB") for file in files]
        inputs = self.processor(text=list(prompts), images=pictures, return_tensors="pt", padding=True)
        ids = self.native.generate(
            **inputs.to(self.native.device), max_new_tokens=self.tokens, num_beams=1, do_sample=False
        )
        texts = self.processor.batch_decode(ids, skip_special_tokens=False)
        for text, prompt, picture in zip(texts, prompts, pictures, strict=True):
            self.processor.post_process_generation(text, task=prompt, image_size=picture.size)
        return ids[:, 1:].tolist()


@dataclass
class Work:
    """A row: a prompt about each file, those of `prompts` in turn."""

    name: str
    prompts: Sequence[str]
    ways: dict[str, Way]
    peer: Peer | None = None


def measure(work: Work, files: Sequence[Path], parts: int) -> dict:
    """Rates and ratios of a row."""
    prompts = [work.prompts[number % len(work.prompts)] for number in range(len(files))]
    size = len(files) // parts
    slices = [slice(first, first + size) for first in range(0, size * parts, size)]
    expected: dict[int, list[list[int]]] = {}
    differing: dict[str, int] = {}

    def seconds(name: str, way: Way, number: int) -> float:
        begin = time.perf_counter()
        got = way(files[slices[number]], prompts[slices[number]])
        taken = time.perf_counter() - begin
        others = sum(map(list.__ne__, got, expected.setdefault(number, got)))
        if len(got) != size or others > ROUNDED * size:
            raise SystemExit(f"{work.name}: {others} of {size} answers of {name} are not those of the others")
        differing[name] = differing.get(name, 0) + others
        return taken

    ways = dict(work.ways)
    for way in ways.values():
        way(files[:2], prompts[:2])  # warming up
    found = {"work": work.name, "files": size * parts, "ids": None}
    if work.peer is not None:
        seconds(TOGETHER, ways[TOGETHER], 0)  # what the others have to answer
        work.peer.batches_of(1)(files[:1], prompts[:1])
        tried = {batch: size / seconds(PEER, work.peer.batches_of(batch), 0) for batch in BATCHES if batch <= size}
        best = max(tried, key=tried.__getitem__)
        found["batch_sizes"] = {str(batch): rate for batch, rate in tried.items()}
        ways[f"{PEER}, batches of {best}"] = work.peer.batches_of(best)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(parts):
        for name, way in ways.items():
            taken[name].append(seconds(name, way, number))
    found["ids"] = statistics.mean(len(ids) for part in expected.values() for ids in part)
    found["answers_that_differ"] = {name: differing[name] for name in ways}
    found["images_a_second"] = {name: size / statistics.median(each) for name, each in taken.items()}
    found["ratios"] = {name: median_ratio(each, taken[TOGETHER]) for name, each in taken.items() if name != TOGETHER}
    return found


def as_line(found: dict) -> str:
    rates = " | ".join(f"{name} {rate:.2f}/s" for name, rate in found["images_a_second"].items())
    ratios = ", ".join(f"{ratio:.2f} times {name}" for name, ratio in found["ratios"].items())
    return f"{found['work']:36}{found['files']:4} files, {found['ids']:.0f} ids each: {rates} | {ratios}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("base", "large", "nano"), default="nano", help="of the random weights")
    parser.add_argument("--files", type=int, default=500, help="at most so many")
    parser.add_argument("--parts", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="ids of an answer by random weights")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="rows whose names begin so")
    parser.add_argument("--tokenizer", help="folder with a Florence-2 tokenizer; without it, one is trained")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="OUT", help="file to write")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    told = {**environment(), "size": arguments.size, "device": arguments.device}
    told["rows"] = []
    with tempfile.TemporaryDirectory() as folder:
        (pictures := Path(folder) / "pictures").mkdir()
        files = write_files(pictures, arguments.files)
        few = files[: AGAINST_PEER[arguments.size]]
        embedded = ways_of(Florence.from_pretrained(device=arguments.device))
        config = FlorenceConfig.preset(arguments.size, prompt_side="encoder")
        ours, _ = build(config, arguments.seed, "cpu", torch.float32)
        save_for_users(ours, tokenizer_of(arguments.tokenizer), folder)
        options = {"compat": True, "max_new_tokens": arguments.tokens}
        ways = ways_of(Florence.from_pretrained(folder, device=arguments.device), **options)
        peer = Peer(folder, arguments.tokens, arguments.device)
        for work, of_work in (
            (Work("embedded, <OD>", ("<OD>",), embedded), files),
            (Work("embedded, mixed prompts", MIXED, embedded), files),
            (Work(f"{arguments.size}, <OD>", ("<OD>",), ways, peer), few),
            (Work(f"{arguments.size}, mixed prompts", MIXED, ways, peer), few),
        ):
            if arguments.only and not any(work.name.startswith(each) for each in arguments.only):
                continue
            found = measure(work, of_work, arguments.parts)
            told["rows"].append(found)
            print(as_line(found), flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
