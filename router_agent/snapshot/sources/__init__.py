"""One file for each source: `read` asks it, and raises `NotHereError` or `NotKnownError` with the reason."""
