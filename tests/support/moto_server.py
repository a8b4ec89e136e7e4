"""A moto server for S3, run as `python -m tests.support.moto_server [careless]`."""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from moto.s3.responses import S3Response
from werkzeug.serving import make_server

from tests.support.servers import HOST, announce

Application = Callable[..., Any]


def make_requests_atomic() -> None:
    """Put one lock around the handling of each request, which starts when its body has been read.

    Without it two writers can both pass the check of `If-None-Match`, and a GET or LIST of a key that is being
    overwritten answers 500.
    """
    lock = threading.RLock()
    for name in ("_key_response", "_bucket_response"):
        setattr(S3Response, name, _holding(lock, getattr(S3Response, name)))


def _holding(lock: threading.RLock, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def locked(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return method(*args, **kwargs)

    return locked


def ignore_conditions(application: Application) -> Application:
    """Make a store that does not know conditional writes: it drops `If-None-Match` from them."""

    def careless(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] in ("PUT", "POST"):
            environ.pop("HTTP_IF_NONE_MATCH", None)
        return application(environ, start_response)

    return careless


def main() -> None:
    """Serve until the parent goes away."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    make_requests_atomic()
    application: Application = create_backend_app("s3")  # moto's dispatcher stats 100 folders for each request
    if "careless" in sys.argv[1:]:
        application = ignore_conditions(application)
    server = make_server(HOST, 0, application, threaded=True, request_handler=MotoRequestHandler)
    announce(server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    main()
