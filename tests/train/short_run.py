"""A training run of four steps that takes a second; run as a program it is killed after two.

python -m tests.train.short_run FOLDER
"""

import os
import signal
import sys
from pathlib import Path

from florence_lite.model import TextConfig
from florence_lite.model.config import PRESETS
from florence_lite.train import loop, scratch
from florence_lite.train.config import TrainConfig
from tests.tiny import tiny_config

TOKENIZER_SCENES = 3


def small_preset() -> dict:
    """With dropout, so that the random state of a resumed run matters."""
    config = tiny_config("decoder", image_size_wh=(64, 64))
    text = TextConfig(
        vocab_size=1400,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        heads=2,
        ffn_dim=32,
        positions=400,
        dropout=0.1,
    )
    return {"vision": config.vision, "text": text, "image_size_wh": (64, 64), "prompt_side": "decoder"}


def settings(output: Path, **changes) -> TrainConfig:
    values = {"styles": ("openmoji",), "steps": 4, "batch": 2, "warmup": 2, "learning_rate": 1e-3, "vocabulary": 1400}
    values |= {"evaluate_every": 2, "save_every": 1, "seed": 1}
    return TrainConfig(str(output), {"<OD>": 1, "<CAPTION>": 0.5, "<OPEN_VOCABULARY_DETECTION>": 1}, **values | changes)


def kill(*arguments) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    PRESETS["nano"] = small_preset()
    scratch.TOKENIZER_SCENES = TOKENIZER_SCENES
    save_state = loop.save_state

    def save_then_kill(accelerator, folder, step):
        if step == 3:
            accelerator.save_state = kill  # in the middle of writing the third state
        save_state(accelerator, folder, step)

    loop.save_state = save_then_kill
    scratch.train(settings(Path(sys.argv[1])))
