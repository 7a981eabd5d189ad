"""The data engine's first stage: checkpoints answer questions about any number of images, each exactly once.

config      what is asked, from TOML or Python      annotator  images → rows, with loaded checkpoints: a worker's part
questions   what is asked about one image           parts      the folder of answers: stage, commit, what is done
"""

from florence_lite.annotate.config import AnnotateConfig, CheckpointConfig, TaskConfig

__all__ = ["AnnotateConfig", "CheckpointConfig", "TaskConfig"]
