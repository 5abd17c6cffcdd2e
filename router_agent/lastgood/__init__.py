"""Keep the last good configuration of a router on the router, and go back to it without help from outside.

`pack.py` makes one file of these modules, which role commit_confirm puts on the host. They use Python's
standard library alone and nothing of the agent's environment: that is among the things a change replaces.

| module | what |
|---|---|
| `catalogue.py` | which files and services belong together |
| `entries.py` | one path as it is: a file, a link, or nothing |
| `copies.py` | copies of all of them, complete and checked, or not there |
| `armed.py` | the promise to go back, and the timer that keeps it |
| `links.py` | the kernel's links, addresses and routes, which no file of ours may describe |
| `restore.py` | one path as it was, also on a full disk |
| `taking.py`, `frr.py`, `ports.py` | files taken into use by what reads them |
| `rollback.py` | the order of it all, and what is done after an attempt that was cut short |
| `program.py` | the command line |
"""
