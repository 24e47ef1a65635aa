"""Bugs planted in what asks servers about health, and in calls by grpcio's stubs."""

from __future__ import annotations

from typing import Final

from mutants.mutant import Mutant

IN_PROBES: Final = (
    Mutant(
        "pings-pass-for-answers",
        "a watched server that freezes after its last allowed PING is noticed five seconds late",
        "_supervisor.py",
        "due = max(connection.answered, self._attempted) + patience",
        "due = max(connection.heard, self._attempted) + patience",
        "test_pace.py::test_a_frozen_server_that_is_only_watched",
    ),
    Mutant(
        "a-watch-that-ends-is-not-begun-again",
        "after a proxy has cut a Watch off, changes are seen only when Check is next due",
        "_health_probe.py",
        "        if not self._told:\n            self.refused = True\n            return",
        "        if True:\n            self.refused = True\n            return",
        "test_health_probe.py::test_a_watch_that_ends",
    ),
    Mutant(
        "watch-again-without-a-pause",
        "a server that ends each Watch after its first word is asked as fast as the CPU can",
        "_health_probe.py",
        "self.due = now + self._pause",
        "self.due = now",
        "test_health_probe.py::test_a_watch_that_ends",
    ),
    Mutant(
        "an-unknown-service-fails-the-probe",
        "a server that has one of two services is unhealthy",
        "_health_probe.py",
        "    except NotFoundError:\n        return HealthCheckResponse.SERVICE_UNKNOWN\n",
        "    except NotFoundError:\n        raise\n",
        "test_health_probe.py::test_a_service_that_comes_late",
    ),
    Mutant(
        "no-health-service-counts-as-failed",
        "a server without the health service cannot be told from one that fails",
        "_health_probe.py",
        "if not isinstance(first, UnimplementedError):",
        "if True:",
        "test_health_probe.py::test_no_health_at_all",
    ),
    Mutant(
        "an-old-result-is-told-again",
        "each word of a Watch is a change, also one that changes nothing",
        "_health_probe.py",
        "(result := self._result(known)) != self._last:",
        "(result := self._result(known)) is not self._last:",
        "test_health_probe.py::test_a_word_that_changes_nothing",
    ),
    Mutant(
        "a-timeout-for-each-answer",
        "the time of a call that streams begins anew with each answer",
        "_transport/grpcio_calls.py",
        "        if self._deadline is None:\n            self._deadline",
        "        if True:\n            self._deadline",
        "test_grpcio_stubs.py::test_a_timeout_is_for_the_whole_call",
    ),
)
