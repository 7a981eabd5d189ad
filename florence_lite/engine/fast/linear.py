"""Linear layers by the compiled kernels, with what stands before and behind them done on the way."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as _of_all

from florence_lite.engine.fast import kernel

FEW_ROWS = 16  # up to here it takes longest to read the weights


def linear(
    layer: nn.Linear | nn.Embedding,
    x: Tensor,
    y: Tensor | None = None,
    norm: nn.LayerNorm | None = None,
    gelu: bool = False,
    residual: Tensor | None = None,
    rows: tuple[Tensor | None, Tensor | None] = (None, None),
    of: kernel.Matrix | None = None,
) -> Tensor:
    """y = [residual +] [gelu] layer(norm(x)), row by row. Returns y, a new tensor if none is given. A table of tokens
    stands for the output layer that it is tied to.

    x: float32 [..., in], y and residual [..., out], all contiguous; residual may be y.
    rows: int32 [K] each: which rows of x are read, -1 for one of zeros behind the norm, and which rows of y and of the
        residual belong to them, -1 for none. None: all as they stand.
    of: the layer as the kernels take it, if its weights are not read where they are; in float32, or where `has_bf16`
        and `size_in` is even in bfloat16, in which x is then rounded too.

    Raises ValueError for an x of another dtype, layout or width, and for weights that the kernels cannot multiply so.
    """
    read, written = rows
    of = matrix(layer.weight, getattr(layer, "bias", None)) if of is None else of
    size_out, size_in = of.out, of.in_
    _check(of, x)
    if of.kind and not (of.kind == kernel.KINDS[torch.bfloat16] and kernel.has_bf16() and size_in % 2 == 0):
        raise ValueError("many rows are multiplied by weights in float32 or, where the processor can, bfloat16")
    y = x.new_empty(*x.shape[:-1], size_out) if y is None else y
    count = x.numel() // size_in if read is None else len(read)
    if count <= FEW_ROWS and read is None and written is None and of.kind == kernel.KINDS[torch.float32]:
        part = dense(of, x if norm is None else norm(x), torch.empty_like(y) if residual is not None else y)
        part = part.copy_(F.gelu(part)) if gelu else part
        return y if residual is None else torch.add(residual, part, out=y)
    library, threads = kernel.library(), kernel.threads_for(count * size_out * size_in)
    height = library.florence_panel_rows()
    panels = x.new_empty(max(threads, -(-count // height)) * height * size_in)
    pointers = [None if part is None else part.data_ptr() for part in (x, residual, y, panels, read, written)]
    norms = (None, None) if norm is None else (norm.weight.data_ptr(), norm.bias.data_ptr())
    eps = 0.0 if norm is None else norm.eps
    made = kernel.Linear(of.weight, of.bias, *norms, size_out, size_in, eps, gelu, of.kind)
    library.florence_linear(made, kernel.Rows(*pointers, count), threads)
    return y


def dense(of: kernel.Matrix, x: Tensor, y: Tensor, outs: range | None = None) -> Tensor:
    """y = x · weightᵀ + bias for few rows, of all outputs or of some. x [..., in], y [..., outs]: float32, contiguous.

    Raises ValueError for an x of another dtype, layout or width.
    """
    _check(of, x)
    outs = range(of.out) if outs is None else outs
    rows = x.numel() // of.in_
    threads = kernel.threads_for(rows * len(outs) * of.in_)
    kernel.library().florence_dense(of, outs.start, outs.stop, x.data_ptr(), rows, y.data_ptr(), threads)
    return y


def matrix(weight: Tensor, bias: Tensor | None, scale: Tensor | None = None) -> kernel.Matrix:
    """As the kernels take it. weight: [out, in]; scale: [out], of int8. Its `kept` are the tensors, which have to live
    as long as somebody reads them."""
    # Detached, for a parameter may be given other memory while somebody reads this.
    kept = tuple(None if part is None else part.detach() for part in (weight, scale, bias))
    made = kernel.Matrix(
        *(None if part is None else part.data_ptr() for part in kept), *weight.shape, kernel.KINDS[weight.dtype]
    )
    made.kept = kept
    return made


def _check(of: kernel.Matrix, x: Tensor) -> None:
    """The kernels read what they are pointed to, whatever lies there."""
    if x.dtype != torch.float32 or x.shape[-1] != of.in_ or not x.is_contiguous():
        layout = "contiguous" if x.is_contiguous() else "not contiguous"
        raise ValueError(
            f"the kernels multiply contiguous float32 numbers with {of.in_} channels, not {list(x.shape)} of "
            f"{x.dtype}, {layout}"
        )


def is_plain(part: nn.Module) -> bool:
    """Whether the kernels may read the weights of a part of a network where they are: there are kernels, the part is
    unchanged, and in float32 on a processor."""
    return (
        kernel.library() is not None
        and all(
            weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.is_contiguous()
            for weight in part.parameters()
        )
        and is_unchanged(modules_of(part))
    )


def modules_of(*parts: nn.Module | None) -> list[nn.Module]:
    """All modules of parts of a network, themselves included; quicker than `Module.modules`, which answers wait for."""
    found = [part for part in parts if part is not None]
    for module in found:  # which grows meanwhile
        found += module._modules.values()
    return found


def is_unchanged(modules: list[nn.Module]) -> bool:
    """Whether modules compute what the model says: they are those that it is made of, without adapters or hooks, not in
    training, with no gradients and no autocast, which would change dtypes on the way."""
    return (
        not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.is_autocast_enabled("cuda")
        and all(
            (type(each) in _KNOWN or type(each).__module__.startswith("florence_lite.model."))
            and not (each._forward_hooks or each._forward_pre_hooks or each.training or "forward" in vars(each))
            for each in modules
        )
        and not (_of_all._global_forward_hooks or _of_all._global_forward_pre_hooks)
    )


_KNOWN = {nn.ModuleList, nn.Linear, nn.LayerNorm, nn.Conv2d, nn.Embedding, nn.Dropout}
