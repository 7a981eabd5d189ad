"""Answers from closed lists."""

import numpy as np
import pytest

from florence_lite import Prompt
from tests.tiny import noise_image

IMAGES = [noise_image(0), noise_image(1)]
CHOICES = ["apple", "a yellow building", "dog"]
QUESTION = "what is it?"


def test_probabilities_are_those_of_the_network(florence):
    """Of each choice with its end, from its ids one by one, shared out among the choices."""
    import torch

    encoded, tokenizer = florence.encode(IMAGES[0]), florence.tokenizer
    result = florence.ask(encoded, QUESTION, choices=CHOICES)
    prompt, sums = tokenizer.encode_prompt(QUESTION), []
    for choice in CHOICES:
        prefix, total = [0], 0.0
        for token_id in [*tokenizer.encode_plain(choice), 2]:
            with torch.inference_mode():
                if florence.model.config.prompt_side == "encoder":
                    states, mask = florence.model.encode(encoded.features[None], torch.tensor([prompt]))
                    ids = [2, *prefix]
                else:
                    states, mask, ids = encoded.hidden_states[None], None, [*prompt, *prefix]
                hidden = florence.model.decode(torch.tensor([ids]), florence.model.cross_cache(states), mask)
                logits = florence.model.logits(hidden[0, -1])
            total += logits.log_softmax(-1)[token_id].item()
            prefix.append(token_id)
        sums.append(total)
    expected = np.exp(sums) / np.exp(sums).sum()
    assert list(result.choices) == CHOICES
    np.testing.assert_allclose(list(result.choices.values()), expected, rtol=1e-3)
    assert result.text == CHOICES[int(expected.argmax())] and result.score == max(result.choices.values())
    assert sum(result.choices.values()) == pytest.approx(1) and result.to_dict()["choices"] == result.choices
    assert result.image is not None and result.task == "<VQA>" and not result.instances


def test_batches_equal_single_answers(florence):
    prompts = [Prompt("<VQA>", text=QUESTION), Prompt("<VQA>", text="how many dogs are there?")]
    together = florence.run(IMAGES, prompts, choices=CHOICES)
    for image, prompt, result in zip(IMAGES, prompts, together, strict=True):
        assert result.choices == pytest.approx(florence.run(image, prompt, choices=CHOICES).choices, rel=1e-4)
    assert together[0].choices != pytest.approx(together[1].choices, rel=1e-3)
    each = list(florence.run_each(IMAGES, "<VQA>", text=QUESTION, choices=CHOICES))
    assert [result.text in CHOICES for result in each] == [True, True] and each[0].image is None


def test_other_tasks_of_words_and_streams(florence):
    (last,) = florence.stream(IMAGES[0], "<CAPTION>", choices=CHOICES)
    assert last == florence.run(IMAGES[0], "<CAPTION>", choices=CHOICES)
    assert florence.run(IMAGES[0], "what do you see?", choices=CHOICES).text in CHOICES


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([], "at least two to choose from"),
        (["yes"], "at least two to choose from"),
        (["yes", ""], "a list of strings, each with something in it"),
        (["yes", 3], "a list of strings, each with something in it"),
        ("yes", "a list of strings"),
        (["yes", "no", "yes "], "holds 'yes' twice"),
        (["a " * 200, "b"], "the length of the text"),
    ],
)
def test_lists_that_are_none(florence, choices, message):
    with pytest.raises(ValueError, match=message):
        florence.ask(IMAGES[0], QUESTION, choices=choices)


@pytest.mark.parametrize(
    ("prompt", "more", "message"),
    [
        ("<OD>", {}, "task <OD> does not answer in words alone"),
        (Prompt("<REGION_TO_CATEGORY>", region=(1, 1, 9, 9)), {}, "does not answer in words alone"),
        ("<CAPTION>", {"num_beams": 3}, "num_beams has no part in answers from choices"),
    ],
)
def test_where_choices_have_no_part(florence, prompt, more, message):
    with pytest.raises(ValueError, match=message):
        florence.run(IMAGES[0], prompt, choices=CHOICES, **more)
