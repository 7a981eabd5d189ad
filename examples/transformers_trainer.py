# /// script
# requires-python = ">=3.11"
# dependencies = ["florence-lite[train]", "transformers>=5.0"]
# [tool.uv.sources]
# florence-lite = { path = ".." }
# ///
"""Fine-tune with transformers.Trainer:  python transformers_trainer.py DATA OUTPUT [--steps 300] [--checkpoint NAME]

DATA is a data set in any format that `florence-lite data check` knows. The library brings the batches and the loss,
Trainer the loop with its schedules, trackers and callbacks. Our own loop is `florence-lite train`.
"""

import argparse

import numpy as np
from transformers import Trainer, TrainingArguments

from florence_lite import Florence
from florence_lite.data import read_dataset
from florence_lite.tokens import Codec
from florence_lite.train.collate import TaskCollator
from florence_lite.train.trainer import AnswerTrainer

parser = argparse.ArgumentParser()
parser.add_argument("data", help="folder of the data set")
parser.add_argument("output", help="folder for the checkpoint")
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--checkpoint", default="scenes-nano", help="to start from")
arguments = parser.parse_args()

dataset = read_dataset(arguments.data)
florence = Florence.from_pretrained(arguments.checkpoint, dtype="float32")
network, vocabulary = florence.model.config, florence.tokenizer.vocabulary
lengths = {"max_length": network.text.positions, "shorten": True}  # too long an answer loses its last objects
sides = {"grid_wh": network.grid_wh, "bins": network.bins, "prompt_side": network.prompt_side}
rates = {"<OD>": 1}  # rows per image
collator = TaskCollator(Codec(florence.tokenizer), florence.preprocessor, rates, **sides, **lengths)
rng = np.random.default_rng(0)


def collate(samples):
    """What Trainer hands to the network, by argument."""
    return {"batch": collator([(sample.load(), sample.annotation) for sample in samples], rng)}


class Learner(AnswerTrainer):
    """Returns the loss first, where Trainer looks for it."""

    def forward(self, batch):
        # Trainer moves tensors to the device, but no Batch.
        return super().forward(batch.to(self.model.embed_tokens.weight.device), sigma=2.0)


settings = TrainingArguments(
    arguments.output,
    max_steps=arguments.steps,
    per_device_train_batch_size=8,
    learning_rate=5e-4,
    lr_scheduler_type="cosine",
    logging_steps=10,
    save_strategy="no",
    remove_unused_columns=False,  # the samples have no columns
    dataloader_pin_memory=False,  # nor can a Batch be pinned
    report_to="none",
)
learner = Learner(florence.model, vocabulary.loc_first, vocabulary.pad)
Trainer(learner, settings, data_collator=collate, train_dataset=dataset).train()

florence.save_pretrained(arguments.output)
result = Florence.from_pretrained(arguments.output).detect(dataset[0].load())
print(f"{dataset[0].name}: {result.labels}")
