"""Fine-tuning: `finetune` takes a configuration, trains, and returns the folder of the finished checkpoint.

config      what can be set                   finetuning  the parts of a run put together    loop     steps and states
sources     data sets, drawn and mixed        rows, collate  annotations to ids         trainer  network and loss
features    what a frozen tower sees, kept    losses      of answer tokens                   lora     adapters
log         a run's metrics, written          folders     of a run, replaced as a whole      cpu      faster kernels
validation  measuring the checkpoints         record      what a run was started with, its lock
dataset_check  whether data can be learned    digests     of weights

`finetune` is imported when it is first used: it needs the extra `train`.
"""

from typing import TYPE_CHECKING, Any

from florence_lite.train.config import DataConfig, FineTuneConfig, ValidationConfig

if TYPE_CHECKING:
    from florence_lite.train.finetuning import finetune

__all__ = ["DataConfig", "FineTuneConfig", "ValidationConfig", "finetune"]


def __getattr__(name: str) -> Any:
    if name != "finetune":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from florence_lite.train.finetuning import finetune

    return finetune
