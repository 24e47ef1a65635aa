"""What docs/any-service.md shows works as it is shown, with a grpcio server in a process of its own."""

from __future__ import annotations

import textwrap
from typing import Any

import trio

from acme.search_pb2 import Query
from acme.search_pb2_grpc import SearchStub
from test_health_grpcio import GUARD, started
from test_testing_guide import ROOT
from viewreg import HealthProbe

PAGE = ROOT / "docs" / "any-service.md"


def shown() -> list[str]:
    """The programs of the page, in order."""
    parts = PAGE.read_text(encoding="utf-8").split("```python\n")[1:]
    return [part.partition("```")[0] for part in parts]


async def test_in_twenty_lines() -> None:
    """The program finds a server that serves, and calls it by grpcio's stub. It has 20 lines of its own."""
    program = shown()[0]
    lines = [line for line in program.splitlines() if line and not line.startswith(("import ", "from "))]
    assert len(lines) <= 20
    names: dict[str, Any] = {}
    exec(program, names)
    assert isinstance(names["probe"], HealthProbe)
    with started() as server, trio.fail_after(GUARD):
        server.set("acme.Search", "SERVING")
        assert (await names["main"]([server.endpoint.host_port])).text == "a tapir"


async def test_calls() -> None:
    """The calls of the page, one after the other."""
    first, second = shown()
    names: dict[str, Any] = {"trio": trio}
    exec(first, names)
    names["query"], names["queries"] = Query(text="tapir"), [Query(text="a"), Query(text="b")]
    with started() as server, trio.fail_after(GUARD):
        server.set("acme.Search", "SERVING")
        async with names["open_registry"](f"static:///{server.endpoint.host_port}", probe=names["probe"]) as registry:
            snapshot = await registry.wait_until(lambda snapshot: bool(snapshot.healthy_views()))
            names["stub"] = SearchStub(snapshot.views[0].channel.as_grpc_aio())
            exec(
                "async def calls(stub, query, queries):\n" + textwrap.indent(second, "    ") + "\n    return answer",
                names,
            )
            answer = await names["calls"](names["stub"], names["query"], names["queries"])
            assert answer.text == "tapir"
