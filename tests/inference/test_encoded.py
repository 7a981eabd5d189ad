"""Encoded images: they know their checkpoint, compute keys and values once, move and are saved and loaded."""

import gc
import io
import json
import re
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from florence_lite.florence import Florence
from florence_lite.inference import EncodedImage
from florence_lite.inference import encoded as encoded_module
from florence_lite.inference.encoded import IMAGES_AT_ONCE, Maker
from tests.tiny import SIDES, noise_image, tiny_florence

PROMPTS = ["<OD>", "<CAPTION>", "<OCR_WITH_REGION>"]


@pytest.fixture(scope="module", params=SIDES)
def florence(request, toy_tokenizer) -> Florence:
    return tiny_florence(toy_tokenizer, request.param)


@pytest.fixture(scope="module")
def on_decoder(toy_tokenizer) -> Florence:
    """A network whose prompts go to the decoder."""
    return tiny_florence(toy_tokenizer, "decoder")


@pytest.fixture
def projections(on_decoder):
    """Batch sizes for which cross-attention keys were computed, of the first decoder layer."""
    sizes = []
    layer = on_decoder.model.decoder.layers[0].cross_attention.k_proj
    hook = layer.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    yield sizes
    hook.remove()


def other_florence(florence: Florence, **changes) -> Florence:
    """The same parts with another network: one weight of it is another."""
    model = type(florence.model)(florence.model.config)
    model.load_state_dict(florence.model.state_dict())
    with torch.no_grad():
        model.encoder.layers[0].ffn.fc1.weight *= 1.5
    return Florence(model, florence.tokenizer, florence.card, florence.preprocessor, **changes)


# ---- keys and values


def test_keys_and_values_are_computed_once(on_decoder, projections):
    encoded = on_decoder.encode(noise_image(0))
    assert projections == []  # nobody asked yet
    first = on_decoder.run(encoded, PROMPTS)
    again = on_decoder.run(encoded, PROMPTS)
    on_decoder.detect(encoded, phrases=["dog", "cat"])
    on_decoder.run(encoded, "<VQA>", text="is it red?")
    assert projections == [1]
    assert [r.token_ids for r in first] == [r.token_ids for r in again]


def test_keys_and_values_of_several_images_are_those_of_each(on_decoder, projections):
    encoded = on_decoder.encode([noise_image(seed) for seed in range(3)])
    together = on_decoder.run(encoded, "<OD>")
    assert projections == [1, 1, 1]
    for image, result in zip(encoded, together, strict=True):
        assert on_decoder.run(image, "<OD>").token_ids == result.token_ids
    assert projections == [1, 1, 1]
    cache, model = encoded[0].cross_cache(on_decoder.model), on_decoder.model
    with torch.inference_mode():
        expected = model.cross_cache(model.encode(encoded[0].features[None])[0])
    for got, keys in zip(cache.keys + cache.values, expected.keys + expected.values, strict=True):
        assert torch.allclose(got, keys, atol=1e-6)


# ---- the checkpoint it belongs to


def test_another_checkpoint_refuses_it_by_name(florence, toy_tokenizer):
    encoded = florence.encode(noise_image(0))
    others = (
        other_florence(florence, name="runs/mine"),
        Florence(  # the same network, which prepares images otherwise
            florence.model, toy_tokenizer, preprocessor=replace(florence.preprocessor, std=(1, 1, 1)), name="runs/mine"
        ),
    )
    for other in others:
        for call in (
            lambda other=other: other.run(encoded, "<OD>"),
            lambda other=other: other.run([encoded, noise_image(1)], "<OD>"),
            lambda other=other: other.encode(encoded),
            lambda other=other: other.detect(encoded, phrases=["dog"]),
        ):
            with pytest.raises(ValueError, match=r"checkpoint 'tiny' \(weights \w{8}\).* by 'runs/mine' \(weights"):
                call()


def test_a_network_of_the_other_side_refuses_it(toy_tokenizer):
    """It would have no hidden states, or the wrong ones."""
    for side, other in (SIDES, SIDES[::-1]):
        encoded = tiny_florence(toy_tokenizer, side).encode(noise_image(0))
        with pytest.raises(ValueError, match="was made by checkpoint 'tiny'"):
            tiny_florence(toy_tokenizer, other).run(encoded, "<OD>")


def test_the_same_checkpoint_under_another_name_takes_it(florence, tmp_path):
    florence.save_pretrained(tmp_path / "copy")
    copy = Florence.from_pretrained(tmp_path / "copy")
    assert copy.name == str(tmp_path / "copy")
    encoded = florence.encode(noise_image(0))
    asked = {"max_new_tokens": 12, "num_beams": 1}
    assert copy.run(encoded, "<OD>", **asked) == florence.run(encoded, "<OD>", **asked)


def test_the_digest_sees_every_weight(florence):
    """But for the table of tokens, which has no part in an encoded image."""
    maker = florence.encoder.maker
    assert re.fullmatch(r"[0-9a-f]{64}", maker.digest) and maker.name == "tiny"
    digests = {maker.digest}
    weights = {name: tensor for name, tensor in florence.model.state_dict().items() if "embed_tokens" not in name}
    for tensor in weights.values():
        before = tensor.clone()
        tensor.add_(1e-3 * torch.randn(tensor.shape))
        digests.add(Maker.of("tiny", florence.model, florence.preprocessor).digest)
        tensor.copy_(before)
    assert len(digests) == len(weights) + 1 > 50
    assert Maker.of("x", florence.model, florence.preprocessor) == maker
    other_images = replace(florence.preprocessor, mean=(0.5, 0.5, 0.5))
    assert Maker.of("tiny", florence.model, other_images) != maker


@torch.inference_mode()
def test_networks_made_in_inference_mode_are_known(toy_tokenizer):
    florence = tiny_florence(toy_tokenizer, "decoder")
    assert florence.run(florence.encode(noise_image(0)), "<OD>").token_ids


def test_another_precision_or_place_is_named_with_the_remedy(florence):
    encoded = florence.encode(noise_image(0))
    elsewhere = encoded.to("meta")
    with pytest.raises(ValueError, match=r"the encoded image is on meta, the network on cpu: .*encoded.to\('cpu'\)"):
        florence.run(elsewhere, "<OD>")


# ---- moving


def test_moving(florence):
    encoded = florence.encode(noise_image(0))
    assert encoded.to("cpu") is encoded and encoded.device == torch.device("cpu")
    moved = encoded.to("meta")
    assert moved.device.type == "meta" and moved.features.shape == encoded.features.shape
    assert (moved.hidden_states is None) == (encoded.hidden_states is None)
    assert (moved.size_wh, moved.image, moved.maker) == (encoded.size_wh, encoded.image, encoded.maker)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_and_back(toy_tokenizer, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    florence = tiny_florence(toy_tokenizer, "decoder")
    encoded = florence.encode(noise_image(0))
    expected = florence.run(encoded, "<OD>")
    florence.model.cuda()
    assert florence.run(encoded.to("cuda"), "<OD>").token_ids == expected.token_ids
    assert florence.encode(noise_image(0)).maker == encoded.maker


def test_one_of_a_batch_does_not_keep_the_others_in_memory(florence):
    encoded = florence.encode([noise_image(seed) for seed in range(IMAGES_AT_ONCE)])
    for part in (encoded[0].features, encoded[0].hidden_states):
        assert part is None or part.untyped_storage().nbytes() == part.nbytes


# ---- the picture


def test_the_picture_may_be_left_out(florence):
    encoded = florence.encode(noise_image(0), keep_image=False)
    assert encoded.image is None and encoded.size_wh == (90, 70)
    result = florence.run(encoded, "<OD>")
    assert result.image is None and result == florence.run(noise_image(0), "<OD>")
    assert result.draw(noise_image(0)).size == florence.run(noise_image(0), "<OD>").draw().size
    with pytest.raises(ValueError, match=r"<OD> result keeps no image: .*result.draw\(image\).*keep_image=True"):
        result.draw()


@pytest.mark.parametrize("images", [noise_image(0), [noise_image(0), noise_image(1)]], ids=["one", "two"])
def test_results_keep_pictures_or_not(florence, images):
    for keep, calls in {
        True: [{}, {"keep_image": True}],
        False: [{"keep_image": False}],
    }.items():
        for options in calls:
            for result in (
                florence.run(images, "<OD>", **options),
                florence.detect(images, phrases=["dog", "cat"], **options),
                florence.caption(images, **options),
            ):
                for each in result if isinstance(result, list) else [result]:
                    assert (each.image is not None) == keep


def test_a_result_without_its_picture_keeps_nothing_of_it(florence):
    picture = noise_image(0)
    gone = weakref.ref(picture)
    result = florence.run(picture, "<OD>", keep_image=False)
    del picture
    gc.collect()
    assert gone() is None and result.size_wh == (90, 70)


def test_of_a_large_picture_a_smaller_copy_is_kept(florence, tmp_path, monkeypatch):
    image = noise_image(0)
    whole = florence.run(image, "<OD>")
    monkeypatch.setattr(encoded_module, "KEPT_PIXELS", 90 * 70 // 4)
    encoded = florence.encode(image)
    assert (encoded.size_wh, encoded.image.size) == ((90, 70), (45, 35))
    result = florence.run(encoded, "<OD>")
    assert result == whole and result.draw().size == whole.draw().size
    encoded.save(tmp_path / "photo")
    assert EncodedImage.load(tmp_path / "photo").image.size == (45, 35)


@pytest.mark.parametrize("turn", [1, 6])
def test_a_large_jpeg_is_made_smaller_while_it_is_decoded(florence, monkeypatch, turn):
    image = noise_image(0).resize((1000, 600))
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = turn
    image.save(buffer, format="JPEG", exif=exif, quality=95)
    whole = florence.encode(buffer)
    assert whole.image.size == whole.size_wh == ((1000, 600) if turn == 1 else (600, 1000))
    monkeypatch.setattr(encoded_module, "ENOUGH_WH", (400, 200) if turn == 1 else (200, 400))
    shrunk = florence.encode(buffer)
    assert shrunk.size_wh == whole.size_wh and shrunk.image.size == tuple(side // 2 for side in whole.size_wh)
    taken = [np.asarray(florence.preprocessor.resized(each.image), dtype=float) for each in (whole, shrunk)]
    assert 0 < np.abs(taken[0] - taken[1]).mean() < 1.5  # of 255


# ---- saving and loading


@pytest.mark.parametrize("keep_image", [True, False])
def test_saved_and_loaded(florence, tmp_path, keep_image):
    encoded = florence.encode(noise_image(0))
    file = tmp_path / "photo.safetensors"
    encoded.save(file, keep_image=keep_image)
    loaded = EncodedImage.load(str(file))
    assert torch.equal(loaded.features, encoded.features)
    assert loaded.maker == encoded.maker and loaded.maker.name == "tiny" and loaded.size_wh == (90, 70)
    if keep_image:
        assert np.array_equal(np.asarray(loaded.image), np.asarray(encoded.image))
    else:
        assert loaded.image is None
    assert florence.run(loaded, PROMPTS) == florence.run(encoded, PROMPTS)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.safetensors"]
    with pytest.raises(ValueError, match="made by checkpoint 'tiny'.*'another'"):
        other_florence(florence, name="another").run(loaded, "<OD>")
    file.unlink()  # nothing is still read from it
    assert florence.run(loaded, "<OD>") == florence.run(encoded, "<OD>")


def test_half_precision_is_saved_too(toy_tokenizer, tmp_path):
    florence = tiny_florence(toy_tokenizer, "decoder")
    florence.model.bfloat16()
    encoded = florence.encode(noise_image(0))
    encoded.save(tmp_path / "photo")
    loaded = EncodedImage.load(tmp_path / "photo")
    assert loaded.features.dtype == torch.bfloat16 and torch.equal(loaded.hidden_states, encoded.hidden_states)
    with pytest.raises(ValueError, match=r"checkpoint 'tiny' \(weights"):
        tiny_florence(toy_tokenizer, "decoder").run(loaded, "<OD>")


def test_a_file_replaces_its_predecessor_at_once(florence, tmp_path, monkeypatch):
    file = tmp_path / "photo"
    florence.encode(noise_image(0)).save(file)
    before = file.read_bytes()

    def full_disk(tensors, path, about):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("florence_lite.inference.encoded.save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        florence.encode(noise_image(1)).save(file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["photo"]


def test_weights_that_were_changed_since_refuse_it(toy_tokenizer):
    florence = tiny_florence(toy_tokenizer, "decoder")
    encoded = florence.encode(noise_image(0))
    assert florence.run(encoded, "<OD>").token_ids
    with torch.no_grad():
        florence.model.decoder.layers[0].ffn.fc1.weight += 0.1
    with pytest.raises(ValueError, match="the encoded image was made by checkpoint .* and cannot be used by"):
        florence.run(encoded, "<OD>")
    assert florence.run(florence.encode(noise_image(0)), "<OD>").token_ids


def test_a_folder_to_save_as(florence, tmp_path):
    with pytest.raises(IsADirectoryError, match="this is a folder; give the name of a file"):
        florence.encode(noise_image(0)).save(tmp_path)
    assert not list(tmp_path.parent.glob("*.partial"))


def test_no_folder_to_save_in(florence, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no/photo cannot be saved: there is no folder .*no"):
        florence.encode(noise_image(0)).save(tmp_path / "no" / "photo")


def test_no_file_to_load(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError, match=re.escape(f"encoded image {path} does not exist or is no file")):
            EncodedImage.load(path)


def written(path, tensors=None, **about):
    """A file as `save` writes it, with these tensors and this metadata."""
    usual = {"format": "florence_lite encoded image", "version": "1", "checkpoint": "x", "digest": "0"}
    usual |= {"size_wh": json.dumps([4, 2])}
    tensors = {"features": torch.zeros(3, 8)} if tensors is None else tensors
    save_file(tensors, path, {name: value for name, value in (usual | about).items() if value is not None})
    return path


@pytest.mark.parametrize("features", [(3, 8), (17, 9), (10**6, 1)])
def test_features_that_no_network_of_this_name_has_made(florence, tmp_path, features):
    maker = florence.encoder.maker
    tensors = {"features": torch.zeros(features)}
    file = written(tmp_path / "forged", tensors, checkpoint=maker.name, digest=maker.digest)
    with pytest.raises(ValueError, match=r"has features \[\d+, \d\], the network .*its file was changed"):
        florence.run(EncodedImage.load(file), "<OD>")


def test_metadata_that_is_nested_deeply(tmp_path):
    file = written(tmp_path / "deep", size_wh="[" * 200_000)
    with pytest.raises(ValueError, match="is a damaged encoded image"):
        EncodedImage.load(file)


def test_what_is_written_by_hand_loads(tmp_path):
    """So that each fault below is the only one of its file."""
    assert EncodedImage.load(written(tmp_path / "good")).size_wh == (4, 2)


@pytest.mark.parametrize(
    ("tensors", "about", "message"),
    [
        (None, {"format": None}, "is no encoded image: EncodedImage.save did not write it"),
        (None, {"format": "pt"}, "is no encoded image: EncodedImage.save did not write it"),
        (None, {"version": "2"}, "is of version '2', not '1': encode the image again"),
        (None, {"digest": None}, "is a damaged encoded image"),
        (None, {"size_wh": "[0, 2]"}, r"size_wh is \[0, 2\]"),
        (None, {"size_wh": "7"}, "size_wh is 7"),
        (None, {"size_wh": "[4,"}, "is a damaged encoded image"),
        ({"hidden_states": torch.zeros(3, 8)}, {}, "there are no features"),
        ({"features": torch.zeros(3)}, {}, "there are no features"),
        ({"features": torch.zeros(3, 8, dtype=torch.int32)}, {}, "there are no features"),
        (
            {"features": torch.zeros(3, 8), "hidden_states": torch.zeros(2, 8)},
            {},
            r"hidden_states is \[2, 8\], features is \[3, 8\]",
        ),
        (
            {"features": torch.zeros(3, 8), "image": torch.zeros(4, 2, 3, dtype=torch.uint8)},
            {},
            r"the picture is \[4, 2, 3\] of an image of 4×2 pixels",
        ),
    ],
)
def test_files_that_are_none(tmp_path, tensors, about, message):
    file = written(tmp_path / "bad", tensors, **about)
    with pytest.raises(ValueError, match=message) as caught:
        EncodedImage.load(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "picture", "pickle"])
def test_damaged_files_are_named(florence, tmp_path, kind):
    file = tmp_path / "photo"
    florence.encode(noise_image(0)).save(file)
    if kind == "text":
        file.write_text("Dear Sir or Madam", encoding="utf-8")
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif kind == "picture":
        Image.new("RGB", (9, 9)).save(file, format="PNG")
    else:
        torch.save({"features": torch.zeros(2, 2)}, file)
    with pytest.raises(ValueError, match=re.escape(f"{file} is no encoded image, or damaged or cut short")):
        EncodedImage.load(file)


def test_the_file_is_plain_safetensors(florence, tmp_path):
    florence.encode(noise_image(0)).save(tmp_path / "photo")
    with safe_open(tmp_path / "photo", framework="pt") as opened:
        assert opened.metadata()["checkpoint"] == "tiny"
        assert {"features", "image"} <= set(opened.keys())
