"""Fine-tuning on real pictures: what the embedded checkpoint is worth against random weights in the same network.

    python benchmarks/finetuning.py examples/bccd.toml BCCD_Dataset --output runs/bccd
    python benchmarks/finetuning.py examples/bccd.toml BCCD_Dataset --output runs/bccd-random --random

A run that was stopped goes on where it was. The checkpoint that was best on the validation split is measured on the
test split. `people.py` prepares another data set.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from accelerate.utils import set_seed
from peer import environment

from florence_lite import Florence
from florence_lite.data import read_dataset
from florence_lite.evaluate.report import evaluate
from florence_lite.model import FlorenceModel
from florence_lite.train.config import FineTuneConfig
from florence_lite.train.finetuning import finetune
from florence_lite.train.folders import STATE, saved_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="TOML file of the run")
    parser.add_argument("data", help="folder of the data set")
    parser.add_argument("--output", required=True, help="folder for the run")
    parser.add_argument("--checkpoint", help="start from it, instead of that of the file")
    parser.add_argument("--random", action="store_true", help="start from random weights")
    parser.add_argument("--steps", type=int, help="instead of those of the file")
    parser.add_argument("--seed", type=int, help="instead of that of the file")
    arguments = parser.parse_args()
    config = FineTuneConfig.from_toml(arguments.config)
    output = Path(arguments.output)
    config = replace(
        config,
        output=str(output),
        data=tuple(replace(each, path=arguments.data) for each in config.data),
        validation=replace(config.validation, path=arguments.data),
        steps=arguments.steps or config.steps,
        seed=config.seed if arguments.seed is None else arguments.seed,
        checkpoint=arguments.checkpoint or config.checkpoint,
    )
    if arguments.random:
        config = replace(config, checkpoint=str(random_weights(config.checkpoint, output / "start")))
    finetune(config)
    florence = Florence.from_pretrained(output / "best")
    report = evaluate(florence, read_dataset(arguments.data, split="test"), ["<OD>"])
    print(report)
    result = {
        **environment(),
        "config": arguments.config,
        "start": "random weights" if arguments.random else config.checkpoint,
        "steps": config.steps,
        "batch": config.batch,
        "seed": config.seed,
        "minutes": round(saved_seconds(output / STATE) / 60, 1),  # of all parts of the run
        "threads": torch.get_num_threads(),
        "best_on_validation": json.loads((output / "best.json").read_text()),
        "test": report.to_dict(),
    }
    (output / "result.json").write_text(json.dumps(result, indent=2) + "\n")


def random_weights(checkpoint: str, folder: Path) -> Path:
    """A checkpoint with the network and tokenizer of `checkpoint` and weights that nobody trained."""
    if not (folder / "model.safetensors").is_file():
        florence = Florence.from_pretrained(checkpoint)
        set_seed(0)
        Florence(FlorenceModel(florence.model.config), florence.tokenizer).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
