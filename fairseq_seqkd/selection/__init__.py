"""Which hypothesis of an n-best list becomes the target: similarity, choice and filters."""
