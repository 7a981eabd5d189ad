"""Cards of one kind by name: those of a packaged folder, and those added at run time."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from florence_lite.checks import check_fields, hint
from florence_lite.files import read_toml


class Named(Protocol):
    """What cards are found by."""

    @property
    def name(self) -> str: ...


Card = TypeVar("Card", bound=Named)


class Registry(Generic[Card]):
    """The cards of one packaged folder by name, read when first asked for.

    kind: "task" or "checkpoint"; the folder is called by its plural. card_type: the dataclass of the cards.
    """

    def __init__(self, kind: str, card_type: type[Card]):
        self.kind = kind
        self.card_type = card_type
        self._by_name: dict[str, Card] | None = None
        self._packaged: frozenset[str] = frozenset()

    @property
    def by_name(self) -> dict[str, Card]:
        """All cards by their names; those of the folder first."""
        if self._by_name is None:
            found: dict[str, Card] = {}
            for file in sorted(card_folder(self.kind).iterdir(), key=lambda file: file.name):
                if file.name.endswith(".toml"):
                    self._insert(found, read_card(self.card_type, file))
            self._by_name, self._packaged = found, frozenset(found)
        return self._by_name

    def is_packaged(self, name: str) -> bool:
        """Whether a card of the folder is called so."""
        return name in self.by_name and name in self._packaged

    def add(self, card: Card) -> None:
        """Add a card; ValueError where its name is taken."""
        self._insert(self.by_name, card)

    def _insert(self, cards: dict[str, Card], card: Card) -> None:
        if card.name in cards:
            raise ValueError(f"{self.kind} {card.name} is registered already; give the new card another name")
        cards[card.name] = card

    def choices(self) -> str:
        """The names, for a message."""
        return f"{self.kind}s: {', '.join(self.by_name) or 'none'}"

    def unknown(self, name: str) -> ValueError:
        """The error for a name that no card has."""
        return ValueError(f"unknown {self.kind} {name!r}; {hint(name, self.by_name, cutoff=0.5)}{self.choices()}")


def card_folder(kind: str) -> Path:
    """The packaged folder of the cards of a kind."""
    return Path(str(resources.files(f"florence_lite._cards.{kind}s")))


def read_card(card_type: type[Card], file: Path) -> Card:
    """The card in a TOML file; each ValueError names the file. Raises FileNotFoundError where there is none."""
    table = read_toml(file, "card")
    try:
        return card_type(**check_fields(card_type, table))
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from error
