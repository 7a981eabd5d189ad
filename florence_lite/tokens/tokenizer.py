"""Text ↔ ids: a byte-level BPE tokenizer with Florence-2's added tokens."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers

from florence_lite.tokens.vocabulary import Vocabulary, added_tokens

_FIRST = ("<s>", "<pad>", "</s>", "<unk>")
_DEFAULT_BINS = 1000


class Tokenizer:
    """Prompts and labels to ids, ids to text.

    Text is kept byte for byte: no space is added, stripped or cleaned up in either direction, so that
    `decode(encode_plain(text)) == text` for every text.
    """

    def __init__(self, backend: tokenizers.Tokenizer):
        """backend: a byte-level BPE tokenizer with all added tokens; ValueError where it is not Florence-2's kind."""
        self.vocabulary = _read_vocabulary(backend)
        self._backend = backend
        self._backend.no_padding()
        self._backend.no_truncation()
        # The same BPE without added tokens: whatever is typed stays text.
        self._plain = tokenizers.Tokenizer(backend.model)
        self._plain.pre_tokenizer = backend.pre_tokenizer
        self._bytes = {id: _token_bytes(backend.id_to_token(id)) for id in self.vocabulary.text_ids}

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read `tokenizer.json`, or the one in a folder. Added tokens that it lacks are supplied: the original
        Florence-2 repositories hold only the first five.

        Raises FileNotFoundError, or ValueError where the file holds no Florence-2 vocabulary.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(f"no tokenizer at {file}; give a tokenizer.json or the folder that holds one")
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the backend raises bare Exception
            raise ValueError(f"{file} is not a tokenizer.json: {error}") from error
        _supply_added_tokens(backend, _count_locations(backend) or _DEFAULT_BINS)
        try:
            return cls(backend)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, bins: int = _DEFAULT_BINS) -> Tokenizer:
        """Learn a byte-level BPE from texts.

        vocab_size: ids in all, added tokens included; fewer are used where the texts have no more pairs to merge.
        Raises ValueError where that leaves no room for the 256 bytes.
        """
        marks = added_tokens(bins)
        entries = vocab_size - len(marks) - 1
        smallest = len(_FIRST) + 256
        if entries < smallest:
            raise ValueError(
                f"vocab_size is {vocab_size}; with {bins} bins it must be at least {smallest + len(marks) + 1}"
            )
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=entries,
            special_tokens=list(_FIRST),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
        _supply_added_tokens(backend, bins)
        return cls(backend)

    def save(self, path: str | Path) -> Path:
        """Write `tokenizer.json`, to a path that ends in .json or into a folder, and return the file's path."""
        path = Path(path)
        file = path if path.suffix == ".json" else path / "tokenizer.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        self._backend.save(str(file), pretty=False)
        return file

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of `<s>` text `</s>`. Added tokens written in the text (`<loc_12>`, `<and>` …) are read as such."""
        return [self.vocabulary.bos, *_encode(self._backend, text), self.vocabulary.eos]

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a label or caption as it stands: text ids only, even for "<loc_5>" or "</s>" typed as text."""
        return _encode(self._plain, text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids: all their bytes read as UTF-8, invalid ones as U+FFFD; ids that are no text are skipped."""
        return b"".join(self._bytes.get(id, b"") for id in ids).decode("utf-8", errors="replace")


def _encode(backend: tokenizers.Tokenizer, text: str) -> list[int]:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"text {text[:40]!r} is no valid Unicode: {error.reason}") from error
    return backend.encode(text, add_special_tokens=False).ids


def _supply_added_tokens(backend: tokenizers.Tokenizer, bins: int) -> None:
    """Add what is missing at the end, in Florence-2's order."""
    tokens = ["<mask>", *added_tokens(bins)]
    missing = [token for token in tokens if backend.token_to_id(token) is None]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in missing])


def _count_locations(backend: tokenizers.Tokenizer) -> int:
    bins = 0
    while backend.token_to_id(f"<loc_{bins}>") is not None:
        bins += 1
    return bins


def _read_vocabulary(backend: tokenizers.Tokenizer) -> Vocabulary:
    bins = _count_locations(backend)
    tokens = [*_FIRST, "<mask>", *added_tokens(bins)]
    ids = [backend.token_to_id(token) for token in tokens]
    missing = [token for token, id in zip(tokens, ids, strict=True) if id is None]
    if not bins or missing:
        raise ValueError(f"the tokenizer lacks {['<loc_0>', *missing][:5]}: not a Florence-2 vocabulary")
    if ids[:4] != [0, 1, 2, 3]:
        raise ValueError(f"{' '.join(_FIRST)} have the ids {ids[:4]}; Florence-2 has 0 1 2 3")
    if ids[4:] != list(range(ids[4], ids[4] + len(ids) - 4)):
        raise ValueError("<mask> and the added tokens must have consecutive ids in the order of Florence-2")
    id_of = dict(zip(tokens, ids, strict=True))
    return Vocabulary(
        loc_first=id_of["<loc_0>"],
        bins=bins,
        sep=id_of["<sep>"],
        poly_open=id_of["<poly>"],
        poly_close=id_of["</poly>"],
        and_=id_of["<and>"],
        size=backend.get_vocab_size(with_added_tokens=True),
    )


def _byte_of_character() -> dict[str, int]:
    """How byte-level BPE writes bytes: printable Latin-1 as itself, the others as the characters from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_of_character()


def _token_bytes(token: str | None) -> bytes:
    if token is None or not _BYTE_OF_CHARACTER.keys() >= set(token):
        raise ValueError(f"token {token!r} is not byte-level BPE; only such tokenizers are known")
    return bytes(_BYTE_OF_CHARACTER[character] for character in token)
