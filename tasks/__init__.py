"""The task cards: one TOML file per prompt (read by florence_lite.cards)."""
