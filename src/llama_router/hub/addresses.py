"""Which addresses are asked: the hub's, and those of its content servers."""

import ipaddress
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from llama_router.hub.errors import HubError

DEFAULT_ENDPOINT = "https://huggingface.co"
# Where huggingface.co keeps its files, and mirrors of it too.
_CONTENT_HOSTS = ("huggingface.co", "hf.co")
_PORTS = {"http": 80, "https": 443}
_URL_MAX_CHARS = 16 * 1024
# Not routed anywhere (RFC 2544): local proxies give names such addresses and mean the real ones.
_PROXIES_OWN = ipaddress.ip_network("198.18.0.0/15")

Origin = tuple[str, str, int]


class Addresses:
    """Decides which URL may be asked. ``endpoint`` is the operator's word and is believed.

    ``allowed_hosts``: further hosts that it may redirect to, each with all below it. Raises
    HubError if the endpoint is no URL.
    """

    def __init__(self, endpoint: str, allowed_hosts: Iterable[str] = ()) -> None:
        self.endpoint = (endpoint or DEFAULT_ENDPOINT).strip().rstrip("/")
        try:
            parts, origin = _parsed(self.endpoint)
        except HubError as error:
            raise _no_endpoint(error.message) from None
        if parts.username is not None or parts.password is not None:
            # It would stand in messages.
            raise _no_endpoint("it has a password in it; set HF_TOKEN (or hub.token)")
        if parts.query or parts.fragment:
            raise _no_endpoint("it has a query")
        self.origin = origin
        self._hosts = tuple(
            host.lower().strip(".") for host in (origin[1], *_CONTENT_HOSTS, *allowed_hosts)
        )

    def is_hub(self, url: str) -> bool:
        """Whether this is the endpoint itself, which may see the token."""
        return _parsed(url)[1] == self.origin

    def check(self, url: str) -> None:
        """Raise HubError unless this URL may be asked."""
        parts, (scheme, host, _port) = _parsed(url)
        if scheme != "https" and self.origin[0] == "https":
            raise _forbidden(url, "it is not encrypted")
        if parts.username is not None or parts.password is not None:
            raise _forbidden(url, "it has a user's name in it")
        if not any(host == known or host.endswith("." + known) for known in self._hosts):
            raise _forbidden(
                url, f"{host} is not the hub's; if you trust it, add it to hub.allowed_hosts"
            )
        if host != self.origin[1] and is_private(host):
            raise _forbidden(url, "it is an address of this machine's network")

    def may_be_private(self, host: str) -> bool:
        """Whether a host may have an address within this machine's network."""
        return host.lower().strip(".") == self.origin[1]


def is_private(address: str) -> bool:
    """Whether this is an IP address that is not one of the public internet."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None) or found
    if mapped.version == 4 and mapped in _PROXIES_OWN:  # noqa: PLR2004 - IPv4
        return False
    return not mapped.is_global or mapped.is_multicast


def _parsed(url: str) -> tuple[SplitResult, Origin]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise HubError("bad_request", f"{url[:200]!r} is no URL") from None
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in _PORTS or not host or not is_plain or len(url) > _URL_MAX_CHARS:
        raise HubError("bad_request", f"{url[:200]!r} is no URL of http or https")
    return parts, (parts.scheme, host.lower().rstrip("."), port or _PORTS[parts.scheme])


def _no_endpoint(reason: str) -> HubError:
    message = f"the address of the hub (hub.endpoint, or HF_ENDPOINT): {reason}"
    return HubError("bad_request", message)


def _forbidden(url: str, reason: str) -> HubError:
    # Without its query: signed addresses are secrets for as long as they are valid.
    shown = url.partition("?")[0][:200]
    return HubError("forbidden_address", f"the hub sends us to {shown}, and {reason}")
