"""Types for the stubs and servicers of acme/search.proto. Generated, do not edit."""

from collections.abc import AsyncIterator

import purerpc  # type: ignore[import-untyped, unused-ignore]
import acme.search_pb2 as _acme_search_pb2
from viewreg import Channel, StreamStream, StreamUnary, UnaryStream, UnaryUnary

class SearchServicer(purerpc.Servicer):  # type: ignore[misc, unused-ignore]
    """An ordinary service, for the tests of docs/any-service.md."""
    async def find(self, input_message: _acme_search_pb2.Query, /) -> _acme_search_pb2.Found: ...
    def list(self, input_message: _acme_search_pb2.Query, /) -> AsyncIterator[_acme_search_pb2.Found]: ...
    async def collect(self, input_messages: AsyncIterator[_acme_search_pb2.Query], /) -> _acme_search_pb2.Found: ...
    def talk(self, input_messages: AsyncIterator[_acme_search_pb2.Query], /) -> AsyncIterator[_acme_search_pb2.Found]: ...
    @property
    def service(self) -> purerpc.Service: ...

class SearchStub:
    """An ordinary service, for the tests of docs/any-service.md."""
    find: UnaryUnary[_acme_search_pb2.Query, _acme_search_pb2.Found]
    list: UnaryStream[_acme_search_pb2.Query, _acme_search_pb2.Found]
    collect: StreamUnary[_acme_search_pb2.Query, _acme_search_pb2.Found]
    talk: StreamStream[_acme_search_pb2.Query, _acme_search_pb2.Found]
    def __init__(self, channel: Channel) -> None: ...
