"""A point of presence in network namespaces."""
