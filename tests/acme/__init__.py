"""Generated from tests/proto/search.proto by `nox -s proto`; this file only makes it a package."""
