"""The pytest plugin of viewreg: a cluster in memory and a registry of it, as fixtures for Trio tests.

    @pytest.mark.viewreg(partitions=2, replicas=2)
    async def test_failover(viewreg_cluster, viewreg_registry, autojump_clock):
        viewreg_cluster.views[0].kill()
        await viewreg_registry.wait_until(lambda snapshot: len(snapshot.healthy_views()) == 3)

Rules:
* pytest loads this module wherever viewreg is installed, for suites that never heard of it and before their coverage is
  measured. So it imports pytest and nothing else: Trio and viewreg are imported by the fixtures.
* Async fixtures are pytest-trio's to run. Those here stand on synchronous ones, which pytest makes first: they say what
  is wrong with a test before pytest, or a plugin for another event loop, has its say.
* A mistake in a test's use of the plugin is told in one message that says what to do, without a traceback.
"""

from __future__ import annotations

import inspect
import io
import sys
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

    from viewreg import Registry
    from viewreg.testing import FakeCluster, MemoryNetwork

_FIXTURES: Final = frozenset({"viewreg_network", "viewreg_cluster", "viewreg_registry"})
_ARGUMENTS: Final = ("partitions", "replicas", "encodings", "seed", "config")
_SIGNATURE: Final = f"viewreg({', '.join(f'{name}=...' for name in _ARGUMENTS)})"
_PATIENCE: Final = 10.0  # seconds; a thousand views in memory are healthy in less


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, for `--strict-markers` and `--markers`."""
    config.addinivalue_line(
        "markers",
        f"{_SIGNATURE}: what the fixtures viewreg_network, viewreg_cluster and viewreg_registry are made with: "
        "arguments of viewreg.testing.open_fake_cluster, and the viewreg.Config of the registry. Of several markers, "
        "for each argument the one counts that is closest to the test.",
    )


@pytest.fixture
def viewreg_network(_viewreg_arguments: dict[str, Any]) -> MemoryNetwork:
    """A `viewreg.testing.MemoryNetwork`: the one between `viewreg_cluster` and `viewreg_registry`."""
    from viewreg.testing import MemoryNetwork

    with _blamed_on_the_marker():
        return MemoryNetwork(seed=_viewreg_arguments.get("seed", 0))


@pytest.fixture
async def viewreg_cluster(
    _viewreg_trio_test: None, _viewreg_arguments: dict[str, Any], viewreg_network: MemoryNetwork
) -> AsyncIterator[FakeCluster]:
    """A `viewreg.testing.FakeCluster` on `viewreg_network`, all of whose views listen: 4 partitions, 3 replicas each.

    `@pytest.mark.viewreg(partitions=, replicas=, encodings=, seed=)` makes it another one.
    """
    from viewreg.testing import open_fake_cluster

    arguments = {name: value for name, value in _viewreg_arguments.items() if name != "config"}
    async with AsyncExitStack() as stack:
        with _blamed_on_the_marker():
            cluster = await stack.enter_async_context(open_fake_cluster(where=viewreg_network, **arguments))
        yield cluster


@pytest.fixture
async def viewreg_registry(
    _viewreg_trio_test: None, _viewreg_arguments: dict[str, Any], viewreg_cluster: FakeCluster
) -> AsyncIterator[Registry]:
    """A `viewreg.Registry` of `viewreg_cluster`, all of whose views are healthy. It ends before the cluster does.

    `@pytest.mark.viewreg(config=)` is its `viewreg.Config`.
    """
    import trio

    from viewreg import Config, open_registry

    config = _viewreg_arguments.get("config", Config())
    with _blamed_on_the_marker():
        opened = open_registry(config=config, **viewreg_cluster.connect)
    async with opened as registry:
        patience = _PATIENCE + 2 * (config.rise - 1) * config.probe_retry_interval
        with trio.move_on_after(patience):
            await registry.wait_until(lambda snapshot: len(snapshot.healthy_views()) == len(snapshot.views))
        if ill := [view for view in registry.all_views() if not view.healthy]:
            dump, views = io.StringIO(), len(registry.all_views())
            registry.dump(dump, reasons=True)
            _fail(f"viewreg_registry: {len(ill)} of {views} views not healthy after {patience:g} s\n{dump.getvalue()}")
        yield registry


@pytest.fixture
def _viewreg_arguments(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the markers of the test say."""
    arguments: dict[str, Any] = {}
    for marker in request.node.iter_markers("viewreg"):  # from the closest to the farthest
        if marker.args:
            _fail(f"@pytest.mark.viewreg: {marker.args!r}: expected keyword arguments only, as in {_SIGNATURE}")
        if unknown := [name for name in marker.kwargs if name not in _ARGUMENTS]:
            _fail(f"@pytest.mark.viewreg: unknown argument {', '.join(unknown)}: expected {', '.join(_ARGUMENTS)}")
        arguments = {**marker.kwargs, **arguments}
    return arguments


@pytest.fixture
def _viewreg_trio_test(request: pytest.FixtureRequest) -> None:
    """Fails the test unless pytest-trio runs it."""
    needs = "viewreg_cluster and viewreg_registry are for tests that pytest-trio runs: "
    plugin = sys.modules.get("pytest_trio.plugin")  # it goes by several names, depending on how it was loaded
    if plugin is None or not request.config.pluginmanager.is_registered(plugin):
        _fail(f"{needs}install pytest-trio, and do not disable it")
    if request.node.get_closest_marker("trio") is None:
        if not inspect.iscoroutinefunction(request.function):
            _fail(f"{needs}make this one an `async def`")
        _fail(f"{needs}mark this one with @pytest.mark.trio, or set `trio_mode = true` in pytest's configuration")
    if "anyio_backend" in request.fixturenames:
        _fail(f"{needs}take @pytest.mark.anyio and the fixture anyio_backend away from this one")


@contextmanager
def _blamed_on_the_marker() -> Iterator[None]:
    """What is wrong with arguments is the marker's fault."""
    from viewreg import InvalidTypeError, InvalidValueError

    try:
        yield
    except (InvalidTypeError, InvalidValueError) as error:
        _fail(f"@pytest.mark.viewreg: {error}")


def _fail(message: str) -> NoReturn:
    raise pytest.fail.Exception(message, pytrace=False) from None


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Let what fails a test of ours come out as itself: pytest-trio and nurseries in fixtures make groups of it."""
    try:
        return (yield)
    except BaseExceptionGroup as group:
        error = _only_error(group)
        if error is None or _FIXTURES.isdisjoint(pyfuncitem.fixturenames):
            raise
    raise error  # not inside `except`, which would tie it to the group that it came in


def _only_error(error: BaseException) -> BaseException | None:
    while isinstance(error, BaseExceptionGroup):
        error, *others = error.exceptions
        if others:
            return None
    return error
