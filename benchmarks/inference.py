"""How fast answers are made, piece by piece, against transformers' native Florence-2, onnxruntime and OpenVINO.

    python benchmarks/inference.py --size base --json results/inference-base.json

Every side does the same work with the same random weights in one process, float32; image features and states must
agree and ids must be equal every time, or the script ends with a message. Rounds alternate between the sides. Shown are
medians; ratios are medians of the rounds' ratios. In the same rounds the machine is measured: the floor of a row is its
multiplications at the best rate of any kernel plus what decoding has to read at the best rate of reading (`floor.py`).
Beside ratios stand the bars for this kind of machine, of base size on two cores, and whether they are met.

Decoding starts from the encoder's states and makes 64 ids (with --long, 256 too) under the n-gram rule of Florence-2's
defaults. transformers runs as its users run it, one call for every prompt; where several prompts are asked, its best
way stands beside it. onnxruntime and OpenVINO run graphs that `exported.py` writes into a cache, and are left out with
a note where they are not installed. "the user's call" is `Florence.run(image, "<OD>")` with scores, decoded as the
checkpoint's files say, against processor, `generate` and `post_process_generation`, which give none. Memory and loading
are measured in processes of their own (`footprint.py`). Needs transformers.

On a GPU (--device cuda) there are more images in a row, convolutions are in float32 as all else is, and with --compiled
transformers' generation with a static cache stands beside it. With --dtype float16 or bfloat16 both sides run in that;
ids may differ then, so that the greatest difference of numbers and the share of equal ids are shown instead.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import exported
import footprint
import numpy as np
import torch
import transformers
from floor import Machine, Network, Work, synchronize, together
from native import (
    Transformers,
    TransformersBatched,
    TransformersBf16,
    TransformersCompiled,
    UserOfTransformers,
    build,
)
from ours import Ours, UserOfOurs, save_for_users
from peer import cpu_abilities, environment
from PIL import Image

from florence_lite.cards import tasks
from florence_lite.engine.fast import kernel
from florence_lite.model import FlorenceConfig
from florence_lite.tokens import Tokenizer

OURS, NATIVE = Ours.name, Transformers.name
PEERS = tuple(exported.GRAPHS)
TOLERANCE = 1e-3  # of features and states, whose numbers are about 1
PROMPT = (0, *range(100, 108), 2)
MIXED = [(0, *range(100, 100 + length), 2) for length in (5, 8, 11, 16)]  # of different lengths, as those of tasks are
CALLS_ON_GPU = 2  # before the warm-up: work that comes again is captured as graphs
SHORT = 32  # ids of answers to several prompts


@dataclass(frozen=True)
class Bar:
    """Least ratio to transformers with AVX-512 and with AVX2 alone, and to the better peer; most times the floor."""

    avx512: float
    avx2: float | None  # None: nobody has said
    peers: float | None = None
    floor: float | None = None

    @property
    def transformers(self) -> float | None:
        return self.avx512 if cpu_abilities()[0] == "AVX512" else self.avx2


BARS = {
    "vision, batch 1": Bar(2.1, 1.3, 1.05, 1.3),
    "encoder": Bar(1.6, 1.2, 0.9, 1.4),
    "greedy 64": Bar(1.8, 1.7, 0.9, 1.3),
    "beam-3 64": Bar(4, 4, 1.1, 1.35),
    "image, greedy 64": Bar(2.2, 1.4, 1.05, 1.35),
    "image, beam-3 64": Bar(3.2, 2, 1.2, 1.35),
    "4 prompts on an image": Bar(6, 4.5),
    "the user's call": Bar(2.2, 1.4),
    "vision, batch 1, bf16": Bar(3.5, None, 1.1),
    "greedy 64, bf16": Bar(2.8, None, 1.1),
    "greedy 64, int8": Bar(3.5, 3.5),
}


@dataclass
class Row:
    """A piece of work that sides do, each by the call of its name. each: sides that do the row. exact: whether all must
    give the same; else what differs is told."""

    name: str
    run: Callable[[Any], Any]
    floor: Work = field(default_factory=Work)
    each: tuple[str, ...] = (OURS, NATIVE, *PEERS)
    exact: bool = True


def rows_of(config: FlorenceConfig, tokens: list[int], seed: int, device: str, dtype: torch.dtype) -> list[Row]:
    """The table. tokens: lengths of answers; several prompts have `SHORT` ones."""
    network, ours = Network(config, dtype), torch.Generator().manual_seed(seed)
    width, height = config.image_size_wh

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=ours).to(device, dtype)

    pixels = numbers(4, 3, height, width)
    features = numbers(1, config.image_tokens, config.text.d_model)
    prompt, length = list(PROMPT), len(PROMPT)
    states = numbers(1, config.image_tokens + length, config.text.d_model)
    one, vision = pixels[:1], network.vision()
    batches = {1: one, 4: pixels} | ({16: pixels.repeat(4, 1, 1, 1)} if device == "cuda" else {})
    rows = [
        Row(f"vision, batch {count}", lambda side, images=images: side.vision(images), network.vision(count))
        for count, images in batches.items()
    ]
    rows += [
        Row("encoder", lambda side: side.encoder(features, prompt), network.encoder([length])),
    ]
    ways = [(f"{name} {count}", count, beams) for count in tokens for name, beams in (("greedy", 1), ("beam-3", 3))]
    for name, count, beams in ways:
        floor = network.decoding([length], count, cross=True)
        sides = (OURS, NATIVE, *PEERS, *([TransformersCompiled.name] if beams == 1 else []))
        rows.append(Row(name, lambda side, count=count, beams=beams: side.decode(states, count, beams), floor, sides))
    for name, count, beams in ways[:2]:
        floor = together(vision, network.encoder([length]), network.decoding([length], count))

        def run(side, count=count, beams=beams):
            return side.answer(one, [prompt], count, beams)

        rows.append(Row(f"image, {name}", run, floor))
    short = min(SHORT, tokens[0])
    several = (OURS, NATIVE, TransformersBatched.name)
    alone = several if device == "cpu" else (OURS, TransformersBatched.name)  # nobody asks a GPU 16 times
    for name, images, prompts, sides in (
        ("4 prompts on an image", 1, [[*PROMPT]] * 3 + [[0, *range(200, 208), 2]], several),
        ("16 mixed prompts on 4 images", 4, [list(each) for each in MIXED * 4], alone),
    ):
        lengths = [len(each) for each in prompts]
        encoded = together(network.vision(images), network.encoder(lengths))

        def run(side, images=images, prompts=prompts):
            return side.answer(pixels[:images], prompts, short)

        rows.append(Row(name, run, together(encoded, network.decoding(lengths, short)), sides))
    return rows


def less_precise_rows(rows: list[Row], ours: Any, native: Any, config: FlorenceConfig) -> list[tuple[Row, dict]]:
    """Some rows again in the precisions that the CPU offers and that may change answers, against transformers in
    float32 and in bfloat16."""
    theirs = {
        NATIVE: Transformers(native, config),
        TransformersBf16.name: TransformersBf16(copy.deepcopy(native).bfloat16(), config),
    }
    found = []
    for name, precisions in (("vision, batch 1", ("bf16",)), ("greedy", ("bf16", "int8"))):
        row = next(row for row in rows if row.name.startswith(name))
        for precision in precisions:
            sides = {OURS: Ours(ours, precision), **theirs}
            each = tuple(sides) if precision == "bf16" else (OURS, NATIVE)
            found.append((replace(row, name=f"{row.name}, {precision}", floor=Work(), each=each, exact=False), sides))
    return found


def user_rows(folder: str, tokens: int, device: str, dtype: torch.dtype) -> list[tuple[Row, dict[str, Any]]]:
    """The user's call, decoded alike on both sides; and as it is without options, guided to boxes, which has other
    ids and no peer."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((640, 480))

    def run(side):
        return side.detect(picture, tokens)

    how = (folder, device, dtype)
    same = {side.name: side for side in (UserOfOurs(*how), UserOfTransformers(*how))}
    guided = {OURS: UserOfOurs(*how, guided=True)}
    return [(Row("the user's call", run), same), (Row("the user's call, guided", run), guided)]


def peers_of(config: FlorenceConfig, model: Any, device: str) -> tuple[dict[str, Any], Path | None, list[str]]:
    """The sides that run exported graphs, the folder of these, and notes about those that cannot."""
    notes = []
    for name in PEERS:
        if device != "cpu":
            notes.append(f"{name} is left out: its rows are those of the CPU")
        elif lacking := exported.missing(name):
            notes.append(f"{name} is left out: not installed are {', '.join(lacking)}")
    names = [name for name in PEERS if not any(note.startswith(name) for note in notes)]
    if not names:
        return {}, None, notes
    length = config.image_tokens + len(PROMPT)
    folder = exported.export(model, length, (1, 4), exported.default_cache())
    return {name: exported.Exported(name, folder, length, (1, 4)) for name in names}, folder, notes


def tokenizer_of(folder: str | None) -> Tokenizer:
    """A published one, or one that was trained on the prompts."""
    if folder:
        return Tokenizer.from_file(folder)
    return Tokenizer.train([card.prompt() for card in tasks() if not card.input], 1500)


def check(row: str, side: str, got: Any, expected: Any) -> None:
    """Raises SystemExit where an answer is not that of the other side."""
    if isinstance(got, torch.Tensor):
        difference = (got - expected).abs().max().item()
        if not difference <= TOLERANCE:
            raise SystemExit(f"{row}: numbers of {side} differ by {difference:.1e} from those of {OURS}")
    elif got != expected:
        raise SystemExit(f"{row}: {side} gives other ids than {OURS}: {got} instead of {expected}")


def unequal(got: Any, expected: Any) -> float:
    """How far an answer in half precision is from another: the greatest difference of numbers, over the greatest of
    them; the share of ids that differ."""
    if isinstance(got, torch.Tensor):
        return ((got - expected).abs().max() / expected.abs().max()).item()
    flat = [torch.tensor(each, dtype=torch.int64).flatten() for each in (got, expected)]
    return (flat[0] != flat[1]).double().mean().item() if flat[0].shape == flat[1].shape else 1.0


@torch.inference_mode()
def measure(row: Row, sides: dict[str, Any], machine: Machine, rounds: int, bars: dict[str, Bar]) -> dict:
    """Medians, ratios, floor and bars of a row. sides: by name, of which some do the row."""
    running = {name: sides[name] for name in row.each if name in sides}
    expected = row.run(running[OURS])
    for _ in range(CALLS_ON_GPU if machine.device == "cuda" else 0):
        row.run(running[OURS])
    taken: dict[str, list[float]] = {name: [] for name in running}
    floors = []
    differences: dict[str, float] = {}
    for number in range(rounds + 1):  # the first is the warm-up
        rates = machine.measure()
        for name, side in running.items():
            synchronize(machine.device)
            begin = time.perf_counter()
            got = row.run(side)
            synchronize(machine.device)
            seconds = time.perf_counter() - begin
            if row.exact and machine.dtype == torch.float32:
                check(row.name, name, got, expected)
            else:
                differences[name] = unequal(got, expected)
            if number:
                taken[name].append(seconds)
        if number:
            floors.append(rates.seconds(row.floor))
    ours = taken[OURS]
    found: dict[str, Any] = {
        "work": row.name,
        "seconds": {name: statistics.median(each) for name, each in taken.items()},
    }
    found["ratios"] = {name: median_ratio(each, ours) for name, each in taken.items() if name != OURS}
    if differences:
        found["differences"] = differences
    if row.floor != Work():
        found |= {"floor_s": statistics.median(floors), "times_floor": median_ratio(ours, floors)}
    peers = [found["ratios"][name] for name in (*PEERS, TransformersBf16.name) if name in found["ratios"]]
    if bar := bars.get(row.name):
        found["bars"] = {}
        if bar.transformers is not None:
            found["bars"][NATIVE] = verdict(found["ratios"][NATIVE], least=bar.transformers)
        if bar.peers and peers:
            found["bars"]["the better peer"] = verdict(min(peers), least=bar.peers)
        if bar.floor and "times_floor" in found:
            found["bars"]["floor"] = verdict(found["times_floor"], most=bar.floor)
    return found


def median_ratio(over: list[float], under: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def verdict(value: float, least: float | None = None, most: float | None = None) -> dict:
    met = value >= least if least is not None else value <= most
    return {"bar": f"≥ {least:g}" if least is not None else f"≤ {most:g}", "value": value, "met": met}


def as_line(found: dict) -> str:
    """A row as it is printed: milliseconds and ratios of every side, the floor, the bars."""
    seconds = found["seconds"]
    line = f"{found['work']:30}{seconds[OURS] * 1000:9.1f} ms"
    for name, ratio in found["ratios"].items():
        line += f" | {name} {seconds[name] * 1000:.1f} ms, {ratio:.2f}x"
    if "floor_s" in found:
        line += f" | floor {found['floor_s'] * 1000:.1f} ms, {found['times_floor']:.2f} times"
    for name, difference in found.get("differences", {}).items():
        line += f" | differs from {name} by {difference:.1%}" if name != OURS else ""
    for name, bar in found.get("bars", {}).items():
        line += f" | {name} {bar['bar']} {'met' if bar['met'] else 'MISSED'}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("base", "large", "nano"), default="base")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="on a GPU")
    parser.add_argument("--compiled", action="store_true", help="on a GPU, compile transformers' decoding too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="ids of an answer; bars are about 64")
    parser.add_argument("--long", action="store_true", help="decode 256 ids too")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="rows whose names begin so")
    parser.add_argument("--tokenizer", help="folder with a Florence-2 tokenizer; without it, one is trained")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="OUT", help="file to write")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if arguments.device == "cpu" and (arguments.dtype != "float32" or arguments.compiled):
        parser.error("--dtype and --compiled are for --device cuda")
    dtype = getattr(torch, arguments.dtype)
    torch.backends.cudnn.allow_tf32 = False

    def wanted(name: str) -> bool:
        return not arguments.only or any(name.startswith(each) for each in arguments.only)

    config = FlorenceConfig.preset(arguments.size, prompt_side="encoder")
    told = {**environment(), "size": arguments.size, "device": arguments.device}
    if arguments.device == "cuda":
        told |= {"machine": f"{torch.cuda.get_device_name()}, {arguments.dtype}", "dtype": arguments.dtype}
        print(f"{arguments.size} on {told['machine']}", flush=True)
    else:
        print(f"{arguments.size} on {told['machine']}; bars are those of {cpu_abilities()[0]}", flush=True)
    ours, native = build(config, arguments.seed, arguments.device, dtype)
    sides = {
        side.name: side for side in (Ours(ours), Transformers(native, config), TransformersBatched(native, config))
    }
    peers, graphs, told["notes"] = peers_of(config, ours, arguments.device)
    sides |= peers
    if arguments.compiled:
        sides[TransformersCompiled.name] = TransformersCompiled(native, config)
    print("\n".join(told["notes"]), end="\n" if told["notes"] else "", flush=True)
    machine = Machine(Network(config, dtype).step_bytes, arguments.device, dtype)
    bars = BARS if arguments.size == "base" and arguments.device == "cpu" else {}
    told["rows"] = []

    def tell(found: dict) -> None:
        told["rows"].append(found)
        print(as_line(found), flush=True)

    rows = rows_of(
        config, [arguments.tokens, *([256] if arguments.long else [])], arguments.seed, arguments.device, dtype
    )
    for row in rows:
        if wanted(row.name):
            tell(measure(row, sides, machine, arguments.rounds, bars))
    if arguments.device == "cpu" and kernel.library() is not None:
        for row, of_row in less_precise_rows(rows, ours, native, config):
            if wanted(row.name):
                tell(measure(row, of_row, machine, arguments.rounds, bars))
    with tempfile.TemporaryDirectory() as folder:
        if wanted("the user's call") or wanted("memory"):
            save_for_users(ours, tokenizer_of(arguments.tokenizer), folder)
        if wanted("the user's call"):
            for row, of_users in user_rows(folder, arguments.tokens, arguments.device, dtype):
                tell(measure(row, of_users, machine, arguments.rounds, bars))
        if wanted("memory"):
            names = [OURS, NATIVE, *peers]
            del sides, peers, native, ours  # their memory is for the children
            how = (arguments.tokens, arguments.rounds, arguments.device, arguments.dtype)
            told["memory"] = footprint.measure(names, folder, graphs, *how)
            footprint.show(told["memory"])
    if arguments.size == "nano" and wanted("embedded"):
        told["embedded"] = footprint.embedded(arguments.rounds)
        print(footprint.line_of_embedded(told["embedded"]))
    told["rates"] = machine.seen
    print(", ".join(f"{name} {rate / 1e9:.0f} G/s" for name, rate in machine.seen.items()))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
