"""The mode in which answers are computed."""

from threading import Event, Thread

import pytest
import torch

from florence_lite.model.device import inference_mode


def state() -> tuple[bool, bool]:
    return torch.is_inference_mode_enabled(), torch.backends.cuda.cudnn_sdp_enabled()


def test_attention_is_not_planned_by_cudnn_while_answers_are_computed():
    before = state()
    assert not before[0]
    with inference_mode():
        assert state() == (True, False)
        with inference_mode():
            assert state() == (True, False)
        assert state() == (True, False)
    assert state() == before


def test_as_a_decorator_of_functions_and_generators():
    before = state()

    @inference_mode()
    def function():
        return state()

    @inference_mode()
    def generator():
        yield state()
        yield state()

    assert function() == (True, False)
    assert [(each, state()) for each in generator()] == [((True, False), before)] * 2


def test_what_the_process_chose_comes_back_after_an_error():
    was = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        with pytest.raises(KeyError), inference_mode():
            raise KeyError
        assert state() == (False, False)
    finally:
        torch.backends.cuda.enable_cudnn_sdp(was)


def test_it_holds_until_the_last_thread_has_left():
    before, entered, leave = state(), Event(), Event()

    def answer():
        with inference_mode():
            entered.set()
            leave.wait(60)

    thread = Thread(target=answer)
    with inference_mode():
        thread.start()
        assert entered.wait(60)
    assert state() == (False, False)
    leave.set()
    thread.join(60)
    assert state() == before
