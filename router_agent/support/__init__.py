"""The support bundle: what somebody far away needs in order to understand a router, without its secrets."""
