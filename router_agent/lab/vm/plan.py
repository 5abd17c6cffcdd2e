"""What the virtual POP host is made of, and who has which address.

    upstream ── tap uplink ┐                     ┌ virtio ── ssh from 127.0.0.1 (QEMU's user network)
    (BIRD, FRR's peer)     │ e1000e    vmxnet3   │
                           └──── pop1-vm ────────┤
                                                 └ tap lan ── tester (BIRD, ExaBGP's peer)

PCI addresses are fixed, so that an inventory can name them. Two further NICs sit behind one PCIe-to-PCI
bridge and therefore share an IOMMU group: nobody may take one of them alone. Where QEMU has igb, there is one
for SR-IOV.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from router_agent.lab.plan import Port

HOST = "pop1-vm"
"""Name of the virtual POP host in the inventory, and its host name."""

UPLINK = Port("uplink", 1, "upstream", "uplink")
LAN = Port("lan", 2, "tester", "lan")
PORTS = (UPLINK, LAN)

RECEIVING_PORTS = (LAN, UPLINK)
"""Where announced routes lead, in the order of `announcement.expected_port`: one in eight goes back."""

DEVICES = {UPLINK.name: "0000:00:05.0", LAN.name: "0000:00:06.0"}
"""PCI addresses of the data NICs."""

MANAGEMENT_DEVICE = "0000:00:02.0"
MANAGEMENT_INTERFACE = "enp0s2"

SHARED_GROUP_DEVICES = ("0000:01:01.0", "0000:01:02.0")
"""NICs behind one bridge, the first that the firmware meets: bus 1."""

MISSING_DEVICE = "0000:00:1d.0"
"""No such device is in the machine."""

SRIOV_DEVICE = "0000:02:00.0"
"""An igb behind a root port, where QEMU has it (8.0 and later)."""


@dataclass(frozen=True, slots=True)
class Management:
    """QEMU's user network, by which ssh comes in and the package registries are reached.

    It lies outside the address space that routers refuse to learn, and is larger than a /24: so a BGP
    neighbour can announce a prefix that is more specific than this network and covers the operator's address,
    which must not cut the operator off. Nothing of it leaves the machine that runs the lab.

    Attributes:
        network: the network.
        client: where ssh connections come from; the gateway as well.
        resolver: of names.
        host: the host's address.
        covering: what a neighbour announces to cover the client's address.
    """

    network: IPv4Network
    client: IPv4Address
    resolver: IPv4Address
    host: IPv4Interface
    covering: IPv4Network


MANAGEMENT = Management(
    network=IPv4Network("198.20.0.0/22"),
    client=IPv4Address("198.20.0.2"),
    resolver=IPv4Address("198.20.0.3"),
    host=IPv4Interface("198.20.0.15/22"),
    covering=IPv4Network("198.20.0.0/24"),
)

MEMORY_MIB = 3072
CPUS = 2
