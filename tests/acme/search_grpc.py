import purerpc
import acme.search_pb2 as acme_dot_search__pb2


class SearchServicer(purerpc.Servicer):
    async def find(self, input_message):
        raise NotImplementedError()

    async def list(self, input_message):
        raise NotImplementedError()

    async def collect(self, input_messages):
        raise NotImplementedError()

    async def talk(self, input_messages):
        raise NotImplementedError()

    @property
    def service(self) -> purerpc.Service:
        service_obj = purerpc.Service(
            "acme.Search"
        )
        service_obj.add_method(
            "find",
            self.find,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                acme_dot_search__pb2.Query,
                acme_dot_search__pb2.Found,
            )
        )
        service_obj.add_method(
            "list",
            self.list,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                acme_dot_search__pb2.Query,
                acme_dot_search__pb2.Found,
            )
        )
        service_obj.add_method(
            "collect",
            self.collect,
            purerpc.RPCSignature(
                purerpc.Cardinality.STREAM_UNARY,
                acme_dot_search__pb2.Query,
                acme_dot_search__pb2.Found,
            )
        )
        service_obj.add_method(
            "talk",
            self.talk,
            purerpc.RPCSignature(
                purerpc.Cardinality.STREAM_STREAM,
                acme_dot_search__pb2.Query,
                acme_dot_search__pb2.Found,
            )
        )
        return service_obj


class SearchStub:
    def __init__(self, channel):
        self._client = purerpc.Client(
            "acme.Search",
            channel
        )
        self.find = self._client.get_method_stub(
            "find",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                acme_dot_search__pb2.Query,
                acme_dot_search__pb2.Found,
            )
        )
        self.list = self._client.get_method_stub(
            "list",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                acme_dot_search__pb2.Query,
                acme_dot_search__pb2.Found,
            )
        )
        self.collect = self._client.get_method_stub(
            "collect",
            purerpc.RPCSignature(
                purerpc.Cardinality.STREAM_UNARY,
                acme_dot_search__pb2.Query,
                acme_dot_search__pb2.Found,
            )
        )
        self.talk = self._client.get_method_stub(
            "talk",
            purerpc.RPCSignature(
                purerpc.Cardinality.STREAM_STREAM,
                acme_dot_search__pb2.Query,
                acme_dot_search__pb2.Found,
            )
        )