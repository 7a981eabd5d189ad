"""Checkpoints: every layout in the wild → our network, strictly; and back.

layouts   names of the tensors     configs   config.json          weights   tensors out of files
loading   a network from a folder  saving    a network to a folder  hub     folders from the Hugging Face Hub
"""

from florence_lite.checkpoint.configs import config_from_json, config_to_json, read_config
from florence_lite.checkpoint.hub import download
from florence_lite.checkpoint.layouts import LAYOUTS
from florence_lite.checkpoint.loading import load_checkpoint, load_tensors
from florence_lite.checkpoint.saving import save_checkpoint

__all__ = [
    "LAYOUTS",
    "config_from_json",
    "config_to_json",
    "download",
    "load_checkpoint",
    "load_tensors",
    "read_config",
    "save_checkpoint",
]
