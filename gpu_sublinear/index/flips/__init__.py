"""The index that follows the pairs that flip, over implicit weights."""
