"""`viewreg fake-view`: a fake view in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viewreg.cli._output import say
from viewreg.testing import open_fake_view

if TYPE_CHECKING:
    from viewreg._partition import FactPartition


async def fake_view(port: int, partition: FactPartition, view_type: str) -> int:
    """Run until cancelled, or until somebody ends its process, which is exit status 1."""
    async with open_fake_view(port=port, partition=partition, view_type=view_type) as view:
        say(f"listening on {view.endpoint.host_port}, process {view.pid}; Ctrl-C ends it")
        say(f"serving {view_type}" + (f" [{partition}]" if view_type.startswith("diskview/") else ""))
        await view.wait_ended()
        say("its process has ended")
    return 1
