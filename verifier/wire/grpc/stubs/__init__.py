"""Generated from ext_authz.proto by `make stubs`; the .proto file alone is written."""
