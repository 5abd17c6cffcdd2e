"""Interfaces as Linux has them, kept so in VPP: read both, plan, apply."""
