"""Generated from tests/proto/nasty.proto; this file only makes it a package.

python -m grpc_tools.protoc -Inasty=tests/proto --python_out=tests --purerpc_out=tests --mypy_out=tests \
    --viewreg_pyi_out=tests --plugin=protoc-gen-viewreg_pyi=proto/protoc_gen_viewreg_pyi.py nasty/nasty.proto
"""
