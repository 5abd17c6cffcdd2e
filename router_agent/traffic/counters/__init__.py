"""Counters of the device and of the tester, read before and after a trial, and the drop classes in them."""
