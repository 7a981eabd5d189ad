"""The files beside the weights: tokenizer, image processor and decoding settings, read and written.

The tokenizer reads its own files (`florence_lite.tokens.Tokenizer.from_file`); written they are here, since what
other libraries want to find differs between the layouts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from florence_lite.cards import Calibration, task
from florence_lite.cards.calibration import FILE as CALIBRATION
from florence_lite.checkpoint.layouts import LAYOUTS, MICROSOFT_CODE, is_original
from florence_lite.checks import is_number, is_whole
from florence_lite.engine.options import MOST_BEAMS, STEEPEST_PENALTY
from florence_lite.files import read_json_object, replace_text
from florence_lite.inference.parts import check_parts
from florence_lite.inference.preprocessing import FLORENCE_2_SIZE_WH, Preprocessor
from florence_lite.model import FlorenceConfig
from florence_lite.tokens import Tokenizer
from florence_lite.tokens.tokenizer import IMAGE_TOKEN

# All files of this kind. Saving removes those that it does not write: left over, they would contradict the others.
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
    CALIBRATION,
)
GROUNDING = "<CAPTION_TO_PHRASE_GROUNDING>"
MEANINGLESS_LENGTH = 20  # `max_length` where nobody set one

# What transformers' processor needs to parse answers: an entry per kind of answer.
_ANSWER_KINDS = (
    "bboxes",
    "description_with_bboxes",
    "description_with_bboxes_or_polygons",
    "description_with_polygons",
    "ocr",
    "phrase_grounding",
    "polygons",
    "pure_text",
)


# ---- image processor -------------------------------------------------------------------------------------------------


def read_preprocessor(folder: str | os.PathLike, size_wh: tuple[int, int] = FLORENCE_2_SIZE_WH) -> Preprocessor:
    """The image processor of a checkpoint folder; Florence-2's with `size_wh` where the folder describes none.

    As in transformers, the section `image_processor` of `processor_config.json` comes before
    `preprocessor_config.json`.

    Raises ValueError naming the file and the field.
    """
    folder = Path(folder)
    file = folder / "preprocessor_config.json"
    settings: dict[str, Any] = {}
    if (folder / "processor_config.json").is_file():
        settings = read_json_object(folder / "processor_config.json").get("image_processor") or {}
    if settings:
        file = folder / "processor_config.json"
    elif file.is_file():
        settings = read_json_object(file)
    try:
        if not isinstance(settings, dict):
            raise ValueError(f"image_processor = {settings!r} must be an object")
        return Preprocessor.from_settings(settings, size_wh)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


# ---- decoding settings -----------------------------------------------------------------------------------------------


class _Setting(NamedTuple):
    """name: in transformers' files. fits: whether a value is one; rule: the same in words."""

    name: str
    fits: Callable[[Any], bool]
    rule: str


_SETTINGS = {
    "max_new_tokens": _Setting("max_new_tokens", lambda value: is_whole(value, 1), "a whole number of at least 1"),
    "num_beams": _Setting(
        "num_beams", lambda value: is_whole(value, 1) and value <= MOST_BEAMS, f"a whole number from 1 to {MOST_BEAMS}"
    ),
    "length_penalty": _Setting(
        "length_penalty",
        lambda value: is_number(value) and abs(value) <= STEEPEST_PENALTY,
        f"a number from {-STEEPEST_PENALTY} to {STEEPEST_PENALTY}",
    ),
    "early_stopping": _Setting(
        "early_stopping", lambda value: isinstance(value, bool) or value == "never", 'true, false or "never"'
    ),
    "no_repeat_ngram_size": _Setting(
        "no_repeat_ngram_size", lambda value: is_whole(value, 0), "a whole number of at least 0"
    ),
    "forced_bos": _Setting(
        "forced_bos_token_id", lambda value: value is None or is_whole(value, 0), "a token id or null"
    ),
    "do_sample": _Setting("do_sample", lambda value: isinstance(value, bool), "true or false"),
}
_SAMPLING = {
    "temperature": _Setting("temperature", lambda value: is_number(value) and value > 0, "a number above 0"),
    "top_k": _Setting("top_k", lambda value: is_whole(value, 1), "a whole number of at least 1"),
    "top_p": _Setting("top_p", lambda value: is_number(value) and 0 < value <= 1, "a number in (0, 1]"),
}


def read_decoding(folder: str | os.PathLike) -> dict[str, Any]:
    """How the checkpoint wants to be decoded, as fields of `GenerationOptions`; those that no file tells are absent.

    In the original layout that is what the `text_config` of `config.json` says; Microsoft's code reads nothing else. In
    the native layout every field comes from the first that has it: `generation_config.json`, the `text_config` of
    `config.json`, `config.json` itself. The sampling fields count only where `do_sample` is true. Lengths become
    `max_new_tokens`; a `max_length` of 20 is what transformers writes where nobody set one, and is no limit.

    `bos_token_id`, `eos_token_id` and `pad_token_id` are ignored: fine-tunes in the wild have them wrong in these
    files (2, 1, 0), and the tokenizer, which the ids belong to, knows them.

    Raises ValueError naming the file and the field.
    """
    folder = Path(folder)
    decoding: dict[str, Any] = {}
    config = read_json_object(folder / "config.json") if (folder / "config.json").is_file() else {}
    original = is_original(config)
    file = folder / "generation_config.json"
    if not original and file.is_file():
        decoding = _from_settings(read_json_object(file), file)
    sections = [config["text_config"]] if isinstance(config.get("text_config"), dict) else []
    for section in sections if original else (*sections, config):
        # Null means that nobody set it; but no forced first id is a setting where one is usual.
        said = {k: v for k, v in section.items() if v is not None or (original and k == "forced_bos_token_id")}
        decoding = {**_from_settings(said, folder / "config.json"), **decoding}
    forced, size = decoding.get("forced_bos"), sections[0].get("vocab_size") if sections else None
    if forced is not None and is_whole(size, 1) and forced >= size:
        raise ValueError(f"{folder}: forced_bos_token_id = {forced} must be below the vocabulary's size, {size}")
    if not decoding.get("do_sample"):
        decoding = {name: value for name, value in decoding.items() if name not in _SAMPLING}
    return decoding


def decoding_to_settings(decoding: Mapping[str, Any]) -> dict[str, Any]:
    """Decoding fields by the names that transformers gives them in `generation_config.json` and `text_config`.

    None counts as left out, but for `forced_bos`, where it means that no id is forced. Raises ValueError for a field
    that those files do not have, and for a value that does not fit.
    """
    known = _SETTINGS | (_SAMPLING if decoding.get("do_sample") else {})
    settings = {}
    for ours, value in decoding.items():
        if ours not in known:
            hint = "set do_sample to true, or leave it out" if ours in _SAMPLING else f"known are {', '.join(known)}"
            raise ValueError(f"decoding has {ours!r}, which cannot be saved: {hint}")
        if value is None and ours != "forced_bos":
            continue
        if not known[ours].fits(value):
            raise ValueError(f"decoding has {ours} = {value!r}; it must be {known[ours].rule}")
        settings[known[ours].name] = value
    return dict(sorted(settings.items()))


def _from_settings(settings: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The inverse of `decoding_to_settings` for what `file` holds, whatever else is in it."""
    decoding = {}
    for ours, (name, fits, rule) in (_SETTINGS | (_SAMPLING if settings.get("do_sample") is True else {})).items():
        value = settings.get(name)
        if name not in settings or (value is None and ours != "forced_bos") or (ours == "top_k" and value == 0):
            continue  # for transformers, 0 likeliest ids means all of them
        if not fits(value):
            raise ValueError(f"{file}: {name} = {value!r} must be {rule}")
        decoding[ours] = value
    length = settings.get("max_length")
    if length is not None and not is_whole(length, 2):
        raise ValueError(f"{file}: max_length = {length!r} must be a whole number of at least 2")
    if length not in (None, MEANINGLESS_LENGTH):
        decoding.setdefault("max_new_tokens", length - 1)  # transformers counts the token that decoding starts from
    return decoding


# ---- saving ----------------------------------------------------------------------------------------------------------


def write_companions(
    folder: str | os.PathLike,
    tokenizer: Tokenizer,
    preprocessor: Preprocessor,
    config: FlorenceConfig,
    decoding: Mapping[str, Any],
    layout: str = "native",
    calibration: Calibration | None = None,
) -> None:
    """Write everything beside config and weights that other libraries need to use the checkpoint.

    decoding: fields of `GenerationOptions`; what it does not name, a forced first id too, is not written.
    calibration: of these very weights; without one, none is left in the folder.
    layout: "native" for transformers' `AutoProcessor`: with `<image>`, whose id is `tokenizer.image_id` and needs a
        row in the token embeddings. "original" for Microsoft's code, whose processor adds the tokens that are there
        already. That code takes its decoding settings from the `text_config` of `config.json`.

    Each file replaces its predecessor at once; files of this kind that the layout does not have are removed. The same
    arguments write the same bytes. Raises ValueError where the parts do not fit together, before anything is written.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}; it must be one of {', '.join(LAYOUTS)}")
    check_parts(config, tokenizer, preprocessor)
    if layout == "original" and config.bins != 1000:
        raise ValueError(f"bins = {config.bins}: Microsoft's code knows only 1000; save in the native layout")
    texts = _tokenizer_files(tokenizer, config, layout)
    texts["generation_config.json"] = _to_text(_generation_config(tokenizer, decoding))
    image_processor = {
        **preprocessor.to_settings(),
        "image_processor_type": "CLIPImageProcessor",
        "image_seq_length": config.image_tokens,
        "processor_class": "Florence2Processor",
    }
    if layout == "original":
        code = MICROSOFT_CODE.format(module="processing_florence2", name="Florence2Processor")
        image_processor = {"auto_map": {"AutoProcessor": code}, **image_processor}
    else:
        texts["processor_config.json"] = _to_text(
            {
                "num_additional_image_tokens": 0,
                "post_processor_config": {
                    kind: {"banned_grounding_tokens": list(task(GROUNDING).general_phrases)}
                    if kind == "phrase_grounding"
                    else {}
                    for kind in _ANSWER_KINDS
                },
                "processor_class": "Florence2Processor",
            }
        )
    texts["preprocessor_config.json"] = _to_text(image_processor)
    if calibration is not None:
        texts[CALIBRATION] = _to_text(asdict(calibration))
    folder = Path(folder)
    for name in COMPANIONS:
        if name in texts:
            replace_text(folder / name, texts[name])
        else:
            (folder / name).unlink(missing_ok=True)


def _generation_config(tokenizer: Tokenizer, decoding: Mapping[str, Any]) -> dict[str, Any]:
    vocabulary = tokenizer.vocabulary
    return {
        "bos_token_id": vocabulary.bos,
        "decoder_start_token_id": vocabulary.eos,
        "eos_token_id": vocabulary.eos,
        "forced_eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
        **decoding_to_settings(decoding),
    }


def _tokenizer_files(tokenizer: Tokenizer, config: FlorenceConfig, layout: str) -> dict[str, str]:
    """File name → text of the tokenizer, which both layouts take for BART's."""
    whole = tokenizer.to_json(image_token=layout == "native")
    values = json.loads(whole)
    flags = {token["content"]: {k: v for k, v in token.items() if k != "id"} for token in values["added_tokens"]}
    special = {
        **{name: "<s>" for name in ("bos_token", "cls_token")},
        **{name: "</s>" for name in ("eos_token", "sep_token")},
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    mask = {name: value for name, value in flags["<mask>"].items() if name != "special"}
    texts = {
        "tokenizer.json": whole,
        "tokenizer_config.json": _to_text(
            {
                "add_prefix_space": False,
                "added_tokens_decoder": {str(token["id"]): flags[token["content"]] for token in values["added_tokens"]},
                "clean_up_tokenization_spaces": False,
                "errors": "replace",
                **({"extra_special_tokens": {"image_token": IMAGE_TOKEN}} if layout == "native" else {}),
                **special,
                "mask_token": "<mask>",
                "model_max_length": config.text.positions,
                "processor_class": "Florence2Processor",
                "tokenizer_class": "BartTokenizer",
                "trim_offsets": True,
            }
        ),
        "special_tokens_map.json": _to_text({**special, "mask_token": mask}),
    }
    if layout == "original":  # the form of a BART tokenizer that does without the tokenizers library
        vocab = sorted(values["model"]["vocab"].items(), key=lambda item: item[1])
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in values["model"]["merges"]]
        texts["vocab.json"] = json.dumps(dict(vocab), ensure_ascii=False)
        texts["merges.txt"] = "\n".join(["#version: 0.2", *merges, ""])
    return texts


def _to_text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
