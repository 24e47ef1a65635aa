from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent
from typing import Protocol

import pytest

import pytest_viewreg

pytest_plugins = "pytester"

ROOT = Path(__file__).parent.parent
# However viewreg is installed, if at all: not by its entry point, but the module of this tree. Without pytest-asyncio,
# which where it is installed warns of what it wants in every configuration.
PLUGINS = ("-p", "no:asyncio", "-p", "no:viewreg", "-p", "pytest_viewreg")


class Run(Protocol):
    def __call__(self, source: str, *arguments: str) -> pytest.RunResult: ...


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs tests in a process of their own, with nothing but the plugin, and with warnings as errors."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(source: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(f"import pytest, trio\nfrom viewreg import Config, KeyEncoding\n\n{dedent(source)}")
        return pytester.runpytest_subprocess(*PLUGINS, "-W", "error", "--strict-markers", *arguments)

    return run


# -- what it costs those who do not use it --


def test_import_loads_nothing() -> None:
    """Importing the plugin imports no module that pytest has not imported already."""
    program = "import sys, pytest; old = {*sys.modules}; import pytest_viewreg; print({*sys.modules} - old)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "{'pytest_viewreg'}"


def test_a_suite_that_does_not_use_it(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no test asks for a fixture, nothing of viewreg or Trio is imported, from the first to the last."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import sys

        def test_something():
            assert not {"viewreg", "trio", "purerpc"} & sys.modules.keys()
        """
    )
    pytester.runpytest_subprocess("-p", "pytest_viewreg").assert_outcomes(passed=1)


def test_entry_point() -> None:
    """What pyproject.toml names is this module, and has the fixtures."""
    text = ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8")
    assert '[project.entry-points.pytest11]\nviewreg = "pytest_viewreg"\n' in text
    assert EntryPoint("viewreg", "pytest_viewreg", "pytest11").load() is pytest_viewreg
    for name in ("viewreg_network", "viewreg_cluster", "viewreg_registry"):
        assert getattr(pytest_viewreg, name).__doc__


# -- the fixtures --


def test_fixtures(run: Run) -> None:
    """A Trio test, in virtual time or in real time, gets a cluster in memory and a registry that has seen all of it."""
    source = """
    @pytest.mark.trio
    async def test_virtual(viewreg_network, viewreg_cluster, viewreg_registry, autojump_clock):
        assert viewreg_cluster.network is viewreg_network
        assert len(viewreg_registry.healthy_views()) == len(viewreg_cluster.views) == 12
        viewreg_cluster.views[0].kill()
        await trio.sleep(60)
        assert len(viewreg_registry.healthy_views()) == 11

    @pytest.mark.trio
    async def test_real(viewreg_registry):
        assert len(viewreg_registry.healthy_views()) == 12

    @pytest.mark.trio
    async def test_cluster_alone(viewreg_cluster):
        assert all(view.running and not view.calls for view in viewreg_cluster.views)

    def test_network_alone(viewreg_network):
        assert viewreg_network.link("a:1").connections == 0
    """
    run(source).assert_outcomes(passed=4)


def test_marker(run: Run) -> None:
    """The marker sets what cluster and registry are; each argument counts as the closest marker has it."""
    source = """
    pytestmark = pytest.mark.viewreg(partitions=1, replicas=2, encodings=[KeyEncoding.POS])

    def told(registry):
        return sorted(str(view.partition) for view in registry.healthy_views())

    @pytest.mark.trio
    async def test_module(viewreg_registry):
        assert told(viewreg_registry) == ["POS: 0x00.. - ∞"] * 2

    @pytest.mark.viewreg(encodings=[KeyEncoding.SPO], replicas=1)
    class TestClass:
        @pytest.mark.trio
        async def test_class(self, viewreg_registry):
            assert told(viewreg_registry) == ["SPO: 0x00.. - ∞"]

        @pytest.mark.trio
        @pytest.mark.viewreg(replicas=3)
        async def test_function(self, viewreg_registry):
            assert told(viewreg_registry) == ["SPO: 0x00.. - ∞"] * 3

    @pytest.mark.trio
    @pytest.mark.viewreg(config=Config(history_length=1))
    async def test_config(viewreg_registry):
        assert [len(viewreg_registry.history(view.endpoint)) for view in viewreg_registry.all_views()] == [1, 1]

    @pytest.mark.trio
    @pytest.mark.viewreg(config=Config(rise=3, probe_retry_interval=600))
    async def test_slow_to_rise(viewreg_registry, autojump_clock):
        assert 1200 <= trio.current_time() < 1201

    TIMES = set()

    @pytest.mark.trio
    @pytest.mark.parametrize("again", [False, True])
    @pytest.mark.parametrize(
        "seed", [pytest.param(seed, marks=pytest.mark.viewreg(seed=seed)) for seed in (1, 2)]
    )
    async def test_seed(seed, again, viewreg_network, autojump_clock, nursery):
        link = viewreg_network.link("a:1")
        link.delay(1, jitter=1)
        nursery.start_soon(viewreg_network.listen("a:1").accept)
        await viewreg_network.dial(link.endpoint)
        TIMES.add(trio.current_time())
        assert len(TIMES) == (2 if seed == 2 else 1)
    """
    run(source).assert_outcomes(passed=9)


def test_marker_is_listed(run: Run) -> None:
    """`pytest --markers` says what the marker takes."""
    run("", "--markers").stdout.fnmatch_lines(
        ["@pytest.mark.viewreg(partitions=..., replicas=..., encodings=..., seed=..., config=...): *"]
    )


MISTAKES = {
    "partition=4": "unknown argument partition: expected partitions, replicas, encodings, seed, config",
    "4": "(4,): expected keyword arguments only, as in viewreg(partitions=..., *",
    "partitions=0": "partitions 0: expected a whole number from 1 to 256",
    "replicas='3'": "replicas '3': expected a whole number from 1 to 100",
    "encodings=[]": "encodings (): expected an iterable of KeyEncoding.SPO and KeyEncoding.POS, *",
    "seed=-1": "seed -1: expected a whole number of at least 0",
    "config={}": "config {}: expected a Config",
}


def test_mistakes_in_the_marker(run: Run) -> None:
    """Arguments that are unknown or wrong are named, with what is allowed, and nothing else is printed of it."""
    tests = [
        f"@pytest.mark.trio\n@pytest.mark.viewreg({arguments})\nasync def test_{number}(viewreg_registry): pass\n"
        for number, arguments in enumerate(MISTAKES)
    ]
    result = run("\n".join(tests))
    assert result.ret is pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines_random([f"@pytest.mark.viewreg: {message}" for message in MISTAKES.values()])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*During handling*")
    assert "passed" not in result.parseoutcomes()


# -- tests that are not Trio's --

NEEDS = "viewreg_cluster and viewreg_registry are for tests that pytest-trio runs: "


def test_who_may_not_ask(run: Run) -> None:
    """A test that pytest-trio does not run is told what to do, whatever other plugin would take its fixtures."""
    source = """
    def test_sync(viewreg_registry): pass

    def test_late(request): request.getfixturevalue("viewreg_cluster")

    async def test_unmarked(viewreg_cluster): pass

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["trio"])
    async def test_anyio(viewreg_cluster): pass

    @pytest.mark.trio
    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["trio"])
    async def test_both(viewreg_cluster): pass
    """
    result = run(source)
    result.assert_outcomes(errors=4, failed=1)
    mark = f"{NEEDS}mark this one with @pytest.mark.trio, or set `trio_mode = true` in pytest's configuration"
    result.stdout.fnmatch_lines_random(
        [
            f"{NEEDS}make this one an `async def`",
            mark,
            mark,
            f"{NEEDS}take @pytest.mark.anyio and the fixture anyio_backend away from this one",
        ]
    )


def test_without_pytest_trio(run: Run) -> None:
    """Without pytest-trio, the one thing to be done is said."""
    result = run("async def test_it(viewreg_cluster): pass", "-p", "no:trio")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"{NEEDS}install pytest-trio, and do not disable it"])


def test_trio_mode(run: Run, pytester: pytest.Pytester) -> None:
    """In Trio mode, a test needs no marker."""
    pytester.makeini("[pytest]\ntrio_mode = true\n")
    run("async def test_it(viewreg_registry, autojump_clock): pass").assert_outcomes(passed=1)


def test_beside_pytest_asyncio(run: Run, pytester: pytest.Pytester) -> None:
    """pytest-asyncio, in strict mode, takes none of the fixtures, and is not in their way."""
    pytest.importorskip("pytest_asyncio")
    pytester.makeini("[pytest]\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n")
    source = """
    @pytest.mark.trio
    async def test_trio(viewreg_registry, autojump_clock): pass

    @pytest.mark.asyncio
    async def test_asyncio(): pass

    @pytest.mark.asyncio
    async def test_wrong(viewreg_registry): pass
    """
    result = run(source, "-p", "asyncio")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines([f"{NEEDS}mark this one with @pytest.mark.trio, *"])


# -- when something goes wrong --


def test_a_cluster_that_is_broken(run: Run) -> None:
    """If not all views become healthy, the test fails, with the reasons, instead of waiting for ever."""
    source = """
    @pytest.fixture
    async def viewreg_cluster(viewreg_cluster):
        viewreg_cluster.views[0].kill()
        return viewreg_cluster

    @pytest.mark.trio
    async def test_it(viewreg_registry, autojump_clock):
        raise NotImplementedError("never gets here")
    """
    result = run(source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "viewreg_registry: 1 of 12 views not healthy after 10 s",
            "View Registry",
            "*: View{* Healthy:false}",
            "*ECONNREFUSED*",
        ]
    )
    result.stdout.no_fnmatch_line("*never gets here*")
    result.stdout.no_fnmatch_line("*Exception*Group*")


def test_a_bug_in_a_view(run: Run) -> None:
    """An exception in the task of a view fails the test, which is cancelled where it stands."""
    source = """
    from viewreg.testing import MemoryNetwork

    class Network(MemoryNetwork):
        def listen(self, address):
            return Listener()

    class Listener(trio.abc.Listener):
        async def accept(self):
            await trio.sleep(5)
            raise KeyError("the bug")

        async def aclose(self):
            pass

    @pytest.fixture
    def viewreg_network():
        return Network()

    @pytest.mark.trio
    @pytest.mark.viewreg(partitions=1, replicas=1)
    async def test_it(viewreg_cluster, autojump_clock):
        await trio.sleep_forever()
    """
    result = run(source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*KeyError: 'the bug'"])


def test_how_failures_are_told(run: Run) -> None:
    """What fails a test comes out as itself; only two failures, or those of tests without a fixture, as a group."""
    source = """
    async def fail(what):
        raise KeyError(what)

    @pytest.mark.trio
    async def test_plain(viewreg_registry):
        healthy = viewreg_registry.healthy_views
        assert len(healthy()) == 13

    @pytest.mark.trio
    async def test_cause(viewreg_registry):
        try:
            raise KeyError("the cause")
        except KeyError as error:
            raise ValueError("the effect") from error

    @pytest.mark.trio
    async def test_two(viewreg_cluster):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, "one")
            nursery.start_soon(fail, "two")

    @pytest.mark.trio
    async def test_not_ours():
        raise KeyError("three")

    @pytest.mark.trio
    async def test_skip(viewreg_cluster):
        pytest.skip("not today")

    @pytest.mark.trio
    async def test_xfail(viewreg_cluster):
        pytest.xfail("not yet")
    """
    result = run(source)
    result.assert_outcomes(failed=4, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(
        [
            ">       assert len(healthy()) == 13",
            "E       AssertionError: assert 12 == 13",
            "E           KeyError: 'the cause'",
            "The above exception was the direct cause of the following exception:",
            "E           ValueError: the effect",
            "* test_two *",
            "*ExceptionGroup*(2 sub-exceptions)*",
            "* test_not_ours *",
            "*ExceptionGroup*(1 sub-exception)*",
        ]
    )
    plain = str(result.stdout).partition("_ test_two _")[0]
    assert "ExceptionGroup" not in plain


def test_order_of_ends(run: Run) -> None:
    """The registry ends before the cluster does, also when the test has failed."""
    source = """
    REGISTRIES = []

    @pytest.fixture
    async def viewreg_cluster(viewreg_cluster):
        yield viewreg_cluster
        [registry] = REGISTRIES
        REGISTRIES.clear()
        assert all(view.running for view in viewreg_cluster.views)
        assert registry.all_views() == []

    @pytest.mark.trio
    async def test_good(viewreg_registry):
        REGISTRIES.append(viewreg_registry)

    @pytest.mark.trio
    async def test_bad(viewreg_registry):
        REGISTRIES.append(viewreg_registry)
        raise KeyError("the bug")
    """
    result = run(source)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E*KeyError: 'the bug'"])
    result.stdout.no_fnmatch_line("*AssertionError*")
