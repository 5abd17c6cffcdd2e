"""Where routes go."""
