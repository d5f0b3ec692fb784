"""Smaller checkpoints: magnitude pruning, and a compressed file."""
