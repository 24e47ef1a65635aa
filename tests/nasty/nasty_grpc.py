import purerpc
import nasty.nasty_pb2 as nasty_dot_nasty__pb2


class NastyServicer(purerpc.Servicer):
    async def ask(self, input_message):
        raise NotImplementedError()

    async def listen(self, input_message):
        raise NotImplementedError()

    async def tell(self, input_messages):
        raise NotImplementedError()

    async def talk(self, input_messages):
        raise NotImplementedError()

    @property
    def service(self) -> purerpc.Service:
        service_obj = purerpc.Service(
            "nasty.Nasty"
        )
        service_obj.add_method(
            "ask",
            self.ask,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                nasty_dot_nasty__pb2.Order,
                nasty_dot_nasty__pb2.Answer,
            )
        )
        service_obj.add_method(
            "listen",
            self.listen,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                nasty_dot_nasty__pb2.Order,
                nasty_dot_nasty__pb2.Answer,
            )
        )
        service_obj.add_method(
            "tell",
            self.tell,
            purerpc.RPCSignature(
                purerpc.Cardinality.STREAM_UNARY,
                nasty_dot_nasty__pb2.Order,
                nasty_dot_nasty__pb2.Answer,
            )
        )
        service_obj.add_method(
            "talk",
            self.talk,
            purerpc.RPCSignature(
                purerpc.Cardinality.STREAM_STREAM,
                nasty_dot_nasty__pb2.Order,
                nasty_dot_nasty__pb2.Answer,
            )
        )
        return service_obj


class NastyStub:
    def __init__(self, channel):
        self._client = purerpc.Client(
            "nasty.Nasty",
            channel
        )
        self.ask = self._client.get_method_stub(
            "ask",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                nasty_dot_nasty__pb2.Order,
                nasty_dot_nasty__pb2.Answer,
            )
        )
        self.listen = self._client.get_method_stub(
            "listen",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                nasty_dot_nasty__pb2.Order,
                nasty_dot_nasty__pb2.Answer,
            )
        )
        self.tell = self._client.get_method_stub(
            "tell",
            purerpc.RPCSignature(
                purerpc.Cardinality.STREAM_UNARY,
                nasty_dot_nasty__pb2.Order,
                nasty_dot_nasty__pb2.Answer,
            )
        )
        self.talk = self._client.get_method_stub(
            "talk",
            purerpc.RPCSignature(
                purerpc.Cardinality.STREAM_STREAM,
                nasty_dot_nasty__pb2.Order,
                nasty_dot_nasty__pb2.Answer,
            )
        )


class AbsentServicer(purerpc.Servicer):
    async def ask(self, input_message):
        raise NotImplementedError()

    async def listen(self, input_message):
        raise NotImplementedError()

    async def tell(self, input_messages):
        raise NotImplementedError()

    async def talk(self, input_messages):
        raise NotImplementedError()

    @property
    def service(self) -> purerpc.Service:
        service_obj = purerpc.Service(
            "nasty.Absent"
        )
        service_obj.add_method(
            "ask",
            self.ask,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                nasty_dot_nasty__pb2.Order,
                nasty_dot_nasty__pb2.Answer,
            )
        )
        service_obj.add_method(
            "listen",
            self.listen,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                nasty_dot_nasty__pb2.Order,
                nasty_dot_nasty__pb2.Answer,
            )
        )
        service_obj.add_method(
            "tell",
            self.tell,
            purerpc.RPCSignature(
                purerpc.Cardinality.STREAM_UNARY,
                nasty_dot_nasty__pb2.Order,
                nasty_dot_nasty__pb2.Answer,
            )
        )
        service_obj.add_method(
            "talk",
            self.talk,
            purerpc.RPCSignature(
                purerpc.Cardinality.STREAM_STREAM,
                nasty_dot_nasty__pb2.Order,
                nasty_dot_nasty__pb2.Answer,
            )
        )
        return service_obj


class AbsentStub:
    def __init__(self, channel):
        self._client = purerpc.Client(
            "nasty.Absent",
            channel
        )
        self.ask = self._client.get_method_stub(
            "ask",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                nasty_dot_nasty__pb2.Order,
                nasty_dot_nasty__pb2.Answer,
            )
        )
        self.listen = self._client.get_method_stub(
            "listen",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                nasty_dot_nasty__pb2.Order,
                nasty_dot_nasty__pb2.Answer,
            )
        )
        self.tell = self._client.get_method_stub(
            "tell",
            purerpc.RPCSignature(
                purerpc.Cardinality.STREAM_UNARY,
                nasty_dot_nasty__pb2.Order,
                nasty_dot_nasty__pb2.Answer,
            )
        )
        self.talk = self._client.get_method_stub(
            "talk",
            purerpc.RPCSignature(
                purerpc.Cardinality.STREAM_STREAM,
                nasty_dot_nasty__pb2.Order,
                nasty_dot_nasty__pb2.Answer,
            )
        )