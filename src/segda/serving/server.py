"""Runs the page on a port of this machine."""

from __future__ import annotations

import ipaddress
import logging
import socket
from pathlib import Path

import uvicorn

from segda.errors import RecipeError
from segda.ground.choices import DeviceName, PrecisionName, Weights
from segda.ground.speaking import echo
from segda.serving.app import app_of
from segda.serving.viewer import viewers_of

log = logging.getLogger(__name__)


def serve_runs(
    places: list[Path],
    host: str,
    port: int,
    most_mb: float,
    weights: Weights,
    device: DeviceName,
    precision: PrecisionName,
) -> None:
    """`segda serve`, see commands/serve.py. Returns when it is interrupted."""
    if most_mb <= 0:
        raise RecipeError(f"--most-mb {most_mb:g}: give a number above 0")
    with listening(host, port) as heard:  # first: a port that is taken is said before networks are read
        address, own = heard.getsockname()[0], heard.getsockname()[1]
        viewers = viewers_of(places, weights, device, precision)
        alone = ipaddress.ip_address(address).is_loopback
        if not alone:
            log.warning(f"whoever reaches {address} can use this page; --host 127.0.0.1 keeps it on this machine")
        names = ["localhost", "127.0.0.1", "[::1]", host] if alone else ["*"]
        app = app_of(viewers, round(most_mb * 1e6), names)
        shown = f"[{address}]" if ":" in address else address
        echo(f"{' and '.join(viewer.name for viewer in viewers)}: http://{shown}:{own} (Ctrl-C ends it)")
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[heard])


def listening(host: str, port: int) -> socket.socket:
    """RecipeError for a host that is not this machine's, or a port that is taken or not to be had."""
    if not 0 <= port < 1 << 16:
        raise RecipeError(f"--port {port}: give a number from 0 (any that is free) to 65535")
    try:
        (kind, _, _, _, where), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        heard = socket.socket(kind, socket.SOCK_STREAM)
        try:
            heard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            heard.bind(where)
            heard.listen(128)
        except OSError:
            heard.close()
            raise
    except OSError as error:
        raise RecipeError(
            f"--host {host} --port {port}: cannot be listened on ({error.strerror}); choose another --port, 0 for any "
            "that is free"
        ) from None
    return heard
