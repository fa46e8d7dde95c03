"""One run: look, propose, move, restore; and what judges a step."""
