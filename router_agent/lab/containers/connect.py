"""ssh's ProxyCommand (with ProxyUseFdpass): connect, hand the connection to ssh, and end.

    nsenter --net=NAMESPACE python connect.py ADDRESS PORT

ssh waits for the connection's descriptor on our standard output, a socket (ssh_config(5)). Nothing stays
between ssh and the host. Nothing of the kit is imported: this runs for each connection.
"""

import socket
import sys

_SECONDS = 10.0


def main(address: str, port: str) -> None:
    """Connect and hand over."""
    with socket.create_connection((address, int(port)), _SECONDS) as connection:
        # ssh does not expect the flag that a time limit sets.
        connection.setblocking(True)
        with socket.socket(fileno=sys.stdout.fileno()) as parent:
            socket.send_fds(parent, [b"\0"], [connection.fileno()])
            parent.detach()


try:
    main(*sys.argv[1:])
except OSError as error:
    sys.exit(f"{' port '.join(sys.argv[1:])}: {error}")
