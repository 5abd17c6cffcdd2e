"""A second VPP as traffic generator: its packet generator sends, its interface counters count."""
