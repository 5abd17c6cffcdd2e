"""A generator of the operating system's own sockets: it follows every packet."""
