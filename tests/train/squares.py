"""Fine-tuning small enough for a test: six pictures of one bright square each, and networks without dropout.

python -m tests.train.squares CONFIG.toml STEP    trains, and is killed while it works on that step
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from florence_lite.florence import Florence
from florence_lite.model import FlorenceModel
from florence_lite.train import finetuning, loop
from florence_lite.train.config import DataConfig, FineTuneConfig
from tests.tiny import tiny_config

TASKS = {"<OD>": 1}


def write_squares(folder: Path, per_image: int = 1, images: int = 6, prefix: str = "") -> Path:
    """Pictures with their squares in COCO's format."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures, annotations = [], []
    for number in range(images):
        picture = np.full((70, 90, 3), 40, np.uint8)
        for place in range(per_image):
            x, y = (10 + 8 * number + 7 * place) % 60, (40 - 5 * number + 3 * place) % 50
            picture[y : y + 20, x : x + 24] = (250, 230, 10)
            box = {"id": len(annotations), "image_id": number, "category_id": 1, "bbox": [x, y, 24, 20]}
            annotations.append(box)
        Image.fromarray(picture).save(folder / f"{prefix}{number}.png")
        pictures.append({"id": number, "file_name": f"{prefix}{number}.png", "width": 90, "height": 70})
    content = {"images": pictures, "annotations": annotations, "categories": [{"id": 1, "name": "dog"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def write_base(tokenizer, prompt_side: str, folder: Path, dropout: float = 0.0) -> Path:
    """A checkpoint of random weights."""
    config = tiny_config(prompt_side, tokenizer.vocabulary.size)
    values = config.to_dict()
    values["text"]["dropout"], values["vision"]["drop_path"] = dropout, dropout
    torch.manual_seed(2)
    Florence(FlorenceModel(type(config).from_dict(values)), tokenizer).save_pretrained(folder)
    return folder


def settings(base: Path, data: Path, output: Path, **changes) -> FineTuneConfig:
    values = {"steps": 3, "batch": 3, "warmup": 1, "save_every": 10, "evaluate_every": 10, "learning_rate": 3e-3}
    return FineTuneConfig(str(output), str(base), (DataConfig(str(data), TASKS),), **values | changes)


if __name__ == "__main__":
    gradients, calls = loop.gradients, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return gradients(*arguments)

    loop.gradients = killed
    finetuning.finetune(FineTuneConfig.from_toml(sys.argv[1]))
