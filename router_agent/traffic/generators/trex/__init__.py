"""An installed TRex as a generator: a client of its stateless server."""
