import purerpc
import viewreg.rpc.views_pb2 as viewreg_dot_rpc_dot_views__pb2
import google.protobuf.duration_pb2 as google_dot_protobuf_dot_duration__pb2


class DiagnosticsServicer(purerpc.Servicer):
    async def stats(self, input_message):
        raise NotImplementedError()

    async def profile(self, input_message):
        raise NotImplementedError()

    async def setLogLevel(self, input_message):
        raise NotImplementedError()

    async def updateStats(self, input_message):
        raise NotImplementedError()

    @property
    def service(self) -> purerpc.Service:
        service_obj = purerpc.Service(
            "rpc.Diagnostics"
        )
        service_obj.add_method(
            "stats",
            self.stats,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                viewreg_dot_rpc_dot_views__pb2.StatsRequest,
                viewreg_dot_rpc_dot_views__pb2.StatsResult,
            )
        )
        service_obj.add_method(
            "profile",
            self.profile,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                viewreg_dot_rpc_dot_views__pb2.ProfileRequest,
                viewreg_dot_rpc_dot_views__pb2.ProfileResult,
            )
        )
        service_obj.add_method(
            "setLogLevel",
            self.setLogLevel,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                viewreg_dot_rpc_dot_views__pb2.LogLevelRequest,
                viewreg_dot_rpc_dot_views__pb2.LogLevelResult,
            )
        )
        service_obj.add_method(
            "updateStats",
            self.updateStats,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                viewreg_dot_rpc_dot_views__pb2.UpdateStatsRequest,
                viewreg_dot_rpc_dot_views__pb2.UpdateStatsResult,
            )
        )
        return service_obj


class DiagnosticsStub:
    def __init__(self, channel):
        self._client = purerpc.Client(
            "rpc.Diagnostics",
            channel
        )
        self.stats = self._client.get_method_stub(
            "stats",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                viewreg_dot_rpc_dot_views__pb2.StatsRequest,
                viewreg_dot_rpc_dot_views__pb2.StatsResult,
            )
        )
        self.profile = self._client.get_method_stub(
            "profile",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                viewreg_dot_rpc_dot_views__pb2.ProfileRequest,
                viewreg_dot_rpc_dot_views__pb2.ProfileResult,
            )
        )
        self.setLogLevel = self._client.get_method_stub(
            "setLogLevel",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                viewreg_dot_rpc_dot_views__pb2.LogLevelRequest,
                viewreg_dot_rpc_dot_views__pb2.LogLevelResult,
            )
        )
        self.updateStats = self._client.get_method_stub(
            "updateStats",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                viewreg_dot_rpc_dot_views__pb2.UpdateStatsRequest,
                viewreg_dot_rpc_dot_views__pb2.UpdateStatsResult,
            )
        )


class CarouselServicer(purerpc.Servicer):
    async def logStatus(self, input_message):
        raise NotImplementedError()

    async def ride(self, input_message):
        raise NotImplementedError()

    @property
    def service(self) -> purerpc.Service:
        service_obj = purerpc.Service(
            "rpc.Carousel"
        )
        service_obj.add_method(
            "logStatus",
            self.logStatus,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                viewreg_dot_rpc_dot_views__pb2.LogStatusRequest,
                viewreg_dot_rpc_dot_views__pb2.LogStatusResult,
            )
        )
        service_obj.add_method(
            "ride",
            self.ride,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                viewreg_dot_rpc_dot_views__pb2.CarouselRequest,
                viewreg_dot_rpc_dot_views__pb2.CarouselResult,
            )
        )
        return service_obj


class CarouselStub:
    def __init__(self, channel):
        self._client = purerpc.Client(
            "rpc.Carousel",
            channel
        )
        self.logStatus = self._client.get_method_stub(
            "logStatus",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                viewreg_dot_rpc_dot_views__pb2.LogStatusRequest,
                viewreg_dot_rpc_dot_views__pb2.LogStatusResult,
            )
        )
        self.ride = self._client.get_method_stub(
            "ride",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                viewreg_dot_rpc_dot_views__pb2.CarouselRequest,
                viewreg_dot_rpc_dot_views__pb2.CarouselResult,
            )
        )


class ReadFactsPOServicer(purerpc.Servicer):
    async def lookupPO(self, input_message):
        raise NotImplementedError()

    async def lookupPOCmp(self, input_message):
        raise NotImplementedError()

    async def factStats(self, input_message):
        raise NotImplementedError()

    @property
    def service(self) -> purerpc.Service:
        service_obj = purerpc.Service(
            "rpc.ReadFactsPO"
        )
        service_obj.add_method(
            "lookupPO",
            self.lookupPO,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                viewreg_dot_rpc_dot_views__pb2.LookupPORequest,
                viewreg_dot_rpc_dot_views__pb2.LookupChunk,
            )
        )
        service_obj.add_method(
            "lookupPOCmp",
            self.lookupPOCmp,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                viewreg_dot_rpc_dot_views__pb2.LookupPOCmpRequest,
                viewreg_dot_rpc_dot_views__pb2.LookupChunk,
            )
        )
        service_obj.add_method(
            "factStats",
            self.factStats,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                viewreg_dot_rpc_dot_views__pb2.FactStatsRequest,
                viewreg_dot_rpc_dot_views__pb2.FactStatsResult,
            )
        )
        return service_obj


class ReadFactsPOStub:
    def __init__(self, channel):
        self._client = purerpc.Client(
            "rpc.ReadFactsPO",
            channel
        )
        self.lookupPO = self._client.get_method_stub(
            "lookupPO",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                viewreg_dot_rpc_dot_views__pb2.LookupPORequest,
                viewreg_dot_rpc_dot_views__pb2.LookupChunk,
            )
        )
        self.lookupPOCmp = self._client.get_method_stub(
            "lookupPOCmp",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                viewreg_dot_rpc_dot_views__pb2.LookupPOCmpRequest,
                viewreg_dot_rpc_dot_views__pb2.LookupChunk,
            )
        )
        self.factStats = self._client.get_method_stub(
            "factStats",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                viewreg_dot_rpc_dot_views__pb2.FactStatsRequest,
                viewreg_dot_rpc_dot_views__pb2.FactStatsResult,
            )
        )


class ReadFactsSPServicer(purerpc.Servicer):
    async def lookupS(self, input_message):
        raise NotImplementedError()

    async def lookupSP(self, input_message):
        raise NotImplementedError()

    async def lookupSPO(self, input_message):
        raise NotImplementedError()

    async def factStats(self, input_message):
        raise NotImplementedError()

    @property
    def service(self) -> purerpc.Service:
        service_obj = purerpc.Service(
            "rpc.ReadFactsSP"
        )
        service_obj.add_method(
            "lookupS",
            self.lookupS,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                viewreg_dot_rpc_dot_views__pb2.LookupSRequest,
                viewreg_dot_rpc_dot_views__pb2.LookupChunk,
            )
        )
        service_obj.add_method(
            "lookupSP",
            self.lookupSP,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                viewreg_dot_rpc_dot_views__pb2.LookupSPRequest,
                viewreg_dot_rpc_dot_views__pb2.LookupChunk,
            )
        )
        service_obj.add_method(
            "lookupSPO",
            self.lookupSPO,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                viewreg_dot_rpc_dot_views__pb2.LookupSPORequest,
                viewreg_dot_rpc_dot_views__pb2.LookupChunk,
            )
        )
        service_obj.add_method(
            "factStats",
            self.factStats,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                viewreg_dot_rpc_dot_views__pb2.FactStatsRequest,
                viewreg_dot_rpc_dot_views__pb2.FactStatsResult,
            )
        )
        return service_obj


class ReadFactsSPStub:
    def __init__(self, channel):
        self._client = purerpc.Client(
            "rpc.ReadFactsSP",
            channel
        )
        self.lookupS = self._client.get_method_stub(
            "lookupS",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                viewreg_dot_rpc_dot_views__pb2.LookupSRequest,
                viewreg_dot_rpc_dot_views__pb2.LookupChunk,
            )
        )
        self.lookupSP = self._client.get_method_stub(
            "lookupSP",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                viewreg_dot_rpc_dot_views__pb2.LookupSPRequest,
                viewreg_dot_rpc_dot_views__pb2.LookupChunk,
            )
        )
        self.lookupSPO = self._client.get_method_stub(
            "lookupSPO",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                viewreg_dot_rpc_dot_views__pb2.LookupSPORequest,
                viewreg_dot_rpc_dot_views__pb2.LookupChunk,
            )
        )
        self.factStats = self._client.get_method_stub(
            "factStats",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                viewreg_dot_rpc_dot_views__pb2.FactStatsRequest,
                viewreg_dot_rpc_dot_views__pb2.FactStatsResult,
            )
        )