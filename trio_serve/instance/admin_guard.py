"""Who may speak to the admin API over TCP: the bearer of the token, or a program on this machine.

    token set     Authorization: Bearer <token>, compared in constant time      else 401
    no token      Host is a name of the loopback address                        else 403
    always        no Origin, or the API's own: a web page elsewhere is refused  else 403

The Host check is what stops a page whose name was re-bound to 127.0.0.1; the Origin check stops one that
just sends a request there.  On the Unix socket the file's mode says who may, and none of this is asked.

Knows nothing of what is behind it.
"""

import hmac
import ipaddress

import attrs

from trio_serve.proxy.http_exchange import Scope

TOKEN_CHARACTERS_MIN = 16


@attrs.frozen
class Refusal:
    """Why a request goes no further."""

    status: int
    text: str


@attrs.frozen
class Guard:
    """``token`` None: the address is the loopback's, and whoever is on this machine may."""

    token: str | None = attrs.field(default=None, repr=False)

    def refusal(self, scope: Scope) -> Refusal | None:
        """Why the request of ``scope`` is refused; None when it may pass."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        hosts = headers.get(b"host", [])
        if self.token is not None and not self._has_token(headers.get(b"authorization", [])):
            return Refusal(401, "this needs the admin token, as 'Authorization: Bearer <token>'")
        if self.token is None and not (len(hosts) == 1 and _is_loopback(hosts[0].decode("latin-1"))):
            return Refusal(403, "the Host of the request is not this machine; ask for 127.0.0.1 or localhost")
        own = [b"http://" + host for host in hosts]
        if any(origin not in own for origin in headers.get(b"origin", [])):
            return Refusal(403, "requests of web pages from elsewhere are refused")
        return None

    def _has_token(self, given: list[bytes]) -> bool:
        assert self.token is not None
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        same = hmac.compare_digest(token.strip(), self.token.encode())
        return same and scheme.lower() == b"bearer"


def _is_loopback(host: str) -> bool:
    name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not colon:
        name = host
    elif not port.isdigit():
        return False
    if name.lower() == "localhost":
        return True
    return is_loopback_address(name.removeprefix("[").removesuffix("]"))


def is_loopback_address(host: str) -> bool:
    """Whether ``host`` is written as an address of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
