"""What of an interface is mirrored; each may have another owner."""

from __future__ import annotations

from enum import StrEnum


class Aspect(StrEnum):
    """Something of Linux's interfaces that VPP's are given."""

    LINKS = "links"
    """Administrative state and MTU."""
    ADDRESSES = "addresses"
    """IPv4 and IPv6 addresses; router advertisements are Linux's, so VPP's are switched off."""
    VLANS = "vlans"
    """VLAN devices above a paired interface: sub-interfaces and their pairs."""
    VRFS = "vrfs"
    """The table of the VRF device an interface belongs to."""
    MPLS = "mpls"
    """Whether labelled packets are taken (net.mpls.conf.NAME.input), and routes of labels."""
