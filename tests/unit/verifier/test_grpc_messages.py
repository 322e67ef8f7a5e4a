"""The messages of the gRPC port are those of Envoy, as far as they go."""

from __future__ import annotations

from typing import Any

from envoy.service.auth.v3 import external_auth_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from verifier.wire.grpc.stubs import ext_authz_pb2

#: Messages that are compared already, by the names of both.
Seen = set[tuple[str, str]]


def compare(ours: Descriptor, theirs: Descriptor, seen: Seen) -> None:
    """Compare every field of ours, and the messages below, with Envoy's."""
    if (ours.full_name, theirs.full_name) in seen:
        return
    seen.add((ours.full_name, theirs.full_name))
    for field in ours.fields:
        other = theirs.fields_by_number.get(field.number)
        assert other is not None, field.full_name
        assert field.is_repeated == other.is_repeated, field.full_name
        assert written_form(field) == written_form(other), field.full_name
        # A wrapped value of Google's has names of its own.
        assert field.name == other.name or "google" in theirs.full_name
        if field.message_type is not None:
            compare(field.message_type, other.message_type, seen)


def written_form(field: Any) -> int:
    """Return the type on the wire; an enum is written as a number is."""
    if field.type == FieldDescriptor.TYPE_ENUM:
        return FieldDescriptor.TYPE_INT32
    number: int = field.type
    return number


def test_fields_have_the_names_numbers_and_types_of_envoys() -> None:
    seen: Seen = set()
    for name in ("CheckRequest", "CheckResponse"):
        ours = ext_authz_pb2.DESCRIPTOR.message_types_by_name[name]
        theirs = external_auth_pb2.DESCRIPTOR.message_types_by_name[name]
        compare(ours, theirs, seen)
    compared = {our_name for our_name, _ in seen}
    every = {
        m.full_name for m in ext_authz_pb2.DESCRIPTOR.message_types_by_name.values()
    }
    assert compared >= every


def test_a_header_that_is_overwritten_has_envoys_number() -> None:
    from envoy.config.core.v3.base_pb2 import HeaderValueOption

    action = HeaderValueOption.HeaderAppendAction
    for name, number in ext_authz_pb2.AppendAction.items():
        assert action.Value(name) == number
