"""The table that the device forwards by: which prefixes it has, and by which interface each leaves."""
