"""Against the real kernel and the real daemons."""
