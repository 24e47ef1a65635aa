"""`GET /facts`: one question to all that is served, answered line by line.

Rules:
* The status is sent with the first fact, or with the end if there is none: until then any failure has a status of its
  own. After that a failure can only be told in the body: its last line is then not the marker but an error.
* The marker, `{"end": true, "facts": n}`, comes only if all that was asked for is there. An answer without it is cut,
  whatever its status says.
* When the client leaves, or its time is over, the calls are cancelled, and so the servers are told.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

import trio
from attrs import field, frozen
from starlette.datastructures import QueryParams
from starlette.responses import Response

from query import BadQueryError, FactsQuery, parse
from viewreg import CallError, Feature, NotServedError, hash_sp, open_fan_out
from viewreg.rpc import LookupSRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from starlette.types import Receive, Scope, Send

    from viewreg import Answer, HashRange, Registry, View
    from viewreg.rpc import LookupChunk

_LINES: Final = "application/x-ndjson"
_HEADERS: Final = [(b"content-type", _LINES.encode())]
RETRY_AFTER: Final = {"Retry-After": "1"}  # seconds; a server that is back is healthy within 1.3


class Facts:
    """The endpoint: an ASGI application, because Starlette's responses listen for the client only while they are sent.

    Args:
        limit: seconds that a request may take at most; one that asks for less gets less.
    """

    def __init__(self, limit: float) -> None:
        self._limit: Final = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, unless its client leaves."""
        reply = Reply(scope, receive, send)
        try:
            query = parse(QueryParams(scope["query_string"]).multi_items(), self._limit)
        except BadQueryError as error:
            await reply.finish(Ending(400, {"error": str(error)}))
            return
        ending = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_left, receive, nursery.cancel_scope)
            ending = await _answer(reply, scope["state"]["registry"], query)
            nursery.cancel_scope.cancel()
        # Not before: as soon as it has sent the last of a response, hypercorn tells that the client has left; then it
        # goes on, in this task, to close the connection.
        if ending is not None:
            await reply.finish(ending)


async def _cancel_when_left(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _answer(reply: Reply, registry: Registry, query: FactsQuery) -> Ending:
    def facts_about(view: View, _part: HashRange) -> AsyncIterable[LookupChunk]:
        return view.hash_sp().lookupS(LookupSRequest(index=query.index, subjects=[query.subject]))

    try:
        with trio.fail_after(query.limit):
            async with open_fan_out(registry, Feature.HASH_SP, facts_about) as answers:
                async for answer in answers:
                    await reply.send_lines(facts_in(answer))
    except trio.TooSlowError:
        return Ending(504, {"error": f"no whole answer within {query.limit:g} s"})
    except NotServedError as error:
        return Ending(503, {"error": str(error), "gaps": [str(gap) for gap in error.gaps]}, RETRY_AFTER)
    except CallError as error:
        return Ending(502, {"error": str(error)})
    return Ending(200, {"end": True, "facts": reply.lines})


def facts_in(answer: Answer[LookupChunk]) -> list[dict[str, str]]:
    """The facts of an answer that no other view is asked for.

    Numbers are text, as in protobuf's JSON: they have 64 bits, of which many readers of JSON keep 53.
    """
    return [
        {
            "index": str(fact.index),
            "id": str(fact.id),
            "subject": str(fact.subject),
            "predicate": str(fact.predicate),
            "object": base64.b64encode(fact.object).decode(),
        }
        for fact in (found.fact for found in answer.message.facts)
        if hash_sp(fact.subject, fact.predicate) in answer.range
    ]


@frozen
class Ending:
    """How an answer ends: what its last line says, and its status if there was no line before."""

    status: int
    line: dict[str, Any]
    headers: dict[str, str] = field(factory=dict)


class Reply:
    """The response to one request. The status goes with the first lines, or with the ending."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.lines = 0  # that have been sent
        self._scope: Final = scope
        self._receive: Final = receive
        self._send: Final = send

    async def send_lines(self, lines: list[dict[str, str]]) -> None:
        """Send some lines, maybe none."""
        if lines:
            if not self.lines:
                await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            self.lines += len(lines)
            await self._send_body("".join(map(_line, lines)), more=True)

    async def finish(self, ending: Ending) -> None:
        """Send the last line."""
        if self.lines:
            await self._send_body(_line(ending.line), more=False)
        else:
            response = Response(_line(ending.line), ending.status, ending.headers, media_type=_LINES)
            await response(self._scope, self._receive, self._send)

    async def _send_body(self, text: str, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": text.encode(), "more_body": more})


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":")) + "\n"
