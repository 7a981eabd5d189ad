"""Text ↔ ids: a byte-level BPE tokenizer with Florence-2's added tokens."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers

from florence_lite.files import read_json_object, read_text, replace_text
from florence_lite.tokens.vocabulary import Vocabulary, added_tokens

IMAGE_TOKEN = "<image>"  # of the native layout; stands for an image token in its input_ids
_FIRST = ("<s>", "<pad>", "</s>", "<unk>")
_DEFAULT_BINS = 1000
_LARGEST = 2**24  # bytes of a file; Florence-2's has a quarter of it
_MOST_TOKENS = 2**20
_MOST_ADDED = 2**14  # Florence-2 has 1,029
_LONGEST_TOKEN = 512  # characters; the longest of BART's has 128
_LONGEST_TEXT = 2**17  # characters: many times what any network takes
# What a tokenizer.json may hold beside Florence-2's tokens: its part, field and possible values, of which the first is
# meant where the field is absent. Others would change texts, by chance or at any length, before they are split.
_FIXED = {
    ("normalizer", ""): (None,),
    ("pre_tokenizer", "type"): ("ByteLevel",),
    ("pre_tokenizer", "add_prefix_space"): (False, True),
    ("pre_tokenizer", "use_regex"): (True,),
    ("model", "type"): ("BPE",),
    ("model", "dropout"): (None, 0),
    ("model", "unk_token"): (None, "<unk>"),
    ("model", "continuing_subword_prefix"): (None, ""),
    ("model", "end_of_word_suffix"): (None, ""),
    ("model", "fuse_unk"): (False,),
    ("model", "byte_fallback"): (False,),
    ("model", "ignore_merges"): (False, True),
}
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_MARK = re.compile(r"</?\w+>")  # an added token that stands in vocab.json
_MOST_LOOSE = 16  # more entries that no merge builds than BART has: "<|endoftext|>" and three fillers


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
        self._bytes = {token_id: _token_bytes(backend.id_to_token(token_id)) for token_id in self.vocabulary.text_ids}

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a checkpoint folder's tokenizer, or a single `tokenizer.json`.

        A folder holds `tokenizer.json` or, as older fine-tunes do, `vocab.json` with `merges.txt`. Beside them,
        `added_tokens.json` and the `added_tokens_decoder` of `tokenizer_config.json` may record further tokens.
        Florence-2's added tokens are supplied where all of them lack them: the original repositories hold only the
        first five. Tokens of a fine-tune's own follow behind; they are read in prompts and are no part of answers.
        `<image>`, which the native layout puts in place of image tokens, is taken away where nothing follows it.

        Nothing but tokens, merges and the flags of added tokens is taken from a file. How texts are split is
        Florence-2's way, and a file that wants another is refused: some never end, or make texts grow without limit.

        Raises FileNotFoundError, or ValueError where a file is damaged, holds no Florence-2 vocabulary, or gives a
        token another id than its place in Florence-2's order.
        """
        path = Path(path)
        file = _main_file(path)
        values = read_json_object(file, _LARGEST)
        records = _read_records(file, values, path)
        ids = [record.id for record in records.values()]
        # Only image tokens may stand where `<image>` does, and networks of other origin have no row for it.
        dropped = IMAGE_TOKEN if IMAGE_TOKEN in records and records[IMAGE_TOKEN].id == max(ids) else None
        backend = _read_bpe(file, values) if file.name == "vocab.json" else _read_whole(file, values, dropped)
        bins = _count_locations(lambda token: token in records or backend.token_to_id(token) is not None)
        _supply_added_tokens(backend, bins or _DEFAULT_BINS)
        size = backend.get_vocab_size()
        own: list[AddedToken] = []
        for text, record in sorted(records.items(), key=lambda item: item[1].id):
            token_id = backend.token_to_id(text)
            place = size + len(own) if token_id is None else token_id
            if record.id != place:
                raise ValueError(
                    f"{record.file}: {text!r} has the id {record.id}, its place in Florence-2's order is {place}. Save "
                    "the tokenizer again with the added tokens of Florence-2 in order right behind <mask> and tokens "
                    "of its own behind <and>, and move the rows of the embeddings likewise"
                )
            if token_id is None and text != dropped:
                own.append(record.token)
        backend.add_tokens(own)  # all at once: each call takes as long as there are tokens
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
        backend = _byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=entries,
            special_tokens=list(_FIRST),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        _supply_added_tokens(backend, bins)
        return cls(backend)

    @property
    def image_id(self) -> int:
        """The id of `<image>` in the native layout: its own where tokens stand behind it, else the first free one."""
        token_id = self._backend.token_to_id(IMAGE_TOKEN)
        return self.vocabulary.size if token_id is None else token_id

    def to_json(self, image_token: bool = False) -> str:
        """The text of a `tokenizer.json`; with `<image>` as the native layout has it if image_token."""
        if not image_token or self.image_id < self.vocabulary.size:
            return self._backend.to_str()
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        backend.add_special_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)])
        return backend.to_str()

    def save(self, path: str | Path) -> Path:
        """Write `tokenizer.json`, to a path that ends in .json or into a folder, and return the file's path."""
        path = Path(path)
        file = path if path.suffix == ".json" else path / "tokenizer.json"
        replace_text(file, self.to_json())
        return file

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of `<s>` text `</s>`. Added tokens written in the text (`<loc_12>`, `<and>` …) are read as such."""
        return [self.vocabulary.bos, *_encode(self._backend, text), self.vocabulary.eos]

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a label or caption as it stands: text ids only, even for "<loc_5>" or "</s>" typed as text."""
        return _encode(self._plain, text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids: all their bytes read as UTF-8, invalid ones as U+FFFD; ids that are no text are skipped."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The UTF-8 of ids, which may end inside a character; ids that are no text are skipped."""
        return b"".join(self._bytes.get(token_id, b"") for token_id in ids)


def _encode(backend: tokenizers.Tokenizer, text: str) -> list[int]:
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"text {text[:40]!r}… has {len(text):,} characters; {_LONGEST_TEXT:,} may be: shorten it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"text {text[:40]!r} is no valid Unicode: {error.reason}") from error
    return backend.encode(text, add_special_tokens=False).ids


@dataclass(frozen=True)
class _Record:
    """An added token as a file records it."""

    id: int
    token: AddedToken
    file: Path


def _main_file(path: Path) -> Path:
    """The file that holds the byte-level BPE: `tokenizer.json` or `vocab.json`."""
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"no tokenizer at {path}; give a tokenizer.json or the folder that holds one")
        return path
    if (path / "tokenizer.json").is_file():
        return path / "tokenizer.json"
    pair = [path / "vocab.json", path / "merges.txt"]
    missing = [file.name for file in pair if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"no tokenizer in {path}; it needs tokenizer.json, or vocab.json with merges.txt"
            + (f" ({missing[0]} is missing)" if len(missing) == 1 else "")
        )
    return pair[0]


def _read_records(file: Path, values: dict, path: Path) -> dict[str, _Record]:
    """The added tokens that the files record; ValueError where two of them disagree about an id.

    values: what the main file holds. path: the folder.
    """
    found: list[tuple[str, _Record]] = []
    if file.name != "vocab.json":
        found += _listed(file, values.get("added_tokens", []))
    config, added = path / "tokenizer_config.json", path / "added_tokens.json"
    if config.is_file():
        decoder = read_json_object(config).get("added_tokens_decoder", {})
        if not isinstance(decoder, dict) or not all(isinstance(entry, dict) for entry in decoder.values()):
            raise ValueError(f"{config}: added_tokens_decoder must map ids to objects with the token as 'content'")
        found += _listed(config, [{**entry, "id": token_id} for token_id, entry in decoder.items()])
    if added.is_file():
        found += _listed(added, [{"content": text, "id": number} for text, number in read_json_object(added).items()])
    records: dict[str, _Record] = {}
    for text, record in found:
        first = records.setdefault(text, record)
        if first.id != record.id:
            raise ValueError(
                f"{record.file}: {text!r} has the id {record.id}, in {first.file.name} it has {first.id}; delete the "
                "file that is wrong"
            )
    return records


def _listed(file: Path, entries: list[dict]) -> Iterator[tuple[str, _Record]]:
    """Added tokens as `tokenizer.json` lists them: content, id, and flags that say how they are found in a text."""
    entries = entries if isinstance(entries, list) else [entries]
    if len(entries) > _MOST_ADDED:
        raise ValueError(f"{file} has {len(entries):,} added tokens; {_MOST_ADDED:,} may be")
    for entry in entries:
        try:
            flags = {name: bool(entry[name]) for name in _FLAGS if name in entry}
            if len(entry["content"]) > _LONGEST_TOKEN:
                raise ValueError("too long")
            yield entry["content"], _Record(int(entry["id"]), AddedToken(entry["content"], **flags), file)
        except (TypeError, KeyError, ValueError):
            raise ValueError(
                f"{file}: {str(entry)[:80]} is no added token; it needs a short text and a whole id"
            ) from None


def _read_whole(file: Path, values: dict, dropped: str | None) -> tokenizers.Tokenizer:
    """The backend of a `tokenizer.json` that holds `values`, without the added token `dropped`."""
    for (part, name), allowed in _FIXED.items():
        section = values.get(part)
        if name and not isinstance(section, dict):
            raise ValueError(f"{file} is not a tokenizer.json of Florence-2: its {part} is {_short(section)}")
        value = section.get(name, allowed[0]) if name else section
        if not any(value == each and type(value) is type(each) for each in allowed):
            where = f"{part}.{name}" if name else part
            raise ValueError(f"{file} is not a tokenizer.json of Florence-2: {where} = {_short(value)}")
    model = values["model"]
    merges = model.get("merges")
    pairs = [tuple(each.split(" ") if isinstance(each, str) else each) for each in _listing(file, "merges", merges)]
    names = [name for part, name in _FIXED if part == "model" and name != "type"]
    options = {name: model[name] for name in names if model.get(name) is not None}
    backend = _byte_level(
        _bpe(file, model.get("vocab"), pairs, **options), values["pre_tokenizer"].get("add_prefix_space", False)
    )
    tokens = [record.token for text, record in _listed(file, values.get("added_tokens", [])) if text != dropped]
    for special, group in itertools.groupby(tokens, lambda token: token.special):
        (backend.add_special_tokens if special else backend.add_tokens)(list(group))
    return backend


def _read_bpe(file: Path, vocab: dict[str, int]) -> tokenizers.Tokenizer:
    """BART's tokenizer from a `vocab.json` that holds `vocab`, and the `merges.txt` beside it."""
    _check_vocab(file, vocab)
    merges = _read_merges(file.with_name("merges.txt"), vocab)
    backend = _byte_level(_bpe(file, vocab, merges, continuing_subword_prefix="", end_of_word_suffix=""))
    first = [AddedToken(token, special=True, normalized=True) for token in _FIRST]
    backend.add_special_tokens([*first, AddedToken("<mask>", lstrip=True, special=True, normalized=True)])
    return backend


def _bpe(file: Path, vocab: Any, merges: list[tuple], **options: Any) -> models.BPE:
    _check_vocab(file, vocab)
    if any(len(pair) != 2 or not all(isinstance(part, str) for part in pair) for pair in merges):
        raise ValueError(f"{file}: merges must be pairs of tokens")
    try:
        return models.BPE(vocab, merges, **options)
    except Exception as error:  # the backend raises bare Exception
        raise ValueError(f"{file}: its tokens and merges do not fit together: {str(error)[:200]}") from error


def _check_vocab(file: Path, vocab: Any) -> None:
    if not isinstance(vocab, dict) or not vocab or len(vocab) > _MOST_TOKENS:
        raise ValueError(f"{file} is no tokenizer: its vocabulary must give 1 to {_MOST_TOKENS:,} tokens an id each")
    if sorted(token_id for token_id in vocab.values() if isinstance(token_id, int)) != list(range(len(vocab))):
        raise ValueError(f"{file} must give every token an id of its own, from 0 on without gaps")
    if longest := next((token for token in vocab if len(token) > _LONGEST_TOKEN), None):
        raise ValueError(
            f"{file} has the token {_short(longest)} of {len(longest)} characters; {_LONGEST_TOKEN} may be"
        )


def _listing(file: Path, name: str, values: Any) -> list:
    if not isinstance(values, list) or len(values) > _MOST_TOKENS:
        raise ValueError(f"{file}: {name} must be a list of at most {_MOST_TOKENS:,} entries")
    if not all(isinstance(each, str | list) for each in values):
        raise ValueError(f"{file}: {name} must be texts or lists")
    return values


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _read_merges(file: Path, vocab: dict[str, int]) -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(read_text(file, _LARGEST).split("\n"), 1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = tuple(line.split(" "))
        if len(pair) != 2 or not vocab.keys() >= {*pair, "".join(pair)}:
            raise ValueError(f"{file}: line {number}, {line!r}, merges no two tokens of vocab.json; copy both again")
        merges.append(pair)
    built = {first + second for first, second in merges}
    loose = [token for token in vocab if len(token) > 1 and token not in built and not _MARK.fullmatch(token)]
    if len(loose) > _MOST_LOOSE:
        raise ValueError(
            f"{file} is cut short: its {len(merges)} merges do not build {len(loose)} entries of vocab.json, such as "
            f"{loose[0]!r}; copy it again"
        )
    return merges


def _byte_level(model: models.BPE, add_prefix_space: bool = False) -> tokenizers.Tokenizer:
    """BART's way around a BPE: bytes in, `<s>` text `</s>` out; usually no space put in front."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return backend


def _supply_added_tokens(backend: tokenizers.Tokenizer, bins: int) -> None:
    """Add what is missing at the end, in Florence-2's order."""
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    missing = [token for token in ["<mask>", *added_tokens(bins)] if token not in known]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in missing])


def _count_locations(known: Callable[[str], bool]) -> int:
    """How many of `<loc_0>` `<loc_1>` … are known."""
    return next(bins for bins in itertools.count() if not known(f"<loc_{bins}>"))


def _read_vocabulary(backend: tokenizers.Tokenizer) -> Vocabulary:
    bins = _count_locations(lambda token: backend.token_to_id(token) is not None)
    tokens = [*_FIRST, "<mask>", *added_tokens(bins)]
    ids = [backend.token_to_id(token) for token in tokens]
    missing = [token for token, token_id in zip(tokens, ids, strict=True) if token_id is None]
    if not bins or missing:
        raise ValueError(f"the tokenizer lacks {['<loc_0>', *missing][:5]}: not a Florence-2 vocabulary")
    if ids[:4] != [0, 1, 2, 3]:
        raise ValueError(f"{' '.join(_FIRST)} have the ids {ids[:4]}; Florence-2 has 0 1 2 3")
    for token, token_id, expected in zip(tokens[4:], ids[4:], itertools.count(ids[4])):
        if token_id != expected:
            raise ValueError(
                f"{token} has the id {token_id} instead of {expected}: <mask> and the added tokens must have ids in "
                "Florence-2's order, without gaps, a fine-tune's own tokens behind them"
            )
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
    try:
        return bytes(map(_BYTE_OF_CHARACTER.__getitem__, token))
    except (KeyError, TypeError):
        raise ValueError(f"token {token!r} is not byte-level BPE; only such tokenizers are known") from None
