"""The Open Inference Protocol over gRPC: the same models, batches, limits and keys as over HTTP.

As over HTTP, a proxy adds TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

import grpc
from starlette.types import Message

from rootstock.service.http.access import Access, Admission, read_keys
from rootstock.service.http.observer import choose_id
from rootstock.service.http.problems import PREFIX, Problem, internal_problem, not_loaded_problem
from rootstock.service.http.v2 import describe_model, infer_tensors, require_version
from rootstock.service.inference.services import Services
from rootstock.service.models.waits import NotLoadedError
from rootstock.service.rpc.messages import MESSAGES, SERVICE, count_fields
from rootstock.service.rpc.tensors import read_request, write_response
from rootstock.service.settings import Settings
from rootstock.service.watch.logs import request_id

MAX_FIELDS = 10_000
"""Fields of a message: tensors are a few long ones."""
_CODES = {
    "bad-request": grpc.StatusCode.INVALID_ARGUMENT,
    "unauthorized": grpc.StatusCode.UNAUTHENTICATED,
    "forbidden": grpc.StatusCode.PERMISSION_DENIED,
    "not-found": grpc.StatusCode.NOT_FOUND,
    "too-slow": grpc.StatusCode.DEADLINE_EXCEEDED,
    "too-large": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "invalid-request": grpc.StatusCode.INVALID_ARGUMENT,
    "unusable-image": grpc.StatusCode.INVALID_ARGUMENT,
    "too-many-requests": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "internal": grpc.StatusCode.INTERNAL,
    "no-model": grpc.StatusCode.UNAVAILABLE,
    "overloaded": grpc.StatusCode.UNAVAILABLE,
    "too-late": grpc.StatusCode.DEADLINE_EXCEEDED,
    "lost": grpc.StatusCode.UNAVAILABLE,
}
"""The status of each kind of problem that a call can have."""
_log = logging.getLogger("rootstock.access")


@dataclass
class Call:
    """One call, as the `Caller` whose images are inferred."""

    state: SimpleNamespace = field(default_factory=SimpleNamespace)

    async def receive(self) -> Message:
        """Wait: gRPC cancels the task of a client that leaves."""
        await asyncio.Event().wait()
        raise AssertionError


Handler = Callable[[Call, Any], Awaitable[Any]]


class RpcServer:
    """Listens on the settings' host and ``grpc_port`` inside `running`."""

    def __init__(self, settings: Settings, services: Services, admission: Admission) -> None:
        self.port = 0
        """The port in use."""
        self._settings = settings
        self._services = services
        self._resources = services.resources
        self._admission = admission
        # The size of a message is known only after it has arrived.
        most = max(1, settings.max_buffered_bytes // settings.max_body_bytes)
        self._turns = asyncio.Semaphore(most)
        # One caller that sends slowly must not keep the others waiting.
        self._turns_of_caller = max(1, most // 2)
        self._callers: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._buffered = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer calls inside; at the end let the running ones finish."""
        settings = self._settings
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                # As over HTTP, images are already compressed, so nothing is decompressed.
                ("grpc.compression_enabled_algorithms_bitset", 1),
                ("grpc.per_message_decompression", 0),
            ],
            maximum_concurrent_rpcs=settings.max_connections,
        )
        handlers = {
            "ServerLive": self._method("ServerLive", "open", self._server_live),
            "ServerReady": self._method("ServerReady", "open", self._server_ready),
            "ServerMetadata": self._method("ServerMetadata", "predict", self._server_metadata),
            "ModelReady": self._method("ModelReady", "predict", self._model_ready),
            "ModelMetadata": self._method("ModelMetadata", "predict", self._model_metadata),
            "ModelInfer": self._method("ModelInfer", "predict", self._model_infer),
        }
        generic = grpc.method_handlers_generic_handler(SERVICE, handlers)
        server.add_generic_rpc_handlers((generic,))
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.port = server.add_insecure_port(f"{host}:{settings.grpc_port}")
        await server.start()
        logging.getLogger("rootstock.service").info("gRPC on %s:%d", host, self.port)
        end = asyncio.ensure_future(self._stop(server))
        try:
            yield
        finally:
            self._resources.closing.set()
            await end

    async def _stop(self, server: grpc.aio.Server) -> None:
        await self._resources.closing.wait()
        await server.stop(self._settings.drain_seconds)

    def _method(self, name: str, access: Access, handle: Handler) -> Any:
        """Return the handler of a method.

        It handles a stream, which looks the same on the wire with one message, so a call can be
        refused before its message is read.
        """

        async def answer(_messages: object, context: grpc.aio.ServicerContext) -> Any:
            call, started = Call(), time.perf_counter()
            problem: Problem | None = None
            status = 500
            try:
                metadata = dict(context.invocation_metadata() or ())
                call.state.request_id = choose_id(str(metadata.get("x-request-id", "")).encode())
                request_id.set(call.state.request_id)
                self._admit(call, access, name, metadata, context.peer())
                with await self._read(call, context, MESSAGES[f"{name}Request"]) as message:
                    response = await handle(call, message)
                status = 200
                return response
            except NotLoadedError as error:
                problem = not_loaded_problem(error)
            except Problem as error:
                problem = error
            except asyncio.CancelledError:
                status = 499  # the client has disconnected
                raise
            except Exception:
                logging.getLogger("rootstock.service").exception("a call failed")
                problem = internal_problem()
            finally:
                status = problem.status if problem else status
                self._record(call, access, name, status, problem, time.perf_counter() - started)
            return await _abort(context, problem, call.state.request_id)

        return grpc.stream_unary_rpc_method_handler(
            answer,
            request_deserializer=None,
            response_serializer=MESSAGES[f"{name}Response"].SerializeToString,
        )

    def _admit(
        self, call: Call, access: Access, name: str, metadata: dict[str, Any], peer: str
    ) -> None:
        """Refuse a call without a fitting key, or one too many."""
        call.state.caller = f"address {_read_address(peer)}"
        if access == "open":
            return
        texts = read_keys(
            str(metadata.get("x-api-key", "")), str(metadata.get("authorization", ""))
        )
        caller = self._admission.identify("predict", texts, _read_address(peer))
        if isinstance(caller, Problem):
            raise caller
        call.state.caller = caller
        if name != "ModelInfer":
            return
        problem = self._admission.slow_down(caller)
        if not problem and not self._services.several:
            problem = self._services.default.crowded()
        if problem:
            raise problem

    async def _read(
        self, call: Call, context: grpc.aio.ServicerContext, message_class: Any
    ) -> contextlib.AbstractContextManager[Any]:
        """Return the message of a call; it counts as buffered until the context ends."""
        own = self._callers.setdefault(call.state.caller, asyncio.Semaphore(self._turns_of_caller))
        try:
            async with asyncio.timeout(self._settings.body_seconds), own, self._turns:
                data = await context.read()
        except TimeoutError:
            seconds = self._settings.body_seconds
            raise Problem(
                "too-slow", f"The message did not arrive within {seconds:g} seconds."
            ) from None
        if data is grpc.aio.EOF:
            raise Problem("bad-request", "The call has no message.")
        if self._buffered + len(data) > self._settings.max_buffered_bytes:
            raise Problem(
                "overloaded", "Too many messages are in memory at the moment.", {"Retry-After": "1"}
            )
        if count_fields(memoryview(data), MAX_FIELDS) > MAX_FIELDS:
            raise Problem("invalid-request", f"The message has more than {MAX_FIELDS} fields.")
        try:
            message = message_class.FromString(data)
        except Exception:  # noqa: BLE001 - protobuf has several classes of errors
            raise Problem(
                "bad-request", f"The message is not a {message_class.DESCRIPTOR.name}."
            ) from None
        return self._hold(message, len(data))

    @contextlib.contextmanager
    def _hold(self, message: Any, size: int) -> Iterator[Any]:
        self._buffered += size
        try:
            yield message
        finally:
            self._buffered -= size

    def _record(
        self,
        call: Call,
        access: Access,
        name: str,
        status: int,
        problem: Problem | None,
        seconds: float,
    ) -> None:
        telemetry = self._resources.telemetry
        model = getattr(call.state, "model", "")
        telemetry.count_request("GRPC", f"/{SERVICE}/{name}", status, seconds, model)
        if problem:
            telemetry.count_problem(problem.kind)
        level = logging.DEBUG if status in (429, 503) or access == "open" else logging.INFO
        extra = {"caller": getattr(call.state, "caller", ""), "status": status}
        extra["ms"] = round(1000 * seconds, 2)
        _log.log(level, "GRPC %s %d", name, status, extra=extra)

    async def _server_live(self, _call: Call, _request: Any) -> Any:
        live = not self._resources.batcher.stuck
        return MESSAGES["ServerLiveResponse"](live=live)

    async def _server_ready(self, _call: Call, _request: Any) -> Any:
        return MESSAGES["ServerReadyResponse"](ready=self._services.ready)

    async def _server_metadata(self, _call: Call, _request: Any) -> Any:
        return MESSAGES["ServerMetadataResponse"](
            name="rootstock", version="1", extensions=["classification"]
        )

    async def _model_ready(self, call: Call, request: Any) -> Any:
        try:
            service = self._find(call, request.name)
            require_version(service, request.version)
            ready = service.ready
        except (NotLoadedError, Problem):
            ready = False
        return MESSAGES["ModelReadyResponse"](ready=ready)

    async def _model_metadata(self, call: Call, request: Any) -> Any:
        predictor = require_version(self._find(call, request.name), request.version)
        return MESSAGES["ModelMetadataResponse"](**describe_model(predictor))

    async def _model_infer(self, call: Call, request: Any) -> Any:
        service = self._find(call, request.model_name)
        body, binary = read_request(request)
        call.state.binary = binary
        predictor, answers = await infer_tensors(call, service, body, request.model_version)
        raw = bool(request.raw_input_contents)
        return write_response(predictor, body, answers, raw=raw)

    def _find(self, call: Call, name: str) -> Any:
        service = self._services.find(name)
        call.state.model = service.name
        return service


async def _abort(context: grpc.aio.ServicerContext, problem: Problem | None, identity: str) -> None:
    problem = problem or internal_problem()
    metadata = [("x-request-id", identity), ("problem-type", PREFIX + problem.kind)]
    metadata += [
        (name.lower(), value)
        for name, value in (problem.headers or {}).items()
        if name in ("Retry-After", "WWW-Authenticate")
    ]
    code = _CODES.get(problem.kind, grpc.StatusCode.UNKNOWN)
    await context.abort(code, problem.detail, tuple(metadata))


def _read_address(peer: str) -> str:
    """Return the address in gRPC's name of a client, such as ipv4:127.0.0.1:4711."""
    return peer.partition(":")[2].rpartition(":")[0].replace("%5B", "").replace("%5D", "")
