from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.duration_pb2 import Duration

from viewreg import rpc

if TYPE_CHECKING:
    from google.protobuf.message import Message

ROOT = Path(__file__).parent.parent

# Each method as: request -> answer.
SERVICES = {
    "Diagnostics": {
        "stats": "StatsRequest -> StatsResult",
        "profile": "ProfileRequest -> ProfileResult",
        "setLogLevel": "LogLevelRequest -> LogLevelResult",
        "updateStats": "UpdateStatsRequest -> UpdateStatsResult",
    },
    "Carousel": {
        "logStatus": "LogStatusRequest -> LogStatusResult",
        "ride": "CarouselRequest -> stream CarouselResult",
    },
    "ReadFactsPO": {
        "lookupPO": "LookupPORequest -> stream LookupChunk",
        "lookupPOCmp": "LookupPOCmpRequest -> stream LookupChunk",
        "factStats": "FactStatsRequest -> FactStatsResult",
    },
    "ReadFactsSP": {
        "lookupS": "LookupSRequest -> stream LookupChunk",
        "lookupSP": "LookupSPRequest -> stream LookupChunk",
        "lookupSPO": "LookupSPORequest -> stream LookupChunk",
        "factStats": "FactStatsRequest -> FactStatsResult",
    },
}

# Each field as: number type name. Reserved numbers stand in their place.
MESSAGES = {
    "Fact": ["1 uint64 index", "2 uint64 id", "3 uint64 subject", "4 uint64 predicate", "5 bytes object"],
    "LookupSRequest": ["1 uint64 index", "2 repeated uint64 subjects"],
    "LookupSPRequest": ["1 uint64 index", "5 repeated LookupSPRequest.Item lookups"],
    "LookupSPRequest.Item": ["3 uint64 subject", "4 uint64 predicate"],
    "LookupSPORequest": ["1 uint64 index", "2 repeated LookupSPORequest.Item lookups"],
    "LookupSPORequest.Item": ["1 uint64 subject", "2 uint64 predicate", "3 bytes object"],
    "LookupPORequest": ["1 uint64 index", "2 repeated LookupPORequest.Item lookups"],
    "LookupPORequest.Item": ["2 uint64 predicate", "3 bytes object"],
    "LookupPOCmpRequest": ["1 uint64 index", "2 repeated LookupPOCmpRequest.Item lookups"],
    "LookupPOCmpRequest.Item": ["2 uint64 predicate", "3 Operator operator", "4 bytes object", "5 bytes end_object"],
    "LookupChunk_Fact": ["1 uint32 lookup", "2 Fact fact"],
    "LookupChunk": ["1 repeated LookupChunk_Fact facts"],
    "StatsRequest": [],
    "StatsResult": [
        "1 uint64 lastIndex",
        "2 int64 facts",
        "3 int64 factVersions",
        "6 uint32 txs",
        "7 string viewType",
        "8 reserved",
        "9 google.protobuf.Duration upTime",
        "10 string hostname",
        "11 bytes lastCarouselKey",
        "12 uint32 carouselRiders",
        "13 reserved",
        "14 string partition",
        "15 CarouselHashPartitionRequest hashPartition",
    ],
    "ProfileRequest": ["1 google.protobuf.Duration duration", "2 string filename"],
    "ProfileResult": [],
    "LogLevelRequest": ["1 LogLevel newLevel"],
    "LogLevelResult": [],
    "UpdateStatsRequest": [],
    "UpdateStatsResult": [],
    "LogStatusRequest": [],
    "LogPosition": ["1 uint64 index", "2 int32 version"],
    "LogStatusResult": [
        "1 reserved",
        "2 LogPosition replayPosition",
        "3 FactKeyEncoding keyEncoding",
        "5 int32 maxVersionSupported",
        "6 LogPosition nextPosition",
    ],
    "CarouselHashPartitionRequest": ["1 uint64 start", "2 uint64 end", "3 FactKeyEncoding encoding"],
    "CarouselRequest": [
        "1 uint64 maxIndex",
        "2 uint64 minIndex",
        "3 bool dedicated",
        "4 CarouselHashPartitionRequest hashPartition",
    ],
    "CarouselResult": ["1 repeated Fact facts"],
    "FactStatsRequest": [],
    "PredicateStats": ["1 uint64 predicate", "2 uint64 count"],
    "PredicateObjectStats": ["1 uint64 predicate", "2 bytes object", "3 uint64 count"],
    "SubjectStats": ["1 uint64 subject", "2 uint64 count"],
    "SubjectPredicateStats": ["1 uint64 subject", "2 uint64 predicate", "3 uint64 count"],
    "FactStatsResult": [
        "1 repeated PredicateStats predicates",
        "2 repeated PredicateObjectStats predicateObjects",
        "3 repeated SubjectStats subjects",
        "4 repeated SubjectPredicateStats subjectPredicates",
        "5 uint64 NumFacts",
        "6 uint64 DistinctPredicates",
        "7 uint64 DistinctPredicateObjects",
        "8 uint64 DistinctSubjects",
        "9 uint64 DistinctSubjectPredicates",
    ],
}

ENUMS = {
    "Operator": {
        "OpEqual": 0,
        "OpLess": 1,
        "OpLessOrEqual": 2,
        "OpGreater": 3,
        "OpGreaterOrEqual": 4,
        "OpRangeIncExc": 5,
        "OpRangeIncInc": 6,
        "OpPrefix": 7,
        "OpRangeExcInc": 8,
        "OpRangeExcExc": 9,
        "OpIn": 10,
        "OpNotEqual": 11,
    },
    "LogLevel": {"LOG_PANIC": 0, "LOG_FATAL": 1, "LOG_ERROR": 2, "LOG_WARN": 3, "LOG_INFO": 4, "LOG_DEBUG": 5},
    "FactKeyEncoding": {"KeyEncodingUnknown": 0, "KeyEncodingSPO": 1, "KeyEncodingPOS": 2},
}

# Worked out by hand: a tag is number * 8 + kind (0 varint, 2 length and bytes).
WIRE = {
    "stats of a POS view": (
        rpc.StatsResult(
            lastIndex=300,
            facts=-1,
            txs=2,
            viewType="diskview/rocksdb",
            upTime=Duration(seconds=5, nanos=7),
            hostname="h",
            partition="p",
            hashPartition=rpc.CarouselHashPartitionRequest(start=2**63, encoding=rpc.KeyEncodingPOS),
        ),
        """08 AC02
        10 FFFFFFFFFFFFFFFFFF01
        30 02
        3A 10 6469736B766965772F726F636B736462
        4A 04 0805 1007
        52 01 68
        72 01 70
        7A 0D 08 80808080808080808001 18 02""",
    ),
    "stats of a Go server without a partition": (
        rpc.StatsResult(viewType="txtimeout", upTime=Duration(), hashPartition=rpc.CarouselHashPartitionRequest()),
        "3A 09 747874696D656F7574 4A 00 7A 00",
    ),
    "a ride": (
        rpc.CarouselRequest(
            maxIndex=7,
            minIndex=1,
            dedicated=True,
            hashPartition=rpc.CarouselHashPartitionRequest(start=1, end=2**64 - 1, encoding=rpc.KeyEncodingSPO),
        ),
        "08 07 10 01 18 01 22 0F 08 01 10 FFFFFFFFFFFFFFFFFF01 18 01",
    ),
    "facts found": (
        rpc.LookupChunk(
            facts=[
                rpc.LookupChunk_Fact(fact=rpc.Fact(index=1, id=2, subject=3, predicate=4, object=b"\x00\xff")),
                rpc.LookupChunk_Fact(lookup=1, fact=rpc.Fact()),
            ]
        ),
        "0A 0E 12 0C 0801 1002 1803 2004 2A 02 00FF 0A 04 08 01 12 00",
    ),
    "a comparison": (
        rpc.LookupPOCmpRequest(
            index=9,
            lookups=[
                rpc.LookupPOCmpRequest.Item(predicate=5, operator=rpc.OpRangeIncExc, object=b"a", end_object=b"z")
            ],
        ),
        "08 09 12 0A 10 05 18 05 22 01 61 2A 01 7A",
    ),
    "subjects, packed": (rpc.LookupSRequest(index=1, subjects=[1, 300]), "08 01 12 03 01 AC02"),
    "subjects and predicates": (
        rpc.LookupSPRequest(index=1, lookups=[rpc.LookupSPRequest.Item(subject=2, predicate=3)]),
        "08 01 2A 04 18 02 20 03",
    ),
}


def _file() -> Any:
    return rpc.StatsRequest.DESCRIPTOR.file


def _text(field: FieldDescriptorProto) -> str:
    label = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"{field.number} {label}{field.type_name.removeprefix('.').removeprefix('rpc.') or kind} {field.name}"


def _described() -> FileDescriptorProto:
    described = FileDescriptorProto()
    _file().CopyToProto(described)
    return described


def test_services() -> None:
    """Every service has the original's methods, with the same messages, streaming where the original streams."""
    described = {
        service.name: {
            method.name: (
                f"{'stream ' if method.client_streaming else ''}{method.input_type.removeprefix('.rpc.')} -> "
                f"{'stream ' if method.server_streaming else ''}{method.output_type.removeprefix('.rpc.')}"
            )
            for method in service.method
        }
        for service in _described().service
    }
    assert described == SERVICES


def test_messages() -> None:
    """Every message has the original's fields: number, type, label, name, and reserved numbers."""
    found: dict[str, list[str]] = {}

    def walk(scope: str, message: DescriptorProto) -> None:
        reserved = [f"{n} reserved" for part in message.reserved_range for n in range(part.start, part.end)]
        fields = [_text(field) for field in message.field] + reserved
        found[scope + message.name] = sorted(fields, key=lambda text: int(text.split()[0]))
        for nested in message.nested_type:
            walk(f"{scope}{message.name}.", nested)

    for message in _described().message_type:
        walk("", message)
    assert found == MESSAGES


def test_enums() -> None:
    """Every enum has the original's names and numbers."""
    found = {enum.name: {value.name: value.number for value in enum.value} for enum in _described().enum_type}
    assert found == ENUMS


def test_package_and_syntax() -> None:
    """Paths begin with /rpc., and fields follow proto3."""
    described = _described()
    assert (described.package, described.syntax) == ("rpc", "proto3")


@pytest.mark.parametrize(("message", "wire"), WIRE.values(), ids=WIRE)
def test_wire(message: Message, wire: str) -> None:
    """Messages are written to, and read from, exactly the bytes that were worked out by hand."""
    assert message.SerializeToString(deterministic=True).hex(" ") == bytes.fromhex(wire).hex(" ")
    assert type(message).FromString(bytes.fromhex(wire)) == message


def test_exports() -> None:
    """`viewreg.rpc` exports every message, enum, enum value, stub and servicer, and nothing else."""
    messages = {name for name in MESSAGES if "." not in name}
    values = {name for values in ENUMS.values() for name in values}
    classes = {f"{service}{kind}" for service in SERVICES for kind in ("Servicer", "Stub")}
    assert set(rpc.__all__) == messages | set(ENUMS) | values | classes
    assert len(rpc.__all__) == len(set(rpc.__all__))
    assert all(hasattr(rpc, name) for name in rpc.__all__)


@pytest.mark.parametrize("name", SERVICES)
def test_servicers(name: str) -> None:
    """A generated servicer serves each method at its path and with its cardinality."""
    service = getattr(rpc, f"{name}Servicer")().service
    cardinalities = {method: bound.signature.cardinality.name for method, bound in service.methods.items()}
    assert service.name == f"rpc.{name}"
    assert cardinalities == {
        method: "UNARY_STREAM" if "stream" in text else "UNARY_UNARY" for method, text in SERVICES[name].items()
    }


@pytest.mark.parametrize("name", SERVICES)
def test_stub_types(name: str) -> None:
    """The types of a stub name viewreg's call for each method, with its two messages."""
    tree = ast.parse(ROOT.joinpath("viewreg", "rpc", "views_grpc.pyi").read_text())
    (stub,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == f"{name}Stub")
    found = {
        ast.unparse(node.target): ast.unparse(node.annotation).replace("_viewreg_rpc_views_pb2.", "")
        for node in stub.body
        if isinstance(node, ast.AnnAssign)
    }
    expected = {}
    for method, text in SERVICES[name].items():
        request, _, result = text.partition(" -> ")
        call = "UnaryStream" if result.startswith("stream ") else "UnaryUnary"
        expected[method] = f"{call}[{request}, {result.removeprefix('stream ')}]"
    assert found == expected


def test_import_alone() -> None:
    """`from viewreg.rpc import ...` works as the first import of a program, and without a warning."""
    program = "from viewreg.rpc import DiagnosticsStub, StatsRequest; print(StatsRequest.DESCRIPTOR.full_name)"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert (run.stdout, run.stderr) == ("rpc.StatsRequest\n", "")


def _generate(request: CodeGeneratorRequest) -> Any:
    path = ROOT / "proto" / "protoc_gen_viewreg_pyi.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate(request)


def _request(parameter: str = "") -> CodeGeneratorRequest:
    """Ask for a proto with everything that views.proto lacks: client streams, imports, nested types, odd names."""
    nested = DescriptorProto(name="Outer", nested_type=[DescriptorProto(name="Inner")])
    methods = [
        MethodDescriptorProto(name="find", input_type=".a.b.Outer.Inner", output_type=".Bare", client_streaming=True),
        MethodDescriptorProto(
            name="talk", input_type=".Bare", output_type=".Bare", client_streaming=True, server_streaming=True
        ),
    ]
    service = ServiceDescriptorProto(name="Search", method=methods)
    imported = FileDescriptorProto(name="a/outer.proto", package="a.b", message_type=[nested])
    file = FileDescriptorProto(name="x/my-search.proto", message_type=[DescriptorProto(name="Bare")], service=[service])
    location = file.source_code_info.location.add(path=[6, 0, 2, 0])
    location.leading_comments = ' Finds \\ and says """.\n More.\n'
    return CodeGeneratorRequest(
        file_to_generate=["x/my-search.proto"], proto_file=[imported, file], parameter=parameter
    )


def test_generator_serves_any_proto() -> None:
    """Types for the protos of users are right: client streams, imported and nested messages, no package, comments."""
    (file,) = _generate(_request()).file
    assert file.name == "x/my_search_grpc.pyi"
    tree = ast.parse(file.content)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    fields = [node for node in classes["SearchStub"].body if isinstance(node, ast.AnnAssign)]
    methods = {node.name: node for node in classes["SearchServicer"].body if not isinstance(node, ast.Expr)}  # type: ignore[attr-defined]
    find, talk = methods["find"], methods["talk"]
    assert [ast.unparse(field) for field in fields] == [
        "find: StreamUnary[_a_outer_pb2.Outer.Inner, _x_my_search_pb2.Bare]",
        "talk: StreamStream[_x_my_search_pb2.Bare, _x_my_search_pb2.Bare]",
    ]
    assert isinstance(find, ast.AsyncFunctionDef)
    assert ast.unparse(find.args) == "self, input_messages: AsyncIterator[_a_outer_pb2.Outer.Inner], /"
    assert ast.get_docstring(find) == 'Finds \\ and says """.\nMore.'
    assert isinstance(talk, ast.FunctionDef)
    assert ast.unparse(talk.returns or talk) == "AsyncIterator[_x_my_search_pb2.Bare]"
    assert "import a.outer_pb2 as _a_outer_pb2" in file.content


def test_generator_writes_init_when_asked() -> None:
    """With the option init, the package of a proto exports what was generated for it."""
    _, file = _generate(_request("init")).file
    assert file.name == "x/__init__.py"
    names = [ast.unparse(node) for node in ast.parse(file.content).body if isinstance(node, ast.ImportFrom)]
    assert names == [
        "from x.my_search_pb2 import Bare",
        "from x.my_search_grpc import SearchServicer, SearchStub",
    ]


def test_generator_refuses_unknown_options() -> None:
    """A misspelt option is an error that names it and what is allowed."""
    assert _generate(_request("initt")).error == "unknown option initt: the only one is init"
