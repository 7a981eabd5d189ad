"""Checkpoints for other runtimes: ONNX and OpenVINO graphs, with a runner that needs neither torch nor this library."""

from florence_lite.export.comparing import Comparison
from florence_lite.export.exporting import export

__all__ = ["Comparison", "export"]
