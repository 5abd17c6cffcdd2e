"""The web process: figures for Prometheus and a page for people, read-only, from an agent it can only ask."""
