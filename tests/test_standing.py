"""`Config(metadata=...)`: what every call carries, how a function is asked for it, and that no text shows a value."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Mapping
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fleet import all_healthy, open_fleet, reason
from nasty.nasty_grpc import NastyStub
from nasty.nasty_pb2 import Order
from transport import orders, stream_stream, stream_unary, unary_stream, unary_unary
from viewreg import CancelledError, Config, InvalidTypeError, InvalidValueError, UnauthenticatedError
from viewreg.rpc import CarouselRequest, LogStatusRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from viewreg import Registry
    from viewreg.testing import PeerRequest

A = "a:1"
SECRET = "hunter2"
TOKEN = {"authorization": f"Bearer {SECRET}"}
ONE_ANSWER = {"/nasty.Nasty/tell": [b""]}  # others are echoed, and two requests would be two answers
PROBE = "/rpc.Diagnostics/stats"


async def by_hand(stub: NastyStub, order: Order) -> None:
    """Both directions by hand; the server answers when it has heard all."""
    async with await stub.talk() as talk:
        await talk.send_message(order)
        await talk.close()
        await talk.receive_message()
        assert await talk.receive_message() is None


KINDS = [unary_unary, unary_stream, stream_unary, stream_stream, by_hand]


def sent(request: PeerRequest, name: str) -> list[str]:
    """The values that a request has under this name."""
    return [value.decode() for key, value in request.headers if key.decode() == name]


async def ask(registry: Registry[Any], metadata: Any = None) -> None:
    """A call that is no probe."""
    await registry.snapshot.view(A).carousel().logStatus(LogStatusRequest(), metadata=metadata)


class Vault:
    """Gives a new token each time that it is asked; or does as it is told."""

    def __init__(self) -> None:
        self.asked = 0
        self.does: Callable[[], Awaitable[Any]] | None = None

    async def __call__(self) -> dict[str, str]:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self.does is not None:
            answer: dict[str, str] = await self.does()
            return answer
        return {"authorization": f"{SECRET} {self.asked}", "x-a": "vault"}


# -- the same for all --


@pytest.mark.parametrize(
    "metadata",
    [TOKEN, list(TOKEN.items()), iter(TOKEN.items()), Config(metadata=TOKEN).metadata],
    ids=["mapping", "pairs", "iterator", "of another config"],
)
async def test_every_call_and_probe(metadata: Any, autojump_clock: MockClock) -> None:
    """Calls of all kinds carry it, by views' stubs, by waiting ones and by purerpc's own; and so do probes."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(metadata=metadata)) as registry:
        fleet[A].view.replies = ONE_ANSWER
        view = (await registry.wait_until(all_healthy)).view(A)
        for stub in (view.stub(NastyStub), view.channel.waiting().stub(NastyStub)):
            for kind in KINDS:
                await kind(stub, Order(answers=1))
        await NastyStub(view.channel).ask(Order())
        requests = fleet[A].view.requests
        assert len(requests) == 2 + 2 * len(KINDS)
        assert requests[0].path == PROBE
        assert {tuple(sent(request, "authorization")) for request in requests} == {(f"Bearer {SECRET}",)}


async def test_a_calls_own_replaces(autojump_clock: MockClock) -> None:
    """What a call gives under a name takes the place of all that the registry has under it; the rest is added."""
    standing = [("x-a", "1"), ("x-b", "2"), ("x-a", "3")]
    for metadata in (standing, partial(give, standing)):
        async with open_fleet() as fleet, fleet.open(A, config=Config(metadata=metadata)) as registry:
            await registry.wait_until(all_healthy)
            await ask(registry, {"x-a": "own", "x-c": "own"})
            await ask(registry, [("x-b", "one"), ("x-b", "two")])
            await ask(registry)
            found = [[sent(request, name) for name in ("x-a", "x-b", "x-c")] for request in fleet[A].view.requests[1:]]
        assert found == [[["own"], ["2"], ["own"]], [["1", "3"], ["one", "two"], []], [["1", "3"], ["2"], []]]


async def give(metadata: Any) -> Any:
    """Give it."""
    await trio.lowlevel.checkpoint()
    return metadata


def test_a_mapping_is_copied() -> None:
    """What becomes of the mapping later does not matter."""
    metadata = {"x-a": "1"}
    config = Config(metadata=metadata)
    metadata["x-a"] = "2"
    assert config == Config(metadata={"x-a": "1"}) != Config(metadata=metadata)


BAD: list[tuple[Any, type[Exception], str]] = [
    ({"X-A": SECRET}, InvalidValueError, "metadata name 'X-A': expected lower-case letters"),
    ({"grpc-x": SECRET}, InvalidValueError, "metadata name 'grpc-x'"),
    ({5: SECRET}, InvalidTypeError, "metadata name 5: expected text"),
    ({"x-a": f"{SECRET}\n"}, InvalidValueError, "metadata 'x-a': expected printable ASCII"),
    ({"x-a": SECRET.encode()}, InvalidTypeError, "metadata 'x-a': expected text, not bytes"),
    ({"x-a-bin": SECRET}, InvalidTypeError, "metadata 'x-a-bin': expected bytes"),
    ([SECRET], InvalidTypeError, "metadata with an item of type str"),
    (5, InvalidTypeError, "metadata of type int: expected a mapping or"),
]


@pytest.mark.parametrize(("metadata", "kind", "text"), BAD, ids=[text for _, _, text in BAD])
def test_what_may_not_be_sent(metadata: Any, kind: type[Exception], text: str) -> None:
    """A config with metadata that may not be sent cannot be made; the message names the name, never the value."""
    with pytest.raises(kind, match=f"^{text}") as caught:
        Config(metadata=metadata)
    assert SECRET not in str(caught.value)


# -- asked for --


async def test_a_function_is_asked_each_time(autojump_clock: MockClock) -> None:
    """An async function is asked anew for each call and each probe."""
    async with open_fleet() as fleet, fleet.open(A, config=Config(metadata=Vault())) as registry:
        fleet[A].view.replies = ONE_ANSWER
        view = (await registry.wait_until(all_healthy)).view(A)
        for kind in KINDS:
            await kind(view.stub(NastyStub), Order(answers=1))
        tokens = [sent(request, "authorization") for request in fleet[A].view.requests]
        assert tokens == [[f"{SECRET} {number}"] for number in range(1, len(KINDS) + 2)]


async def fail() -> Any:
    """A vault that is closed."""
    raise LookupError("the vault is closed")


async def fail_in_a_group() -> Any:
    """A vault with tasks of its own."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)


@pytest.mark.parametrize("does", [fail, fail_in_a_group])
@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
async def test_a_function_that_fails(kind: Any, does: Any, autojump_clock: MockClock) -> None:
    """Calls of all kinds raise UnauthenticatedError from what the function raised, and the server sees nothing."""
    vault = Vault()
    async with open_fleet() as fleet, fleet.open(A, config=Config(metadata=vault)) as registry:
        view = (await registry.wait_until(all_healthy)).view(A)
        vault.does = does
        with pytest.raises(UnauthenticatedError) as caught:
            await kind(view.stub(NastyStub), Order(answers=1))
        assert caught.value.details == "the metadata function failed: LookupError: the vault is closed"
        assert caught.value.endpoint == view.endpoint
        assert isinstance(caught.value.__cause__, LookupError | ExceptionGroup)
        assert len(fleet[A].view.requests) == 1
        assert fleet[A].view.open_streams == 0


async def test_a_probe_without_metadata(autojump_clock: MockClock) -> None:
    """A probe for which the function fails makes the view unhealthy, for that reason, until it works again."""
    vault = Vault()
    vault.does = fail
    async with open_fleet() as fleet, fleet.open(A, config=Config(metadata=vault)) as registry:
        await trio.sleep(3.5)
        expected = "probe failed: UNAUTHENTICATED: the metadata function failed: LookupError: the vault is closed"
        assert reason(registry, A) == f"{expected} (4 times)"
        assert fleet[A].view.requests == []
        vault.does = None
        await registry.wait_until(all_healthy)


async def test_a_function_that_hangs(autojump_clock: MockClock) -> None:
    """The call's deadline ends the function as well; a probe's time does, and says so."""
    vault = Vault()
    async with open_fleet() as fleet, fleet.open(A, config=Config(metadata=vault)) as registry:
        await registry.wait_until(all_healthy)
        vault.does = trio.sleep_forever
        with trio.move_on_after(2) as scope:
            await ask(registry)
        assert scope.cancelled_caught
        assert trio.current_time() == 2
        await registry.wait_until(lambda snapshot: not all_healthy(snapshot))
        assert reason(registry, A) == "probe failed: the metadata function has not answered within 5 s"
        assert len(fleet[A].view.requests) == 1
        vault.does = None
        await registry.wait_until(all_healthy)
        fleet[A].view.hang = True
        await registry.wait_until(lambda snapshot: not all_healthy(snapshot))
        assert reason(registry, A) == "probe failed: no answer within 5 s"


async def fail_when_cancelled() -> Any:
    """A vault that does not take it well."""

    async def fail_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("while cancelled")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_late)
        nursery.start_soon(trio.sleep_forever)


async def test_a_function_that_fails_when_it_is_cancelled(autojump_clock: MockClock) -> None:
    """What the function raises while it is cancelled does not outlive the cancellation."""
    vault = Vault()
    async with open_fleet() as fleet, fleet.open(A, config=Config(metadata=vault)) as registry:
        await registry.wait_until(all_healthy)
        vault.does = fail_when_cancelled
        with trio.move_on_after(2) as scope:
            await ask(registry)
        assert scope.cancelled_caught


async def test_the_time_that_is_left(autojump_clock: MockClock) -> None:
    """The time that the function took is no longer the server's."""
    vault = Vault()
    vault.does = slowly
    async with open_fleet() as fleet, fleet.open(A, config=Config(metadata=vault)) as registry:
        await registry.wait_until(all_healthy)
        with trio.fail_after(10):
            await ask(registry)
        assert sent(fleet[A].view.requests[-1], "grpc-timeout") == ["7000000u"]


async def slowly() -> Any:
    """A vault far away."""
    await trio.sleep(3)
    return TOKEN


async def test_an_expired_scope_asks_nothing(autojump_clock: MockClock) -> None:
    """A call in a scope that is over does not even ask."""
    vault = Vault()
    async with open_fleet() as fleet, fleet.open(A, config=Config(metadata=vault)) as registry:
        await registry.wait_until(all_healthy)
        with trio.move_on_after(0) as scope:
            await ask(registry)
        assert scope.cancelled_caught
        assert vault.asked == 1


async def test_left_while_asking(autojump_clock: MockClock) -> None:
    """A stream that another task leaves while the function is asked ends at once, and the function with it."""
    vault = Vault()
    async with open_fleet() as fleet, fleet.open(A, config=Config(metadata=vault)) as registry:
        view = (await registry.wait_until(all_healthy)).view(A)
        vault.does = trio.sleep_forever
        ride = view.carousel().ride(CarouselRequest())
        errors: list[BaseException] = []

        async def read() -> None:
            try:
                await anext(ride)
            except Exception as error:  # noqa: BLE001 (it is looked at below)
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            await ride.aclose()
        assert [type(error).__name__ for error in errors] == ["CancelledError"]
        assert trio.current_time() == 0
        assert len(fleet[A].view.requests) == 1


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (None, "InvalidTypeError: metadata of type NoneType: expected a mapping"),
        ({"X": SECRET}, "InvalidValueError: metadata name 'X': expected"),
        ({"x-a": f"{SECRET}\n"}, "InvalidValueError: metadata 'x-a': expected"),
        (SECRET, "InvalidTypeError: metadata with an item of type str"),
    ],
    ids=["None", "name", "value", "text"],
)
async def test_a_function_that_gives_nonsense(answer: Any, text: str, autojump_clock: MockClock) -> None:
    """What may not be sent fails the call; the message names the name, never the value."""
    vault = Vault()
    async with open_fleet() as fleet, fleet.open(A, config=Config(metadata=vault)) as registry:
        await registry.wait_until(all_healthy)
        vault.does = partial(give, answer)
        with pytest.raises(UnauthenticatedError, match=f"the metadata function failed: {text}") as caught:
            await ask(registry)
        assert SECRET not in "".join(traceback.format_exception_only(caught.value))


async def test_a_function_that_is_not_async(autojump_clock: MockClock) -> None:
    """A function that forgot its `async` is told so."""
    config: Any = Config(metadata=lambda: TOKEN)  # type: ignore[arg-type, return-value]  # the point of the test
    async with open_fleet() as fleet, fleet.open(A, config=config) as registry:
        await trio.sleep(0.1)
        assert "it returned dict: expected an async function" in reason(registry, A)


async def test_a_calls_own_is_checked_at_once(autojump_clock: MockClock) -> None:
    """A call's own mistake is raised as itself, before anybody is asked."""
    vault = Vault()
    async with open_fleet() as fleet, fleet.open(A, config=Config(metadata=vault)) as registry:
        await registry.wait_until(all_healthy)
        with pytest.raises(InvalidValueError, match="metadata name 'X'"):
            await ask(registry, {"X": SECRET})
        assert vault.asked == 1


# -- what no text shows --


class Odd(Mapping[str, str]):
    """A mapping that is callable, too: it counts as a mapping."""

    def __getitem__(self, name: str) -> str:
        return TOKEN[name]

    def __iter__(self) -> Any:
        return iter(TOKEN)

    def __len__(self) -> int:
        return len(TOKEN)

    def __call__(self) -> None:
        raise AssertionError("it was called")


async def vault_of(token: str) -> dict[str, str]:
    """For a partial whose repr shows the token."""
    return {"authorization": token}


class Unhashable(list[str]):
    """A callable that cannot be a key of a dict."""

    async def __call__(self) -> dict[str, str]:
        return TOKEN


SOURCES: list[Any] = [TOKEN, Odd(), partial(vault_of, SECRET), Unhashable()]


@pytest.mark.parametrize("metadata", SOURCES, ids=lambda source: type(source).__name__)
def test_texts_of_a_config(metadata: Any) -> None:
    """Neither repr, nor attrs' dict, nor a failed comparison shows a value; a config is compared as any other."""
    config = Config(metadata=metadata)
    other = Config(metadata={"authorization": f"another {SECRET}"})
    with pytest.raises(AssertionError) as caught:
        assert config == other
    texts = [repr(config), str(config), repr(config.metadata), str(attrs.asdict(config)), str(caught.value)]
    assert not [text for text in texts if SECRET in text]
    assert "metadata" not in repr(config)
    assert hash(config) == hash(Config(metadata=metadata))
    assert attrs.evolve(config, rise=2) == Config(metadata=metadata, rise=2)
    assert pickle.loads(pickle.dumps(config)) == config if metadata is TOKEN else True


async def test_nothing_shows_a_value(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Through a good and a bad life, no log at any level, dump, history, repr or error has a value in it."""
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    vault = Vault()
    for metadata in (TOKEN, vault):
        async with open_fleet() as fleet, fleet.open(A, config=Config(metadata=metadata)) as registry:
            view = (await registry.wait_until(all_healthy)).view(A)
            fleet[A].view.status, fleet[A].view.details = 16, "who are you"
            vault.does = fail if metadata is vault else None
            stub = view.stub(NastyStub)
            streams = [stub.listen(Order(), metadata=TOKEN), stub.talk(orders(Order()), metadata=TOKEN)]
            texts += [repr(thing) for thing in (view.channel, stub.ask, *streams, registry, registry.snapshot)]
            for metadata_of_call in (None, TOKEN):
                with pytest.raises(UnauthenticatedError) as caught:
                    await ask(registry, metadata_of_call)
                texts += [str(caught.value), repr(caught.value), *traceback.format_exception(caught.value)]
            fleet[A].cut()
            await trio.sleep(20)
            registry.dump(out := StringIO(), reasons=True)
            texts += [out.getvalue(), repr(registry.history(A)), repr(registry.discovery), repr(registry.summary())]
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("viewreg")]  # not the servers'
    assert not [text for text in [*texts, *ours] if SECRET in text]
    assert any("UNAUTHENTICATED: who are you" in text for text in ours)


async def test_left_by_another_task_while_it_asks(autojump_clock: MockClock) -> None:
    """A call that is left while its function is asked, after its endpoint has gone, ends as a call that was left."""
    asked = 0
    outcomes: list[type[BaseException]] = []

    async def token() -> dict[str, str]:
        nonlocal asked
        asked += 1
        if asked > 1:
            await trio.sleep_forever()
        return {}

    async with open_fleet() as fleet, fleet.open(A, config=Config(metadata=token)) as registry:
        await registry.wait_until(all_healthy)
        answers = registry.snapshot.view(A).stub(NastyStub).talk(orders(Order()))

        async def wait() -> None:
            try:
                await anext(answers)
            except CancelledError as error:
                outcomes.append(type(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            fleet.locator.set([])
            await trio.sleep(1)
            await answers.aclose()
    assert outcomes == [CancelledError]
