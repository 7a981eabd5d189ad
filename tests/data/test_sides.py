"""Which words tell left from right, and which up from down."""

import pytest

from florence_lite.data.sides import tells_height, tells_side

SIDES = {
    "English": [
        "left",
        "the RIGHTMOST dog",
        "left-handed",
        "turn_left",
        "leftArrow",
        "TURNLEFT",
        "hand_L",
        "R hand",
        "L",
        "lh",
        "LT",
    ],
    "directions": [
        "facing east",
        "north-west",
        "arrow_E",
        "W",
        "westbound",
        "3 o'clock",
        "at 9 o’clock",
        "two o'clock",
        "six o'clock",
        "driver side",
    ],
    "turns": ["clockwise", "anticlockwise", "it is 10:10", "9h30"],
    "German": [
        "links",
        "im Uhrzeigersinn",
        "9 Uhr",
        "Linksabbieger",
        "der linke Fuß",
        "Rechtskurve",
        "rechte Hand",
        "nach Osten",
    ],
    "French": ["à gauche", "flèche_gauche", "main droite", "gauches", "ouest"],
    "Spanish": ["izquierda", "girar a la derecha", "derecho", "oeste"],
    "Portuguese": ["mão esquerda", "direita"],
    "Italian": ["sinistra", "destra", "svolta a destra"],
    "Dutch": ["linkerhand", "rechtsaf"],
    "Swedish": ["vänstersväng", "höger"],
    "Polish": ["w lewo", "prawa strona"],
    "Czech": ["vlevo", "pravá ruka"],
    "Turkish": ["sola dön", "sağ el", "Sağ"],
    "Hungarian": ["bal kéz", "jobbra"],
    "Indonesian": ["belok kiri", "kanan"],
    "Vietnamese": ["rẽ trái", "phải"],
    "Russian": ["налево", "левый ботинок", "справа", "на востоке"],
    "Greek": ["αριστερά", "δεξί χέρι"],
    "Chinese": ["左转", "右", "向东"],
    "Japanese": ["左折", "みぎ"],
    "Korean": ["왼쪽", "우회전"],
    "Arabic": ["يسار", "اليمين"],
    "Hebrew": ["שמאלה"],
    "Hindi": ["बाएं", "दाएँ मुड़ें"],
    "Thai": ["เลี้ยวซ้าย", "ขวา"],
    "signs": ["arrow ←", "⬅️", "👉"],
}
HEIGHTS = [
    "up",
    "arrow_down",
    "UPPER jaw",
    "upside-down",
    "north",
    "arrow N",
    "U",
    "oben",
    "haut",
    "arriba",
    "上",
    "아래",
    "верх",
    "↑",
]
NEITHER = [
    *(
        "cat",
        "traffic light",
        "bright leftovers",
        "copyright",
        "prawn",
        "destroyer",
        "lever",
        "umbrella",
        "ball",
        "watch",
    ),
    *(
        "easter egg",
        "ostrich",
        "e-bike",
        "T-shirt",
        "shell",
        "rectangle",
        "Rechteck",
        "7",
        "class 3",
        "",
    ),
    *("猫", "собака", "chien", "Hund", "개", "كلب", "σκύλος", "کتاب", "หมา", "कुत्ता"),
]


@pytest.mark.parametrize("text", [text for texts in SIDES.values() for text in texts])
def test_sides(text):
    assert tells_side(text)


@pytest.mark.parametrize("text", HEIGHTS)
def test_heights(text):
    assert tells_height(text)


@pytest.mark.parametrize("text", NEITHER)
def test_other_words(text):
    assert not tells_side(text) and not tells_height(text)


def test_either_form_of_unicode():
    assert tells_side("sag\u0306") and tells_side("va\u0308nster") and tells_height("giu\u0300")
