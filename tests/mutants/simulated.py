"""Which planted bugs the simulation sees: what `nox -s mutants -- --simulation` found."""

from __future__ import annotations

from typing import Final

SEEN: Final = frozenset(
    {
        "backoff-reset-by-a-connection",
        "healthy-while-draining-for-ever",
        "second-goaway-is-a-loss",
        "graceful-redial-without-pace",
        "keepalive-not-rarer-after-a-complaint",
        "probes-without-jitter",
        "no-quick-probe-after-a-failure",
        "demand-without-a-floor",
        "removal-cuts-calls",
        "drain-without-end",
        "calls-wait-though-the-dial-failed",
        "old-probe-holds-up-the-next-dial",
        "events-after-removal",
        "drop-a-notification",
        "every-health-is-a-change",
        "two-changes-in-one-instant",
        "views-keep-old-annotations",
        "ports-in-order-of-numbers",
        "stable-counts-from-now",
        "snapshots-are-kept-for-ever",
        "discovery-after-the-end",
        "changes-without-the-last-one",
        "unsatisfiable-waits-go-on",
        "an-event-that-stays-set",
        "failure-is-not-sticky",
        "never-unhealthy-by-probes",
        "rise-over-failures",
        "healthy-without-connection",
        "a-failed-call-forgets-features",
        "history-without-bound",
        "no-benefit-of-the-doubt",
        "a-failed-view-is-asked-again",
        "a-hash-at-a-boundary",
        "old-choices",
        "cancelled-calls-stay-in-the-queue",
        "answered-pings-count-as-silence",
        "a-ping-too-many",
        "drained-connections-stay-open",
        "every-goaway-is-graceful",
        "refused-calls-for-ever",
        "goaway-off-by-one",
        "forget-an-rst",
        "leak-a-stream",
    }
)
