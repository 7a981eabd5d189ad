import pytest

from florence_lite.engine import GenerationOptions


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
    ],
)
def test_impossible_options_name_the_value(values, message):
    with pytest.raises(ValueError, match=message):
        GenerationOptions(**{"max_new_tokens": 8} | values)
