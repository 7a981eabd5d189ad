import pytest

from florence_lite.engine import GenerationOptions, generate
from tests.engine.models import lively_model, random_states


@pytest.mark.parametrize(
    "values, message",
    [
        ({"max_new_tokens": 0}, "max_new_tokens = 0 must be a whole number of at least 1"),
        ({"max_new_tokens": 7.5}, "max_new_tokens = 7.5 must be a whole number"),
        ({"num_beams": 0}, "num_beams = 0"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size = -1"),
        ({"early_stopping": "always"}, "'always' must be True, False or 'never'"),
        ({"early_stopping": 1}, "early_stopping = 1"),
        ({"length_penalty": float("nan")}, "length_penalty = nan"),
        ({"do_sample": True, "temperature": 0.0}, "temperature = 0.0 .* do_sample=False"),
        ({"do_sample": True, "temperature": float("inf")}, "temperature = inf"),
        ({"do_sample": True, "top_k": 0}, "top_k = 0"),
        ({"do_sample": True, "top_p": 0.0}, "top_p = 0.0"),
        ({"do_sample": True, "top_p": 1.1}, "top_p = 1.1"),
        ({"do_sample": True, "num_beams": 3}, "num_beams = 3 must be 1"),
        ({"temperature": 0.7}, "set do_sample=True"),
        ({"top_k": 5}, "set do_sample=True"),
        ({"top_p": 0.5}, "set do_sample=True"),
        ({"forced_bos": 2}, "forced_bos = 2 is also eos"),
        # of another kind than they look
        ({"max_new_tokens": True}, "max_new_tokens = True must be a whole number"),
        ({"num_beams": True}, "num_beams = True"),
        ({"num_beams": "3"}, "num_beams = '3'"),
        ({"no_repeat_ngram_size": "3"}, "no_repeat_ngram_size = '3'"),
        ({"no_repeat_ngram_size": False}, "no_repeat_ngram_size = False"),
        ({"length_penalty": "1"}, "length_penalty = '1' must be a number from -50 to 50"),
        ({"length_penalty": True}, "length_penalty = True"),
        ({"do_sample": "yes"}, "do_sample = 'yes' must be true or false"),
        ({"ban_bos_after_forced": 0}, "ban_bos_after_forced = 0 must be true or false"),
        ({"early_stopping": ["never"]}, "early_stopping = "),
        ({"do_sample": True, "temperature": "warm"}, "temperature = 'warm'"),
        ({"do_sample": True, "temperature": float("nan")}, "temperature = nan"),
        ({"do_sample": True, "top_k": True}, "top_k = True must be a whole number of at least 1, or None"),
        ({"do_sample": True, "top_k": 5.0}, "top_k = 5.0"),
        ({"do_sample": True, "top_p": "0.5"}, "top_p = '0.5'"),
        ({"do_sample": True, "top_p": True}, "top_p = True"),
        ({"seed": "a"}, r"seed = 'a' must be from 0 to 2\^64 - 1, or None"),
        ({"seed": True}, "seed = True"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**64}, "seed = 18446744073709551616"),
        ({"eos": -5}, "eos = -5 must be a whole number of at least 0"),
        ({"eos": None}, "eos = None"),
        ({"pad": -1}, "pad = -1"),
        ({"pad": 1.0}, "pad = 1.0"),
        ({"forced_bos": -1}, "forced_bos = -1 must be a token id, or None"),
        ({"forced_bos": "<s>"}, "forced_bos = '<s>'"),
        ({"forced_bos": False}, "forced_bos = False"),
        # of a size that no machine answers
        ({"num_beams": 10**9}, "num_beams = 1000000000 must be at most 200"),
        ({"length_penalty": 1e9}, "length_penalty = 1000000000.0"),
        ({"length_penalty": -(10**400)}, "length_penalty = -1000"),
    ],
)
def test_impossible_options_name_the_value(values, message):
    with pytest.raises(ValueError, match=message):
        GenerationOptions(**{"max_new_tokens": 8} | values)


@pytest.mark.parametrize("name", ["forced_bos", "eos", "pad"])
@pytest.mark.parametrize("vocab_size", [None, 100])
def test_ids_that_the_network_does_not_have(name, vocab_size):
    model = lively_model()
    states, mask = random_states(model, 1)
    rows = model.config.text.vocab_size if vocab_size is None else vocab_size
    for beyond in (rows, 10**9):
        with pytest.raises(ValueError, match=f"{name} = {beyond} is no id of this network, which has {rows}"):
            generate(model, states, mask, [[2]], GenerationOptions(8, **{name: beyond}), vocab_size=vocab_size)
    assert generate(model, states, mask, [[2]], GenerationOptions(8, **{name: rows - 1}), vocab_size=vocab_size)


@pytest.mark.parametrize("penalty", [-50, -1.5, 0, 50])
def test_the_steepest_penalties_can_be_computed(penalty):
    model = lively_model()
    states, mask = random_states(model, 1)
    options = GenerationOptions(100, num_beams=3, length_penalty=penalty, early_stopping="never")
    assert generate(model, states, mask, [[2]], options)[0].ids
