"""Checkpoints: every layout in the wild → our network, strictly; and back.

locate      from a name to a folder    hub         folders from and to the Hugging Face Hub (imported when needed)
layouts     names of the tensors       configs     config.json
weights     tensors out of files       companions  tokenizer, image processor, decoding settings
loading     a network from a folder    saving      a network to a folder
adapters    LoRA on top of a network   pretrained  all parts of a checkpoint, by its name
exchange    from and to transformers' own class, in memory
"""

from florence_lite.checkpoint.adapter_config import adapter_base
from florence_lite.checkpoint.adapters import load_adapter
from florence_lite.checkpoint.companions import read_decoding, read_preprocessor, write_companions
from florence_lite.checkpoint.configs import config_from_json, config_to_json, read_config
from florence_lite.checkpoint.exchange import from_transformers, to_transformers
from florence_lite.checkpoint.layouts import LAYOUTS
from florence_lite.checkpoint.loading import load_checkpoint, load_tensors
from florence_lite.checkpoint.locate import find_base, find_checkpoint, is_adapter
from florence_lite.checkpoint.pretrained import Pretrained, load_pretrained
from florence_lite.checkpoint.saving import save_checkpoint

__all__ = [
    "LAYOUTS",
    "Pretrained",
    "adapter_base",
    "config_from_json",
    "config_to_json",
    "find_base",
    "find_checkpoint",
    "from_transformers",
    "is_adapter",
    "load_adapter",
    "load_checkpoint",
    "load_pretrained",
    "load_tensors",
    "read_config",
    "read_decoding",
    "read_preprocessor",
    "save_checkpoint",
    "to_transformers",
    "write_companions",
]
