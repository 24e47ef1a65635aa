"""The gateway as an ASGI application: its routes, and the registry that lives as long as it does.

Rules:
* The registry is opened in the lifespan, so whatever serves the application closes it, when the last request has ended.
* `/healthz` is about this process alone: it is never a reason to restart a gateway that its servers are away.
  `/readyz` is about what it is for: it answers 200 only while each hash is served.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from facts import RETRY_AFTER, Facts
from viewreg import Feature, open_registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from viewreg import Locator, Registry


def create_app(locator: Locator, limit: float) -> Starlette:
    """Make the application. `limit` is how many seconds a request may take at most."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Registry]]:
        async with open_registry(locator) as registry:
            yield {"registry": registry}

    routes = [
        Route("/facts", Facts(limit), methods=["GET"]),
        Route("/readyz", readyz),
        Route("/healthz", healthz),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


async def readyz(request: Request) -> JSONResponse:
    """Tell whether every fact can be found, or where the gaps are."""
    registry: Registry = request.state.registry
    coverage = registry.snapshot.coverage(Feature.HASH_SP)
    if coverage.complete:
        return JSONResponse({"ready": True, "replicas": coverage.min_replicas})
    return JSONResponse({"ready": False, "gaps": [str(gap) for gap in coverage.gaps]}, 503, RETRY_AFTER)


async def healthz(_request: Request) -> JSONResponse:
    """Tell that this process runs."""
    return JSONResponse({"healthy": True})
