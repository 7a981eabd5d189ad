"""What training scenes may have beyond the world of the catalogue, so that a model learns where it ends."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np

from florence_lite.checks import check_share

_SHORTEST, _LONGEST = 2, 8  # letters of a word in any order
_STRANGE = """
    man woman child girl boy king queen monkey deer goat duck eagle snake lizard spider bee ant worm whale shark
    dolphin seal camel zebra giraffe kangaroo squirrel bat swan parrot pear grape subway scooter ambulance tank
    desk bed lamp stove oven fridge sink toilet towel carpet curtain bowl fork bucket rope saw screw drill
    pencil stamp flag crown ring necklace shirt glove sock boot piano drum violin trumpet computer keyboard
    robot cloud tent coin doll kite vase pipe stone shower statue fountain lantern helmet mask suitcase backpack
    wallet belt scarf skate sled comb zipper anchor medal puppet pumpkin walnut coconut
"""
STRANGE_THINGS = tuple(_STRANGE.split())
"""Things that no scene shows, neither as a class nor as a part of its artwork, such as the candles of a cake; nor are
they words that stand in pictures."""


@dataclass(frozen=True)
class Variety:
    """Shares, from 0 to 1, of what is beyond the catalogue.

    any_letters: of the words in the picture, those that are two to eight letters in any order, so that reading them
        needs more than telling known words apart.
    strange_things: of the things that are spoken of and that a scene does not show, those that no scene shows.

    Raises ValueError for a share out of range.
    """

    any_letters: float = 0.0
    strange_things: float = 0.0

    def __post_init__(self):
        check_share(self, "any_letters", "strange_things")

    def word(self, rng: np.random.Generator) -> str | None:
        """Letters in any order in lower case, where the chance wants it; without a share nothing is drawn."""
        if not self.any_letters or rng.random() >= self.any_letters:
            return None
        return "".join(rng.choice(list(ascii_lowercase), int(rng.integers(_SHORTEST, _LONGEST + 1))))

    def thing(self, rng: np.random.Generator) -> str | None:
        """A thing that no scene shows, where the chance wants it; without a share nothing is drawn."""
        if not self.strange_things or rng.random() >= self.strange_things:
            return None
        return STRANGE_THINGS[int(rng.integers(len(STRANGE_THINGS)))]


PLAIN = Variety()
"""Nothing beyond the catalogue: the scenes of every split."""
