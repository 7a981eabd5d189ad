"""What a call may ask of the decoder, ids that have no token, and answers that are joined."""

import pytest
import torch

import florence_lite.inference.answering as answering_module
from florence_lite import Florence, Instance, Prompt, Result, TaskCard
from florence_lite.cards import task
from florence_lite.inference.answering import joined
from florence_lite.model import FlorenceModel
from tests.engine.models import enliven
from tests.script import script
from tests.tiny import noise_image, tiny_config, tiny_florence
from tests.tokens.spelling import spell

IMAGE = noise_image(0)
REGION = (10, 10, 60, 50)


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def florence(request, toy_tokenizer) -> Florence:
    return tiny_florence(toy_tokenizer, request.param)


# ---- ids without a token


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("prompt", ["<OD>", "<CAPTION>", "<REGION_TO_CATEGORY>", "<REFERRING_EXPRESSION_SEGMENTATION>"])
def test_compat_answers_with_ids_that_have_no_token(plain_network, toy_tokenizer, prompt, beams):
    """They are no words: skipped, counted as a fault, and scored like any other id."""
    torch.manual_seed(2)
    model = FlorenceModel(tiny_config(vocab_size=toy_tokenizer.vocabulary.size + 5))
    enliven(model, 2, None)
    logits, rows = model.logits, torch.arange(model.config.text.vocab_size)
    favoured = rows == toy_tokenizer.vocabulary.size + 2
    model.logits = lambda states, ids=None: (
        logits(states, ids) + 9.0 * (favoured if ids is None else favoured[list(ids)])
    )
    florence = Florence(model, toy_tokenizer)
    given = {"region": REGION} if "REGION" in prompt else {"text": "dog"} if "SEGMENTATION" in prompt else {}
    result = florence.run(IMAGE, prompt, max_new_tokens=12, num_beams=beams, compat=True, **given)
    assert max(result.token_ids) >= toy_tokenizer.vocabulary.size
    assert result.parse_errors and len(result.token_logprobs) == len(result.token_ids)
    plain = florence.run(IMAGE, prompt, max_new_tokens=12, num_beams=beams, **given)
    assert max(plain.token_ids) < toy_tokenizer.vocabulary.size


def test_compat_forces_a_first_id_only_where_the_files_name_one(florence):
    model, tokenizer = florence.model, florence.tokenizer
    for decoding, plain, compat in (
        ({}, 0, None),
        ({"forced_bos": None}, None, None),
        ({"forced_bos": 0}, 0, 0),
        ({"forced_bos": 7}, 7, 7),
        (None, 0, 0),
    ):
        answering = Florence(model, tokenizer, decoding=decoding).answering
        found = [answering.generation_options(task("<OD>"), 1, {"compat": each}).forced_bos for each in (False, True)]
        assert found == [plain, compat]


# ---- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eos": -5}, "eos = -5 must be a whole number"),
        ({"eos": 10**6}, "eos = 1000000 is no id of this network, which has 1"),
        ({"pad": 10**6}, "pad = 1000000 is no id"),
        ({"forced_bos": 10**6}, "forced_bos = 1000000 is no id"),
        ({"forced_bos": 10**6, "compat": True}, "forced_bos = 1000000 is no id"),
        ({"seed": "a"}, "seed = 'a'"),
        ({"num_beams": 10**9}, "num_beams = 1000000000 must be at most 200"),
        ({"max_new_tokens": True}, "max_new_tokens = True"),
        ({"do_sample": True, "temperature": "hot"}, "temperature = 'hot'"),
        ({"phrase": "a dog"}, "unknown option 'phrase'; did you mean 'phrases'?"),
        ({"Region": REGION}, "unknown option 'Region'; did you mean 'region'?"),
        ({"num_beam": 3}, "unknown option 'num_beam'; did you mean 'num_beams'?"),
        ({"keep_images": True}, "did you mean 'keep_image'?"),
        ({"prompt": "<OD>"}, "did you mean 'prompts'?"),
        ({"x": 1}, "unknown option 'x'; "),
    ],
)
def test_options_are_checked_before_an_image_is_read(florence, options, message):
    with pytest.raises(ValueError, match=message):
        florence.run("no-such-file.png", "<OD>", **options)
    with pytest.raises(ValueError, match=message):
        florence.run_each(["no-such-file.png"], "<OD>", **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.detect(IMAGE, phrase="a dog"), "did you mean 'phrases'?"),
        (lambda f: f.detect([IMAGE], phrases=["a dog"], text="x"), "belong to prompts given as strings"),
        (lambda f: f.segment(IMAGE, region=REGION, text="a dog"), "belong to prompts given as strings"),
        (lambda f: f.segment(IMAGE, text="a dog"), "unknown option 'text'"),
        (lambda f: f.ground(IMAGE, "a dog", text="a cat"), "belong to prompts given as strings"),
        (lambda f: f.ask(IMAGE, "where?", phrases=["a dog"]), "belong to prompts given as strings"),
        (lambda f: f.caption(IMAGE, details="short"), "did you mean 'detail'?"),
        (lambda f: f.caption(IMAGE, detail=["short"]), r"detail is \['short'\]; choose one of"),
        (lambda f: f.describe(IMAGE, what=5), "what is 5; choose one of"),
        (lambda f: f.run(IMAGE, "<OD>", keep_image="no"), "keep_image is 'no'; it must be True or False"),
        (lambda f: f.run(IMAGE, "<OPEN_VOCABULARY_DETECTION>", phrases="a dog"), r"phrases=\['a dog'\]"),
        (lambda f: f.run(IMAGE, [Prompt("<OPEN_VOCABULARY_DETECTION>", phrases="a dog")]), r"phrases=\['a dog'\]"),
        (lambda f: f.detect(IMAGE, phrases="a dog"), r"phrases=\['a dog'\]"),
        (lambda f: f.detect(IMAGE, phrases=[]), "phrases=.. is empty"),
        (lambda f: f.detect(IMAGE, phrases={"a dog"}), "phrases={'a dog'} must be a list"),
        (lambda f: f.detect(IMAGE, phrases=["a dog", 5]), r"phrases\[1\]=5 must be a string"),
    ],
)
def test_misspelt_input_gets_a_hint(florence, call, message):
    with pytest.raises(ValueError, match=message):
        call(florence)


@pytest.mark.parametrize(
    ("decoding", "message"),
    [
        ({"forced_bos": 10**9}, "decoding settings of checkpoint 'mine': forced_bos = 1000000000 is no id"),
        ({"num_beams": 10**9}, "decoding settings of checkpoint 'mine': num_beams = 1000000000 must be at most 200"),
        ({"length_penalty": 1e300}, "length_penalty"),
    ],
)
def test_impossible_settings_of_a_checkpoint(florence, decoding, message):
    with pytest.raises(ValueError, match=message):
        Florence(florence.model, florence.tokenizer, decoding=decoding, name="mine")


# ---- joined answers


def test_joined_answers_keep_their_texts():
    """A line for each, in their order; as sure as the least sure."""
    box = Instance("cat", box=(0, 0, 1, 1), score=0.5, tokens=(1, 4), coords_at=2)
    parts = [
        Result("<COUNT>", (9, 9), "two dogs", score=0.8, token_ids=(0, 5, 2), token_logprobs=(0.0, -1.0, -2.0)),
        Result("<COUNT>", (9, 9), "", token_ids=(0, 2), token_logprobs=(0.0, -3.0), parse_errors=1),
        Result("<COUNT>", (9, 9), "no cat", (box, Instance("x")), score=0.4, token_ids=(7,) * 4, truncated=True),
    ]
    whole = joined(parts[:2])
    assert (whole.text, whole.score, whole.token_logprobs) == ("two dogs\n", 0.8, (0.0, -1.0, -2.0, 0.0, -3.0))
    whole = joined(parts)
    assert (whole.text, whole.score, whole.parse_errors, whole.truncated) == ("two dogs\n\nno cat", 0.4, 1, True)
    assert (whole.instances[0].tokens, whole.instances[0].coords_at) == ((6, 9), 7)
    assert whole.instances[1].tokens is None and whole.token_logprobs is None
    assert joined(parts[1:2]) is parts[1] and joined([parts[1]] * 2).text == ""


def test_prose_about_several_phrases_is_kept(toy_tokenizer, monkeypatch):
    """A network whose prompts go to the decoder is asked for one phrase at a time, prose or boxes."""
    florence = tiny_florence(toy_tokenizer, "decoder")
    card = TaskCard("<COUNT>", "how many", "How many {input}?", "text", input="phrases", scoring="text")
    monkeypatch.setattr(answering_module, "task_card", lambda name: card if name == "<COUNT>" else task(name))
    script(monkeypatch, *(spell(toy_tokenizer, words) for words in ("two", "one")))
    result = florence.run(IMAGE, "<COUNT>", phrases=["dogs", "cats"])
    assert result.text == "two\none" and result.score is not None


# ---- devices


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "", 5, None])
def test_devices_that_are_not_there(florence, tmp_path, device):
    florence.save_pretrained(tmp_path)
    for call in (lambda: Florence.from_pretrained(tmp_path, device=device), lambda: florence.encode(IMAGE).to(device)):
        with pytest.raises(ValueError, match=rf"device( is |=){device!r}.*\"cpu\""):
            call()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_names_the_remedy(florence):
    with pytest.raises(ValueError, match="device='cuda' cannot be used here .*: give \"cpu\""):
        florence.encode(IMAGE).to("cuda")
