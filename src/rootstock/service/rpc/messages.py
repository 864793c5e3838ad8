"""The messages of the Open Inference Protocol over gRPC, by their published names and numbers.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto
The classes are created at run time in a separate pool of descriptors: a client in the same process
may define the same messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
_FILE = "rootstock/open_inference_grpc.proto"
_SCALARS = {
    "double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "bool": 8, "string": 9,
    "bytes": 12, "uint32": 13,
}  # fmt: skip
"""Of `FieldDescriptorProto.Type`."""
_MESSAGE, _OPTIONAL, _REPEATED = 11, 1, 3

_PARAMETERS = "map InferParameter parameters"
_TENSOR = ("string name", "string datatype", "repeated int64 shape")
_MODEL = ("string name", "string version")
_MESSAGES: dict[str, tuple[str, ...]] = {
    # The number of each field is its position.
    "InferParameter": (
        "oneof bool bool_param", "oneof int64 int64_param", "oneof string string_param",
        "oneof double double_param", "oneof uint64 uint64_param",
    ),
    "InferTensorContents": (
        "repeated bool bool_contents", "repeated int32 int_contents",
        "repeated int64 int64_contents", "repeated uint32 uint_contents",
        "repeated uint64 uint64_contents", "repeated float fp32_contents",
        "repeated double fp64_contents", "repeated bytes bytes_contents",
    ),
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("bool live",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("bool ready",),
    "ModelReadyRequest": _MODEL,
    "ModelReadyResponse": ("bool ready",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ("string name", "string version", "repeated string extensions"),
    "ModelMetadataRequest": _MODEL,
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "ModelMetadataResponse": (
        "string name", "repeated string versions", "string platform",
        "repeated ModelMetadataResponse.TensorMetadata inputs",
        "repeated ModelMetadataResponse.TensorMetadata outputs",
    ),
    "ModelInferRequest.InferInputTensor": (
        *_TENSOR, _PARAMETERS, "InferTensorContents contents",
    ),
    "ModelInferRequest.InferRequestedOutputTensor": ("string name", _PARAMETERS),
    "ModelInferRequest": (
        "string model_name", "string model_version", "string id", _PARAMETERS,
        "repeated ModelInferRequest.InferInputTensor inputs",
        "repeated ModelInferRequest.InferRequestedOutputTensor outputs",
        "repeated bytes raw_input_contents",
    ),
    "ModelInferResponse.InferOutputTensor": (
        *_TENSOR, _PARAMETERS, "InferTensorContents contents",
    ),
    "ModelInferResponse": (
        "string model_name", "string model_version", "string id", _PARAMETERS,
        "repeated ModelInferResponse.InferOutputTensor outputs",
        "repeated bytes raw_output_contents",
    ),
}  # fmt: skip
MESSAGE_FIELDS: Mapping[int, Any] = {5: {5: {}}}
"""The fields of a ModelInferRequest that are messages with lists: inputs, and their contents."""


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package=PACKAGE, syntax="proto3")
    made: dict[str, descriptor_pb2.DescriptorProto] = {}
    # An outer message comes before its inner ones.
    for name in sorted(_MESSAGES):
        outer, _, inner = name.partition(".")
        place = made[outer].nested_type if inner else file.message_type
        made[name] = place.add(name=inner or outer)
        for number, text in enumerate(_MESSAGES[name], 1):
            _add_field(made[name], name, number, text.split())
    return file


def _add_field(
    message: descriptor_pb2.DescriptorProto, owner: str, number: int, words: list[str]
) -> None:
    *kinds, type_name, name = words
    field = message.field.add(name=name, number=number, label=_OPTIONAL)
    if "oneof" in kinds:
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if "map" in kinds:
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _add_field(entry, owner, 1, ["string", "key"])
        _add_field(entry, owner, 2, [type_name, "value"])
        type_name = f"{owner}.{entry.name}"
    if {"map", "repeated"} & set(kinds):
        field.label = _REPEATED
    if type_name in _SCALARS:
        field.type = _SCALARS[type_name]
    else:
        field.type, field.type_name = _MESSAGE, f".{PACKAGE}.{type_name}"


def _make_classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_describe())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in _MESSAGES
    }


MESSAGES = _make_classes()
"""Each message's class, by its name without the package."""


def count_fields(data: memoryview, most: int, nested: Mapping[int, Any] = MESSAGE_FIELDS) -> int:
    """Return how many fields a ModelInferRequest has, including its lists of messages.

    A message of a few bytes takes a hundred in memory, so they are counted before it is parsed.
    Counting stops above ``most``, or at an invalid byte.
    """
    fields = place = 0
    while place < len(data) and fields <= most:
        tag, place = _read_varint(data, place)
        fields += 1
        kind = tag & 7
        if kind == 0:
            _, place = _read_varint(data, place)
        elif kind == 2:
            size, place = _read_varint(data, place)
            if tag >> 3 in nested:
                part = data[place : place + size]
                fields += count_fields(part, most - fields, nested[tag >> 3])
            place += size
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            break
    return fields


def _read_varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data) and shift < 70:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            break
    return value, place
