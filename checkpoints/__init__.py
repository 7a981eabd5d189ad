"""The checkpoint cards, each beside the files it ships (read by florence_lite.cards)."""
