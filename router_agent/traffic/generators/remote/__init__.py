"""A generator that runs on another host, whatever it is made of."""
