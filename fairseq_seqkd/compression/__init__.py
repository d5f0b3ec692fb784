"""Smaller checkpoints: magnitude pruning, and compressed files."""
