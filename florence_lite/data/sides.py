"""Words that say where a thing is or points to: sides, which mirroring exchanges, and heights, which turning does.

The lists hold what stands in names of classes ("turn_left", "Linksabbieger", "flèche gauche", "左转") in the languages
that most data sets are labelled in, and what English sentences say. Sentences of other languages have more ways to say
where something is than a list can hold. A word too many costs no more than an image that is not mirrored.
"""

from __future__ import annotations

import re
import unicodedata

_SIDES = """
    left right leftmost rightmost lefthand righthand lefthanded righthanded leftside rightside leftward rightward
    leftwards rightwards l r lh rh lt rt lhs rhs clockwise anticlockwise counterclockwise starboard portside
    turnleft turnright leftarrow rightarrow arrowleft arrowright leftturn rightturn nearside offside portside
    east west northeast northwest southeast southwest ne nw se sw
    eastern western easterly westerly eastbound westbound eastward westward eastwards westwards
    recht rechte rechter rechten rechtes ost osten westen öst öster øst vest väst väster
    droit droite droits droites est ouest oeste este leste ovest
    destra destro destri destre derecho derecha dret dreta esquerre dreapta dreaptă
    prawo prawa prawy prawe lewo lewa lewy lewe levo leva levá levý levé vlevo pravá pravý pravé vpravo wschód zachód
    bal bala jobb sol sola solda sağa sağda sag kiri kanan trái phải oikea oikealle vasen
    лево право правый правая правое правые вправо направо лява ліва ліво дясно надясно
"""
SIDES = frozenset(_SIDES.split())
"""Words that tell a side by themselves."""

SIDE_STEMS = (
    *("uhrzeigersinn", "gegenuhrzeigersinn", "horaire", "antihoraire"),
    *("links", "linke", "linker", "rechts", "vänster", "höger", "venstre", "høyre", "højre"),
    *("gauche", "izquierd", "sinistr", "esquerd", "direit", "derech", "stâng"),
    *("balra", "baloldal", "jobbra", "jobboldal", "sağ", "oikealle", "vasemm"),
    *("левы", "лева", "лево", "влево", "налево", "слева", "справа", "правост", "ліво", "восток", "восточ", "запад"),
    *("αριστερ", "δεξι", "δεξί"),
)
"""Beginnings of words that tell a side."""

SIDE_SIGNS = (
    *"左右←→↖↗↘↙↰↱⬅➡👈👉",
    *(
        "ひだり",
        "みぎ",
        "왼",
        "오른",
        "좌회전",
        "우회전",
        "좌측",
        "우측",
        "向东",
        "向西",
        "朝东",
        "朝西",
        "東向",
        "西向",
    ),
    *("يسار", "يمين", "أيسر", "أيمن", "שמאל", "ימין", "ซ้าย", "ขวา"),
    *("बाए", "बायें", "बाईं", "बायाँ", "बायीं", "दाए", "दायें", "दाईं", "दायाँ", "दायीं"),
)
"""What tells a side wherever it stands, in scripts that do not part words or write them in several ways."""

_HEIGHTS = """
    top bottom up down topmost bottommost topside upper lower upward downward upwards downwards uppermost lowermost
    upright upside upstairs downstairs above below under over beneath underneath
    horizontal vertical horizontally vertically
    north south northern southern northerly southerly northbound southbound northward southward northwards southwards
    oben unten hoch runter haut bas dessus dessous arriba abajo cima baixo alto basso sopra sotto su giù
    góra góry dół dolny górny nahoru dolů upp ner ned yukarı aşağı atas bawah trên dưới sus jos
"""
HEIGHTS = frozenset(_HEIGHTS.split())
"""Words that tell a height, or what lies from what stands, by themselves."""

HEIGHT_STEMS = ("aufwärts", "abwärts", "верх", "вверх", "вниз", "нижн", "сверху", "снизу", "πάνω", "κάτω")
"""Beginnings of words that tell a height."""

HEIGHT_SIGNS = (
    *"上下↑↓⬆⬇👆👇⇧⇩",
    *("위", "아래", "상단", "하단", "فوق", "تحت", "أعلى", "أسفل", "למעלה", "למטה", "บน", "ล่าง", "ऊपर", "नीचे"),
)
"""What tells a height wherever it stands."""

_WORD = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LAST_SIDE, _LAST_HEIGHT = (re.compile(rf"(?<![^\W\d_])[{letters}]$") for letters in ("ew", "nsud"))  # "arrow_E"
_CLOCK = re.compile(
    r"\d\s*o\W?\s*clock|\d[:h]\d\d|\d\s*uhr|(port|driver'?s?|passenger'?s?) side\b"
    r"|(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve) o\W?clock"
)


def tells_side(text: str) -> bool:
    """Whether words tell left from right, clock directions and points of the compass included."""
    return _tells(text, SIDES, SIDE_STEMS, SIDE_SIGNS, _LAST_SIDE)


def tells_height(text: str) -> bool:
    """Whether words tell up from down, or what lies from what stands."""
    return _tells(text, HEIGHTS, HEIGHT_STEMS, HEIGHT_SIGNS, _LAST_HEIGHT)


def _tells(text: str, words: frozenset[str], stems: tuple[str, ...], signs: tuple[str, ...], last: re.Pattern) -> bool:
    text = _CAMEL.sub(" ", unicodedata.normalize("NFC", text)).lower()
    if any(each in words or each.startswith(stems) for each in _WORD.findall(text)):
        return True
    return any(sign in text for sign in signs) or bool(last.search(text.strip()) or _CLOCK.search(text))
