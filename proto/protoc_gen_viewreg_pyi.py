#!/usr/bin/env python3
"""A protoc plugin: types for the stubs and servicers that purerpc's own plugin generates without any.

For each `x.proto` that has services it writes `x_grpc.pyi`, to lie beside the `x_grpc.py` of purerpc. Not one name of a
particular proto is in here, so it serves every proto:

    python -m grpc_tools.protoc -I. --python_out=. --purerpc_out=. --mypy_out=. --viewreg_pyi_out=. search.proto

1. Stubs show viewreg's call objects, which is what `View.stub` puts into them.
2. Module names follow purerpc's plugin, which follows protoc: `-` becomes `_`, `/` becomes `.`.
3. Comments of the proto become docstrings, so that editors show them.
4. `--viewreg_pyi_opt=init` adds an `__init__.py` to the folder of each proto; it exports what was generated there.
5. It needs only the protobuf package, and is installed with viewreg as `protoc-gen-viewreg_pyi`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor_pb2 import (
        DescriptorProto,
        FileDescriptorProto,
        MethodDescriptorProto,
        ServiceDescriptorProto,
    )

# Numbers of fields in descriptor.proto: a comment is found by the path of field numbers and positions that leads to it.
_FILE_SERVICES = 6
_SERVICE_METHODS = 2

_CALLS = {
    (False, False): "UnaryUnary",
    (False, True): "UnaryStream",
    (True, False): "StreamUnary",
    (True, True): "StreamStream",
}


def main() -> None:
    """Answer the request of protoc that is on standard input."""
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(request).SerializeToString())


def generate(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """Give the files that a request of protoc asks for."""
    response = CodeGeneratorResponse(supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL)
    unknown = {option for option in request.parameter.split(",") if option} - {"init"}
    if unknown:
        response.error = f"unknown option {', '.join(sorted(unknown))}: the only one is init"
        return response
    types = {name: file for file in request.proto_file for name in _type_names(file)}
    wanted = [file for file in request.proto_file if file.name in set(request.file_to_generate)]
    for file in wanted:
        if file.service:
            response.file.add(name=_path(file, "_grpc.pyi"), content="\n".join(_stub_file(file, types)) + "\n")
    if request.parameter:
        for folder in sorted({file.name.rpartition("/")[0] for file in wanted}):
            inside = [file for file in wanted if file.name.rpartition("/")[0] == folder]
            path = f"{folder}/__init__.py".lstrip("/")
            response.file.add(name=path, content="\n".join(_init_file(inside)) + "\n")
    return response


def _stub_file(file: FileDescriptorProto, types: dict[str, FileDescriptorProto]) -> Iterator[str]:
    """Yield the lines of `x_grpc.pyi`."""
    comments = _comments(file)
    methods = [method for service in file.service for method in service.method]
    used = {types[name].name: types[name] for method in methods for name in (method.input_type, method.output_type)}
    calls = {_CALLS[method.client_streaming, method.server_streaming] for method in methods}

    yield f'"""Types for the stubs and servicers of {file.name}. Generated, do not edit."""'
    yield ""
    if any(method.client_streaming or method.server_streaming for method in methods):
        yield "from collections.abc import AsyncIterator"
        yield ""
    yield "import purerpc  # type: ignore[import-untyped, unused-ignore]"
    for name in sorted(used):
        yield f"import {_module(used[name], '_pb2')} as {_alias(used[name])}"
    yield f"from viewreg import {', '.join(sorted({'Channel', *calls}))}"
    for position, service in enumerate(file.service):
        yield from _servicer(service, types, comments, (_FILE_SERVICES, position))
        yield from _stub(service, types, comments, (_FILE_SERVICES, position))


def _servicer(
    service: ServiceDescriptorProto,
    types: dict[str, FileDescriptorProto],
    comments: dict[tuple[int, ...], list[str]],
    path: tuple[int, ...],
) -> Iterator[str]:
    """Yield the class that a server derives its own from."""
    yield ""
    yield f"class {service.name}Servicer(purerpc.Servicer):  # type: ignore[misc, unused-ignore]"
    yield from _docstring(comments.get(path), "    ")
    for position, method in enumerate(service.method):
        # A servicer that streams is an async generator function, which is typed without `async`.
        keyword = "def" if method.server_streaming else "async def"
        # Positional: purerpc passes it so, and servicers may call it as they like.
        argument = "input_messages" if method.client_streaming else "input_message"
        request, result = _signature(method, types)
        if method.client_streaming:
            request = f"AsyncIterator[{request}]"
        if method.server_streaming:
            result = f"AsyncIterator[{result}]"
        documented = comments.get((*path, _SERVICE_METHODS, position))
        header = f"    {keyword} {method.name}(self, {argument}: {request}, /) -> {result}:"
        yield header if documented else f"{header} ..."
        yield from _docstring(documented, "        ")
    yield "    @property"
    yield "    def service(self) -> purerpc.Service: ..."


def _stub(
    service: ServiceDescriptorProto,
    types: dict[str, FileDescriptorProto],
    comments: dict[tuple[int, ...], list[str]],
    path: tuple[int, ...],
) -> Iterator[str]:
    """Yield the class that a client calls through."""
    yield ""
    yield f"class {service.name}Stub:"
    yield from _docstring(comments.get(path), "    ")
    for position, method in enumerate(service.method):
        call = _CALLS[method.client_streaming, method.server_streaming]
        yield f"    {method.name}: {call}[{', '.join(_signature(method, types))}]"
        yield from _docstring(comments.get((*path, _SERVICE_METHODS, position)), "    ")
    yield "    def __init__(self, channel: Channel) -> None: ..."


def _init_file(files: list[FileDescriptorProto]) -> Iterator[str]:
    """Yield the lines of an `__init__.py` that exports everything of `files`."""
    yield f'"""Messages, stubs and servicers of {", ".join(file.name for file in files)}. Generated, do not edit."""'
    yield ""
    yield "# First, because purerpc cannot be imported beside h2 4 without it."
    yield "import viewreg"
    exported: list[str] = []
    for file in files:
        messages = [*(message.name for message in file.message_type), *(enum.name for enum in file.enum_type)]
        messages += [value.name for enum in file.enum_type for value in enum.value]
        classes = [f"{service.name}{kind}" for service in file.service for kind in ("Servicer", "Stub")]
        for suffix, names in (("_pb2", messages), ("_grpc", classes)):
            if names:
                yield f"from {_module(file, suffix)} import ("
                yield from (f"    {name}," for name in sorted(names))
                yield ")"
                exported += names
    yield ""
    yield "__all__ = ["
    yield from (f'    "{name}",' for name in sorted(exported))
    yield "]"


def _signature(method: MethodDescriptorProto, types: dict[str, FileDescriptorProto]) -> tuple[str, str]:
    """Give the Python names of the two messages of a method."""
    request, result = (
        # A message's full name is a dot, the package, and the Python name within the module.
        f"{_alias(types[name])}.{name.removeprefix(f'.{types[name].package}' if types[name].package else '')[1:]}"
        for name in (method.input_type, method.output_type)
    )
    return request, result


def _type_names(file: FileDescriptorProto) -> Iterator[str]:
    """Yield the full names of all messages of a file, nested ones included."""

    def walk(scope: str, messages: list[DescriptorProto]) -> Iterator[str]:
        for message in messages:
            yield f"{scope}.{message.name}"
            yield from walk(f"{scope}.{message.name}", list(message.nested_type))

    return walk(f".{file.package}" if file.package else "", list(file.message_type))


def _comments(file: FileDescriptorProto) -> dict[tuple[int, ...], list[str]]:
    """Give the lines of the comments of a file by the path to what they stand above."""
    return {
        tuple(location.path): [line.strip() for line in location.leading_comments.strip().splitlines()]
        for location in file.source_code_info.location
        if location.leading_comments.strip()
    }


def _docstring(lines: list[str] | None, indent: str) -> Iterator[str]:
    """Yield `lines` as a docstring; nothing when there are none."""
    if not lines:
        return
    first, *rest = (line.replace("\\", "\\\\").replace('"""', '\\"\\"\\"') for line in lines)
    # A quotation mark must not touch the closing ones.
    yield f'{indent}"""{first}' + ("" if rest else ' """' if first.endswith('"') else '"""')
    if rest:
        yield from (f"{indent}{line}".rstrip() for line in rest)
        yield f'{indent}"""'


def _path(file: FileDescriptorProto, suffix: str) -> str:
    """Give the path of a generated file."""
    return file.name.removesuffix(".proto").replace("-", "_") + suffix


def _module(file: FileDescriptorProto, suffix: str) -> str:
    """Give the name of a generated module."""
    return _path(file, suffix).replace("/", ".")


def _alias(file: FileDescriptorProto) -> str:
    """Give a name for a module that no method of a service has."""
    return "_" + _path(file, "_pb2").replace("/", "_")


if __name__ == "__main__":
    main()
