"""Types for the stubs and servicers of viewreg/rpc/views.proto. Generated, do not edit."""

from collections.abc import AsyncIterator

import purerpc  # type: ignore[import-untyped, unused-ignore]
import viewreg.rpc.views_pb2 as _viewreg_rpc_views_pb2
from viewreg import Channel, UnaryStream, UnaryUnary

class DiagnosticsServicer(purerpc.Servicer):  # type: ignore[misc, unused-ignore]
    """What the server is and how it is doing. Every view server has this service."""
    async def stats(self, input_message: _viewreg_rpc_views_pb2.StatsRequest, /) -> _viewreg_rpc_views_pb2.StatsResult:
        """Tells what the server serves and how far it has come. Registries probe with it."""
    async def profile(self, input_message: _viewreg_rpc_views_pb2.ProfileRequest, /) -> _viewreg_rpc_views_pb2.ProfileResult:
        """Records a CPU profile into a file on the server's side."""
    async def setLogLevel(self, input_message: _viewreg_rpc_views_pb2.LogLevelRequest, /) -> _viewreg_rpc_views_pb2.LogLevelResult:
        """Changes how much the server logs, until it restarts."""
    async def updateStats(self, input_message: _viewreg_rpc_views_pb2.UpdateStatsRequest, /) -> _viewreg_rpc_views_pb2.UpdateStatsResult:
        """Makes the server count its facts anew, for the numbers that `stats` reports."""
    @property
    def service(self) -> purerpc.Service: ...

class DiagnosticsStub:
    """What the server is and how it is doing. Every view server has this service."""
    stats: UnaryUnary[_viewreg_rpc_views_pb2.StatsRequest, _viewreg_rpc_views_pb2.StatsResult]
    """Tells what the server serves and how far it has come. Registries probe with it."""
    profile: UnaryUnary[_viewreg_rpc_views_pb2.ProfileRequest, _viewreg_rpc_views_pb2.ProfileResult]
    """Records a CPU profile into a file on the server's side."""
    setLogLevel: UnaryUnary[_viewreg_rpc_views_pb2.LogLevelRequest, _viewreg_rpc_views_pb2.LogLevelResult]
    """Changes how much the server logs, until it restarts."""
    updateStats: UnaryUnary[_viewreg_rpc_views_pb2.UpdateStatsRequest, _viewreg_rpc_views_pb2.UpdateStatsResult]
    """Makes the server count its facts anew, for the numbers that `stats` reports."""
    def __init__(self, channel: Channel) -> None: ...

class CarouselServicer(purerpc.Servicer):  # type: ignore[misc, unused-ignore]
    """Hands out all facts of a server, so that a new server can fill itself from an old one instead of from the log."""
    async def logStatus(self, input_message: _viewreg_rpc_views_pb2.LogStatusRequest, /) -> _viewreg_rpc_views_pb2.LogStatusResult:
        """Tells which part of the log the server has applied, and so what a ride would deliver."""
    def ride(self, input_message: _viewreg_rpc_views_pb2.CarouselRequest, /) -> AsyncIterator[_viewreg_rpc_views_pb2.CarouselResult]:
        """Streams the facts of a hash partition, beginning wherever the carousel stands; ends after one full turn."""
    @property
    def service(self) -> purerpc.Service: ...

class CarouselStub:
    """Hands out all facts of a server, so that a new server can fill itself from an old one instead of from the log."""
    logStatus: UnaryUnary[_viewreg_rpc_views_pb2.LogStatusRequest, _viewreg_rpc_views_pb2.LogStatusResult]
    """Tells which part of the log the server has applied, and so what a ride would deliver."""
    ride: UnaryStream[_viewreg_rpc_views_pb2.CarouselRequest, _viewreg_rpc_views_pb2.CarouselResult]
    """Streams the facts of a hash partition, beginning wherever the carousel stands; ends after one full turn."""
    def __init__(self, channel: Channel) -> None: ...

class ReadFactsPOServicer(purerpc.Servicer):  # type: ignore[misc, unused-ignore]
    """Lookups by predicate and object, on servers that are partitioned by the hash of both."""
    def lookupPO(self, input_message: _viewreg_rpc_views_pb2.LookupPORequest, /) -> AsyncIterator[_viewreg_rpc_views_pb2.LookupChunk]:
        """Finds the facts with exactly this predicate and object."""
    def lookupPOCmp(self, input_message: _viewreg_rpc_views_pb2.LookupPOCmpRequest, /) -> AsyncIterator[_viewreg_rpc_views_pb2.LookupChunk]:
        """Finds the facts with this predicate whose object compares as asked."""
    async def factStats(self, input_message: _viewreg_rpc_views_pb2.FactStatsRequest, /) -> _viewreg_rpc_views_pb2.FactStatsResult:
        """Counts facts, for planning queries."""
    @property
    def service(self) -> purerpc.Service: ...

class ReadFactsPOStub:
    """Lookups by predicate and object, on servers that are partitioned by the hash of both."""
    lookupPO: UnaryStream[_viewreg_rpc_views_pb2.LookupPORequest, _viewreg_rpc_views_pb2.LookupChunk]
    """Finds the facts with exactly this predicate and object."""
    lookupPOCmp: UnaryStream[_viewreg_rpc_views_pb2.LookupPOCmpRequest, _viewreg_rpc_views_pb2.LookupChunk]
    """Finds the facts with this predicate whose object compares as asked."""
    factStats: UnaryUnary[_viewreg_rpc_views_pb2.FactStatsRequest, _viewreg_rpc_views_pb2.FactStatsResult]
    """Counts facts, for planning queries."""
    def __init__(self, channel: Channel) -> None: ...

class ReadFactsSPServicer(purerpc.Servicer):  # type: ignore[misc, unused-ignore]
    """Lookups by subject, on servers that are partitioned by the hash of subject and predicate."""
    def lookupS(self, input_message: _viewreg_rpc_views_pb2.LookupSRequest, /) -> AsyncIterator[_viewreg_rpc_views_pb2.LookupChunk]:
        """Finds the facts about a subject."""
    def lookupSP(self, input_message: _viewreg_rpc_views_pb2.LookupSPRequest, /) -> AsyncIterator[_viewreg_rpc_views_pb2.LookupChunk]:
        """Finds the facts about a subject with this predicate."""
    def lookupSPO(self, input_message: _viewreg_rpc_views_pb2.LookupSPORequest, /) -> AsyncIterator[_viewreg_rpc_views_pb2.LookupChunk]:
        """Finds the facts with exactly this subject, predicate and object."""
    async def factStats(self, input_message: _viewreg_rpc_views_pb2.FactStatsRequest, /) -> _viewreg_rpc_views_pb2.FactStatsResult:
        """Counts facts, for planning queries."""
    @property
    def service(self) -> purerpc.Service: ...

class ReadFactsSPStub:
    """Lookups by subject, on servers that are partitioned by the hash of subject and predicate."""
    lookupS: UnaryStream[_viewreg_rpc_views_pb2.LookupSRequest, _viewreg_rpc_views_pb2.LookupChunk]
    """Finds the facts about a subject."""
    lookupSP: UnaryStream[_viewreg_rpc_views_pb2.LookupSPRequest, _viewreg_rpc_views_pb2.LookupChunk]
    """Finds the facts about a subject with this predicate."""
    lookupSPO: UnaryStream[_viewreg_rpc_views_pb2.LookupSPORequest, _viewreg_rpc_views_pb2.LookupChunk]
    """Finds the facts with exactly this subject, predicate and object."""
    factStats: UnaryUnary[_viewreg_rpc_views_pb2.FactStatsRequest, _viewreg_rpc_views_pb2.FactStatsResult]
    """Counts facts, for planning queries."""
    def __init__(self, channel: Channel) -> None: ...
