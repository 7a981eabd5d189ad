"""The data engine's first stage: checkpoints answer questions about any number of images, each exactly once.

config      what is asked, from TOML or Python      annotator   images → rows, with loaded checkpoints: a worker's part
questions   what is asked about one image           parts       the folder of answers: stage, commit, what is done
engine      a run in this process, or with workers  ray_engine  the workers
progress    how far a run is, what it came to

`annotate` is imported when it is first used: it brings the networks along.
"""

from typing import TYPE_CHECKING, Any

from florence_lite.annotate.config import AnnotateConfig, CheckpointConfig, TaskConfig

if TYPE_CHECKING:
    from florence_lite.annotate.engine import annotate

__all__ = ["AnnotateConfig", "CheckpointConfig", "TaskConfig", "annotate"]


def __getattr__(name: str) -> Any:
    if name != "annotate":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from florence_lite.annotate.engine import annotate

    return annotate
