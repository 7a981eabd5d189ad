"""Every build of the kernels that this processor can run."""

import pytest
import torch

from florence_lite.engine.fast import kernel


@pytest.fixture(params=kernel.BUILDS)
def build(request, monkeypatch):
    """One build, in the place of the best. All threads take part, however little there is to do."""
    if torch.backends.cpu.get_cpu_capability() not in kernel.BUILDS[request.param]:
        pytest.skip(f"this processor cannot run {request.param}")
    library = kernel.load(request.param)
    if library is None:
        pytest.skip(f"{request.param} was not built: no compiler, or a source folder without an editable installation")
    monkeypatch.setattr(kernel, "library", lambda: library)
    monkeypatch.setattr(kernel, "WORK_OF_A_THREAD", 1)
    return library
