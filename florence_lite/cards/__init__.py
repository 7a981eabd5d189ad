"""Task cards and checkpoint cards: prompts and weights described as data.

A card is one TOML file of `tasks/` or `checkpoints/`, or one object made at run time. A task card says how a prompt is
built, how its answer is read, and which rule tells its truth; a checkpoint card says where weights come from, how
images are prepared for them and what they measure. The folders are read when a card is first asked for, never on
import.
"""

from florence_lite.cards.calibration import Calibration
from florence_lite.cards.checkpoint_card import CheckpointCard, checkpoint, checkpoints
from florence_lite.cards.task_card import INPUTS, TaskCard, own_rule, register_task, task, tasks

__all__ = [
    "INPUTS",
    "Calibration",
    "CheckpointCard",
    "TaskCard",
    "checkpoint",
    "checkpoints",
    "own_rule",
    "register_task",
    "task",
    "tasks",
]
