"""Sockets that reach this machine only: for the tests and for the kernels that run notebooks."""

from __future__ import annotations

import socket

LOCAL = {"localhost", "127.0.0.1", "::1", "0.0.0.0", "", None}


class NetworkBlocked(RuntimeError):
    """Something tried to leave this machine."""


def block(patch=setattr) -> None:
    """From now on nothing connects elsewhere and no name is looked up; `patch` sets the attribute.

    Loopback and Unix sockets stay, by which a kernel speaks with its notebook.
    """
    for name in ("connect", "connect_ex", "sendto"):
        patch(socket.socket, name, _guarded(getattr(socket.socket, name)))
    patch(socket, "getaddrinfo", _local_names_only(socket.getaddrinfo))


def _guarded(method):
    def guarded(self, *given):
        address = given[-1]
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL:
            raise NetworkBlocked(f"a test tried to connect to {address[0]!r}; tests run offline")
        return method(self, *given)

    return guarded


def _local_names_only(function):
    def getaddrinfo(host, *args, **kwargs):
        if host not in LOCAL:
            raise NetworkBlocked(f"a test tried to look up {host!r}; tests run offline")
        return function(host, *args, **kwargs)

    return getaddrinfo
