"""A socket filter that keeps route events of other protocols from ever being queued.

Events of a full table cost some 770 bytes of kernel memory each while they wait. The kernel runs this program
(linux/filter.h, classic BPF) before it queues one. What replaces a route passes whatever its protocol, for it
may have replaced one of those that are followed.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Collection

from router_agent.netlink import constants as c

MOST = 200
"""Protocols a filter can name: a jump goes over 255 instructions at most."""

_INSTRUCTION = struct.Struct("=HBBI")
_PROGRAM = struct.Struct("@HP")
_LOAD_HALF, _LOAD_BYTE = 0x28, 0x30  # BPF_LD | BPF_ABS | BPF_H, BPF_B
_JUMP_EQUAL, _JUMP_SET, _RETURN = 0x15, 0x45, 0x06
_WHOLE = 0xFFFFFFFF
_TYPE_AT, _FLAGS_HIGH_AT, _PROTOCOL_AT = 4, 7, 21
"""Offsets of nlmsg_type, of the high byte of nlmsg_flags, and of rtm_protocol."""


def attach(sock: socket.socket, protocols: Collection[int]) -> None:
    """Let a routing socket queue route events of these protocols only, and all other events.

    Raises:
        OSError: the kernel refuses the program.
    """
    code = program(protocols)
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(
        socket.SOL_SOCKET,
        c.SO_ATTACH_FILTER,
        _PROGRAM.pack(len(code) // _INSTRUCTION.size, ctypes.addressof(buffer)),
    )


def program(protocols: Collection[int]) -> bytes:
    """Return the filter; half words are loaded as network order, in which no netlink header is."""
    wanted = sorted(protocols)
    last = 6 + len(wanted)  # the instruction that drops; the one behind it keeps
    lines = [
        (_LOAD_HALF, 0, 0, _TYPE_AT),
        (_JUMP_EQUAL, 1, 0, socket.htons(c.RTM_NEWROUTE)),
        (_JUMP_EQUAL, 2, last + 1 - 3, socket.htons(c.RTM_DELROUTE)),
        (_LOAD_BYTE, 0, 0, _FLAGS_HIGH_AT),
        (_JUMP_SET, last + 1 - 5, 0, c.NLM_F_REPLACE >> 8),
        (_LOAD_BYTE, 0, 0, _PROTOCOL_AT),
        *((_JUMP_EQUAL, last + 1 - 7 - place, 0, number) for place, number in enumerate(wanted)),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, _WHOLE),
    ]
    return b"".join(_INSTRUCTION.pack(*line) for line in lines)
