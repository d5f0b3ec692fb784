"""Measurements of checkpoints: quality, speed, and whether differences are significant."""
