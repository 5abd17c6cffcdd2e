"""What is around the virtual POP host: namespaces with one tap each, at whose other end is a NIC.

A tap is made while the calling thread is inside its namespace, and handed to QEMU as a file descriptor: no
data interface ever appears in the namespace of the machine that runs the lab, and QEMU itself stays there,
where ssh and the package registries are. Taps persist, so a power cycle of the host is to its neighbours what
a real one is: the carrier goes, addresses and daemons stay.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path

from router_agent.lab.commands import NETNS_DIRECTORY, ip_batch
from router_agent.lab.errors import LabError
from router_agent.lab.plan import Port
from router_agent.lab.processes import end_processes
from router_agent.lab.topology import QUIET, RUNTIME, set_sysctls
from router_agent.lab.vm.plan import PORTS
from router_agent.model import Family
from router_agent.namespaces import inside as thread_inside

_TUN = Path("/dev/net/tun")
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000


class Network:
    """Namespaces and taps of one virtual POP host.

    Args:
        name: of the lab; namespaces and directories are called after it.

    Attributes:
        directory: sockets, configurations and logs of what runs around the host. Short, because socket paths
            are limited.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = RUNTIME / name

    def namespace(self, port: Port) -> str:
        """Return the namespace at the other end of a NIC."""
        return f"{self.name}-{port.far_namespace}"

    @property
    def present(self) -> bool:
        """Whether anything of it is there."""
        return self.directory.exists() or any(self._present())

    def build(self) -> None:
        """Make namespaces, taps and addresses; what was left of a network of this name is removed first.

        Raises:
            LabError: not root, no /dev/net/tun, or the kernel refused something.
        """
        if os.geteuid() != 0:
            raise LabError("found an ordinary user, expected root: namespaces and taps need it")
        self.remove()
        self.directory.mkdir(parents=True, mode=0o755)
        ip_batch(f"netns add {self.namespace(port)}" for port in PORTS)
        for port in PORTS:
            namespace = self.namespace(port)
            set_sysctls(namespace, *QUIET)
            os.close(self.open_tap(port))
            addresses = [f"address add {port.far_address(family)} dev {port.far_name}" for family in Family]
            ip_batch(
                [
                    "link set dev lo up",
                    f"link set dev {port.far_name} address {port.far_mac} up",
                    *addresses,
                ],
                namespace=namespace,
            )

    def open_tap(self, port: Port) -> int:
        """Return an open descriptor of the tap at a NIC's other end; the tap is made when there is none.

        While it is open the tap has a carrier. Packets are whole: no offloads are agreed upon.

        Raises:
            LabError: the kernel refuses; one tap takes one descriptor.
        """
        namespace = self.namespace(port)
        with thread_inside(namespace):
            try:
                descriptor = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                raise LabError(f"{_TUN}: {error.strerror}; load the module tun") from error
            request = struct.pack("16sH22x", port.far_name.encode(), _IFF_TAP | _IFF_NO_PI)
            try:
                fcntl.ioctl(descriptor, _TUNSETIFF, request)
                fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
            except OSError as error:
                os.close(descriptor)
                raise LabError(f"tap {port.far_name} in namespace {namespace}: {error.strerror}") from error
        return descriptor

    def remove(self) -> None:
        """Remove namespaces with what runs in them, and the directory."""
        present = list(self._present())
        for namespace in present:
            end_processes(namespace)
        ip_batch(f"netns del {namespace}" for namespace in present)
        if self.directory.exists():
            shutil.rmtree(self.directory)

    def _present(self) -> Iterable[str]:
        names = (self.namespace(port) for port in PORTS)
        return (name for name in names if (NETNS_DIRECTORY / name).exists())
