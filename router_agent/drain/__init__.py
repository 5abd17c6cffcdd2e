"""Drain: have neighbours prefer other routers (RFC 8326), and know by measurement when they do."""
