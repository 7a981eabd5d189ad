"""What ids mean: vocabulary ranges, the tokenizer, the answer grammars, and the codec between answers and ids."""

from florence_lite.tokens.codec import AnswerStream, Codec, region_markup
from florence_lite.tokens.grammars import GRAMMARS, Grammar, grammar
from florence_lite.tokens.tokenizer import Tokenizer
from florence_lite.tokens.vocabulary import IdClass, Vocabulary, added_tokens, check_marks, marks_in

__all__ = [
    "GRAMMARS",
    "AnswerStream",
    "Codec",
    "Grammar",
    "IdClass",
    "Tokenizer",
    "Vocabulary",
    "added_tokens",
    "check_marks",
    "grammar",
    "marks_in",
    "region_markup",
]
