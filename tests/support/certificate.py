"""A certificate for ``localhost`` (not 127.0.0.1) that only these tests trust, for a hundred years.

Made by: openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500
-subj /CN=localhost -addext subjectAltName=DNS:localhost
"""

import ssl
from pathlib import Path

_FILE = Path(__file__).with_name("localhost.pem")


def server_context() -> ssl.SSLContext:
    """Return what a server with that certificate needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_FILE)
    return context


def trusting_context() -> ssl.SSLContext:
    """Return what a client needs that trusts it."""
    return ssl.create_default_context(cafile=str(_FILE))
