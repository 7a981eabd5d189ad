"""The search for garbage rests while something is loaded, and is afterwards as it was."""

import gc

import pytest

from florence_lite.garbage import uncollected


@pytest.mark.parametrize("enabled", [True, False])
def test_what_was_is_again(enabled):
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(KeyError), uncollected():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
