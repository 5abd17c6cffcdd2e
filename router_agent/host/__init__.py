"""The host itself, read from small files: what is installed on it and how it is configured."""
