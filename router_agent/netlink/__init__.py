"""The kernel's route messages, many at a time."""
