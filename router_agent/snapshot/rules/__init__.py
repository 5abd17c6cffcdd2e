"""One file for each kind of thing that may have changed: `Change` rows, and none for what is the same."""
