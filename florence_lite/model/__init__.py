"""The network: ids and tensors only, no task names and no strings."""

from florence_lite.model.cache import CrossCache, SelfCache
from florence_lite.model.config import FlorenceConfig, TextConfig, VisionConfig
from florence_lite.model.device import usable_device
from florence_lite.model.florence_model import FlorenceModel

__all__ = ["CrossCache", "FlorenceConfig", "FlorenceModel", "SelfCache", "TextConfig", "VisionConfig", "usable_device"]
