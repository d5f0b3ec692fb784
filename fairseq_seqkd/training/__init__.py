"""What the criterions train with: the loss, live and stored teachers, and their checks."""
