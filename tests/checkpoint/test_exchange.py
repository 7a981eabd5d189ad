"""Networks from and to transformers' own class, in memory."""

import sys
from types import SimpleNamespace

import pytest
import torch

from florence_lite import Florence
from florence_lite.inference.preprocessing import Preprocessor
from tests.tiny import noise_image, tiny_florence

transformers = pytest.importorskip("transformers")

IMAGE = noise_image(5)
PROMPTS = ["<CAPTION>", "<OD>", "What is this?"]


@pytest.fixture(scope="module")
def florence(toy_tokenizer):
    plain = tiny_florence(toy_tokenizer, "encoder")
    grey = Preprocessor(plain.model.config.image_size_wh, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    return Florence(plain.model, toy_tokenizer, preprocessor=grey, decoding={"num_beams": 3, "forced_bos": 0})


@pytest.fixture(scope="module")
def native(florence):
    return florence.to_transformers()


def logits(florence, model, processor, prompt):
    """Of a few ids that are forced: ours and transformers'."""
    inputs = processor(text=prompt, images=IMAGE, return_tensors="pt")
    answer = torch.tensor([[2, 0, 30, 40, 50]])
    with torch.inference_mode():
        theirs = model(**inputs, decoder_input_ids=answer).logits
        network = florence.model
        features = network.encode_image(florence.preprocessor([IMAGE]).to(network.embed_tokens.weight.dtype))
        ids = torch.tensor([florence.tokenizer.encode_prompt(prompt)])
        states, mask = network.encode(features, ids)
        ours = network.logits(network.decode(answer, network.cross_cache(states), mask))
    return ours, theirs[..., : ours.shape[-1]]


def test_there_ids_and_logits_are_equal(florence, native):
    model, processor = native
    assert not model.training and model.generation_config.num_beams == 3
    ours, theirs = logits(florence, model, processor, "What is this?")
    assert (ours - theirs).abs().max() < 1e-4 < theirs.std()
    for prompt in PROMPTS:
        inputs = processor(text=prompt, images=IMAGE, return_tensors="pt")
        expected = model.generate(**inputs, max_new_tokens=20)[0, 1:].tolist()
        got = list(florence.run(IMAGE, prompt, max_new_tokens=20, compat=True).token_ids)
        assert got == expected[: expected.index(2) + 1] and len(got) > 1


def test_and_back(florence, native):
    back = Florence.from_transformers(*native)
    assert back.preprocessor == florence.preprocessor
    assert back.decoding["num_beams"] == 3 and back.decoding["forced_bos"] == 0
    assert back.tokenizer.vocabulary == florence.tokenizer.vocabulary
    text = "<loc_5> a dog, café"
    assert back.tokenizer.encode_prompt(text) == florence.tokenizer.encode_prompt(text)
    for prompt in PROMPTS:
        ours, theirs = (each.run(IMAGE, prompt, max_new_tokens=20) for each in (florence, back))
        assert ours.token_ids == theirs.token_ids
        assert ours.token_logprobs == pytest.approx(theirs.token_logprobs, abs=1e-5)


def test_weights_are_copied_both_ways(florence):
    model, processor = florence.to_transformers()
    back = Florence.from_transformers(model, processor)
    before = florence.model.embed_tokens.weight.clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    rows = len(before)
    assert torch.equal(florence.model.embed_tokens.weight, before)
    assert torch.equal(back.model.embed_tokens.weight[:rows], before)


def test_half_precision_stays(florence, native):
    model, processor = native
    half = Florence.from_transformers(
        transformers.Florence2ForConditionalGeneration(model.config).bfloat16(), processor
    )
    assert half.model.embed_tokens.weight.dtype == torch.bfloat16
    assert half.to_transformers()[0].dtype == torch.bfloat16


def test_networks_that_transformers_does_not_know(toy_tokenizer):
    with pytest.raises(ValueError, match="checkpoint 'tiny' reads its prompt in the decoder"):
        tiny_florence(toy_tokenizer, "decoder").to_transformers()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model, processor: (torch.nn.Linear(2, 2), processor), "model is a Linear; from_transformers takes"),
        (lambda model, processor: (model.model, processor), "model is a Florence2Model"),
        (lambda model, processor: ("microsoft/Florence-2-base", processor), "model is a str"),
        (
            lambda model, processor: (SimpleNamespace(merge_and_unload=None), processor),
            r"give model.merge_and_unload\(\)",
        ),
        (lambda model, processor: (model, processor.tokenizer), "Tokenizer without tokenizer; give that of the"),
        (lambda model, processor: (model, None), "processor is a NoneType"),
        (
            lambda model, processor: (
                transformers.Florence2ForConditionalGeneration(model.config).to("meta"),
                processor,
            ),
            "is not in memory; load the model without device_map",
        ),
    ],
)
def test_what_is_no_florence_2_is_refused(native, change, message):
    with pytest.raises(ValueError, match=message):
        Florence.from_transformers(*change(*native))


def test_a_processor_of_another_model_is_refused(native):
    model, processor = native
    smaller = transformers.Florence2Config(**model.config.to_dict())
    smaller.text_config.vocab_size, smaller.image_token_id = 300, 3
    with pytest.raises(ValueError, match="300"):
        Florence.from_transformers(transformers.Florence2ForConditionalGeneration(smaller), processor)


def test_missing_transformers_is_named(florence, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install 'transformers>=5'"):
        florence.to_transformers()
