"""Whole hosts in seconds: Debian with systemd in containers, each with its own network namespace, by ssh."""
