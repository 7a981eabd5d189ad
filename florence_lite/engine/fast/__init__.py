"""The same work as the plain network's, in less time, under the same names.

model         FastModel: stands in the place of a `FlorenceModel` where answers are made
vision        the vision tower
transformer   layers of encoder and decoder, for many tokens
steps         decoding steps, one token a row, or a few that were guessed
static_steps  the same for GPUs, on tensors of fixed shapes
flash         encoder layers by flash-attn, where it is installed
graphs        CUDA graphs, and what keeps them for the next answer
linear        linear layers, with what stands around them
kernel        the compiled part, if there is one: `vision.cpp`, `linear.cpp` and `decoder.cpp` for this processor
"""

from florence_lite.engine.fast.model import FastModel

__all__ = ["FastModel"]
