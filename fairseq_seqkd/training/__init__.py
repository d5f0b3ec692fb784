"""What the criterions train with: the loss, the teacher (live or stored), and the checks of the data."""
