"""The four services of a fake view, answered from facts that are made up: always the same ones, cut to its partition.

Rules:
* It does not know what carries its calls: it makes purerpc services, for whoever serves them.
* A call begins with `FakeServices.begin`, which does to it what the behavior in force says.
* A call that has begun goes on as it began, whatever the test decides meanwhile.
"""

# ruff: noqa: N802, ARG002 (methods and arguments have the names that the wire and the generated servicers give them)

from __future__ import annotations

from collections import Counter
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from viewreg import rpc
from viewreg._partition import FactPartition, HashRange, KeyEncoding
from viewreg._transport.purerpc import StatusCode
from viewreg._transport.status import ERRORS, InvalidArgumentError, UnimplementedError
from viewreg.testing._behavior import Behavior

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

    from purerpc import Servicer

    from viewreg.testing._behavior import Serving

T = TypeVar("T")

_CHUNK: Final = 50  # facts in one streamed message
_TRIED: Final = 100  # made-up facts for each one wanted: a partition of less than a hundredth has fewer facts


class FakeServices:
    """What a fake view is and does at this moment."""

    def __init__(self, serving: Serving, hostname: str, servicers: Iterable[Servicer] = ()) -> None:
        self.behavior: Behavior = Behavior()  # written by `obey`
        own = (_Diagnostics(self), _Carousel(self), _ReadFactsPO(self), _ReadFactsSP(self))
        self.by_name: Final[dict[str, Any]] = {
            servicer.service.name: servicer.service for servicer in (*own, *servicers)
        }
        """The purerpc services by their names on the wire; of two with one name, the last."""
        self._hostname: Final = hostname
        self._started: Final = trio.current_time()
        self._serve(serving)

    def obey(self, serving: Serving, behavior: Behavior) -> None:
        """From now on serve this, and behave so."""
        self.behavior = behavior
        if serving != self.serving:
            self._serve(serving)

    def _serve(self, serving: Serving) -> None:
        self.serving = serving
        self.facts = list(_facts_of(serving.partition, serving.facts)) if serving.partitioned else []
        self.last_index = self.facts[-1].index if self.facts else 0

    async def begin(self) -> None:
        """What every call begins with. Raises the `CallError` that it shall end with."""
        behavior = self.behavior
        if behavior.delay:
            await trio.sleep(behavior.delay)
        if behavior.code is not StatusCode.OK:
            raise ERRORS[behavior.code](behavior.details)

    def stats(self) -> rpc.StatsResult:
        """The truth, but for what the behavior lies about."""
        serving, behavior = self.serving, self.behavior
        result = rpc.StatsResult(
            lastIndex=self.last_index,
            facts=len(self.facts),
            factVersions=len(self.facts),
            viewType=serving.view_type,
            hostname=self._hostname,
            # Present even where there is no partition, as from a Go server.
            hashPartition=_on_wire(serving.partition) if serving.partitioned else rpc.CarouselHashPartitionRequest(),
            partition=str(serving.partition) if serving.partitioned else "",
        )
        result.upTime.FromNanoseconds(int((trio.current_time() - self._started) * 1e9))
        for name in behavior.lied_about:
            result.ClearField(name)  # type: ignore[arg-type]  # its names are literals to the type checker
        result.MergeFrom(behavior.lie)
        return result


def _facts_of(partition: FactPartition, wanted: int) -> Iterator[rpc.Fact]:
    candidates = map(_fact, range(1, wanted * _TRIED))
    return islice(filter(partition.has_fact, candidates), wanted)


def _fact(number: int) -> rpc.Fact:
    """Each subject has five predicates; there are forty objects."""
    subject, predicate, value = 100 + number // 5, 1 + number % 5, b"object-%02d" % (number % 40)
    return rpc.Fact(index=number, id=number, subject=subject, predicate=predicate, object=value)


def _on_wire(partition: FactPartition) -> rpc.CarouselHashPartitionRequest:
    hashes = partition.hash_range
    encoding = rpc.FactKeyEncoding.ValueType(partition.encoding.value)
    return rpc.CarouselHashPartitionRequest(start=hashes.start, end=hashes.end or 0, encoding=encoding)


class _Diagnostics(rpc.DiagnosticsServicer):
    def __init__(self, services: FakeServices) -> None:
        self._services = services

    async def stats(self, input_message: rpc.StatsRequest) -> rpc.StatsResult:
        return self._services.stats()

    async def profile(self, input_message: rpc.ProfileRequest) -> rpc.ProfileResult:
        return rpc.ProfileResult()

    async def setLogLevel(self, input_message: rpc.LogLevelRequest) -> rpc.LogLevelResult:
        return rpc.LogLevelResult()

    async def updateStats(self, input_message: rpc.UpdateStatsRequest) -> rpc.UpdateStatsResult:
        return rpc.UpdateStatsResult()


class _Carousel(rpc.CarouselServicer):
    def __init__(self, services: FakeServices) -> None:
        self._services = services

    async def logStatus(self, input_message: rpc.LogStatusRequest) -> rpc.LogStatusResult:
        next_position = rpc.LogPosition(index=self._services.last_index + 1, version=1)
        return rpc.LogStatusResult(
            replayPosition=next_position,
            nextPosition=next_position,
            keyEncoding=rpc.FactKeyEncoding.ValueType(self._services.serving.partition.encoding.value),
            maxVersionSupported=1,
        )

    async def ride(self, input_message: rpc.CarouselRequest) -> AsyncIterator[rpc.CarouselResult]:
        serving = self._services.serving
        chunks = list(_chunked(self._asked_for(input_message))) or [[]]
        for facts in islice(cycle(chunks), serving.ride_chunks):
            yield rpc.CarouselResult(facts=facts)
            await trio.sleep(serving.ride_interval)

    def _asked_for(self, request: rpc.CarouselRequest) -> list[rpc.Fact]:
        hashes, last = request.hashPartition, request.maxIndex or self._services.last_index
        facts = [fact for fact in self._services.facts if request.minIndex <= fact.index <= last]
        if hashes.encoding == rpc.KeyEncodingUnknown:
            return facts
        try:
            asked = FactPartition(KeyEncoding(hashes.encoding), HashRange(hashes.start, hashes.end or None))
        except ValueError as error:
            raise InvalidArgumentError(f"hashPartition: {error}") from error
        return list(filter(asked.has_fact, facts))


class _ReadFactsPO(rpc.ReadFactsPOServicer):
    def __init__(self, services: FakeServices) -> None:
        self._services = services

    def lookupPO(self, input_message: rpc.LookupPORequest) -> AsyncIterator[rpc.LookupChunk]:
        return _find(
            self._services.facts,
            input_message.lookups,
            lambda item, fact: (item.predicate, item.object) == (fact.predicate, fact.object),
        )

    def lookupPOCmp(self, input_message: rpc.LookupPOCmpRequest) -> AsyncIterator[rpc.LookupChunk]:
        return _find(
            self._services.facts,
            input_message.lookups,
            lambda item, fact: item.predicate == fact.predicate and _compares(item, fact.object),
        )

    async def factStats(self, input_message: rpc.FactStatsRequest) -> rpc.FactStatsResult:
        return _counted(self._services.facts)


class _ReadFactsSP(rpc.ReadFactsSPServicer):
    def __init__(self, services: FakeServices) -> None:
        self._services = services

    def lookupS(self, input_message: rpc.LookupSRequest) -> AsyncIterator[rpc.LookupChunk]:
        return _find(self._services.facts, input_message.subjects, lambda subject, fact: subject == fact.subject)

    def lookupSP(self, input_message: rpc.LookupSPRequest) -> AsyncIterator[rpc.LookupChunk]:
        return _find(
            self._services.facts,
            input_message.lookups,
            lambda item, fact: (item.subject, item.predicate) == (fact.subject, fact.predicate),
        )

    def lookupSPO(self, input_message: rpc.LookupSPORequest) -> AsyncIterator[rpc.LookupChunk]:
        return _find(
            self._services.facts,
            input_message.lookups,
            lambda item, fact: (
                (item.subject, item.predicate, item.object) == (fact.subject, fact.predicate, fact.object)
            ),
        )

    async def factStats(self, input_message: rpc.FactStatsRequest) -> rpc.FactStatsResult:
        return _counted(self._services.facts)


async def _find(
    facts: Sequence[rpc.Fact], lookups: Sequence[Any], matches: Callable[[Any, rpc.Fact], bool]
) -> AsyncIterator[rpc.LookupChunk]:
    """Send what each lookup finds, in the order of the lookups, with the number of its lookup."""
    found = [
        rpc.LookupChunk_Fact(lookup=number, fact=fact)
        for number, lookup in enumerate(lookups)
        for fact in facts
        if matches(lookup, fact)
    ]
    for chunk in _chunked(found):
        yield rpc.LookupChunk(facts=chunk)
        await trio.lowlevel.checkpoint()


def _compares(item: Any, value: bytes) -> bool:  # noqa: ANN401 (LookupPOCmpRequest.Item)
    low, high = item.object, item.end_object
    tests: dict[int, Callable[[], bool]] = {
        rpc.OpEqual: lambda: value == low,
        rpc.OpNotEqual: lambda: value != low,
        rpc.OpLess: lambda: value < low,
        rpc.OpLessOrEqual: lambda: value <= low,
        rpc.OpGreater: lambda: value > low,
        rpc.OpGreaterOrEqual: lambda: value >= low,
        rpc.OpRangeIncInc: lambda: low <= value <= high,
        rpc.OpRangeIncExc: lambda: low <= value < high,
        rpc.OpRangeExcInc: lambda: low < value <= high,
        rpc.OpRangeExcExc: lambda: low < value < high,
        rpc.OpPrefix: lambda: value.startswith(low),
    }
    if item.operator not in tests:  # OpIn: the message has no place for a set
        raise UnimplementedError(f"operator {item.operator} is not served by a fake view")
    return tests[item.operator]()


def _chunked(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))


def _counted(facts: Sequence[rpc.Fact]) -> rpc.FactStatsResult:
    """All counts there are: nothing is left out for being rare."""
    predicates = Counter(fact.predicate for fact in facts)
    predicate_objects = Counter((fact.predicate, fact.object) for fact in facts)
    subjects = Counter(fact.subject for fact in facts)
    subject_predicates = Counter((fact.subject, fact.predicate) for fact in facts)
    return rpc.FactStatsResult(
        predicates=[rpc.PredicateStats(predicate=predicate, count=n) for predicate, n in predicates.items()],
        predicateObjects=[
            rpc.PredicateObjectStats(predicate=predicate, object=value, count=n)
            for (predicate, value), n in predicate_objects.items()
        ],
        subjects=[rpc.SubjectStats(subject=subject, count=n) for subject, n in subjects.items()],
        subjectPredicates=[
            rpc.SubjectPredicateStats(subject=subject, predicate=predicate, count=n)
            for (subject, predicate), n in subject_predicates.items()
        ],
        NumFacts=len(facts),
        DistinctPredicates=len(predicates),
        DistinctPredicateObjects=len(predicate_objects),
        DistinctSubjects=len(subjects),
        DistinctSubjectPredicates=len(subject_predicates),
    )
