"""OpenTelemetry traces, if its variables ask for them; otherwise spans cost almost nothing.

FastAPI makes a span for each request, with the spans `decode` and `infer` of each image in it.
"""

from __future__ import annotations

import os

from opentelemetry import trace

from rootstock.errors import ConfigError

tracer = trace.get_tracer("rootstock")


def set_up_tracing() -> bool:
    """Export spans to OTEL_TRACES_EXPORTER (otlp or console); return whether it is set.

    OTEL_EXPORTER_OTLP_ENDPOINT without it means otlp.
    Raises:
        ConfigError: The exporter is unknown, or its package is not installed.
    """
    has_endpoint = any(name.startswith("OTEL_EXPORTER_OTLP") for name in os.environ)
    kind = os.environ.get("OTEL_TRACES_EXPORTER", "otlp" if has_endpoint else "none")
    if kind == "none":
        return False
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import (
            BatchSpanProcessor,
            ConsoleSpanExporter,
            SpanExporter,
        )

        exporter: SpanExporter
        if kind == "console":
            exporter = ConsoleSpanExporter()
        elif kind == "otlp":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter()
        else:
            raise ConfigError(f"OTEL_TRACES_EXPORTER is {kind!r}; supported are otlp, console")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"traces need {error.name}, which is not installed",
            hint="pip install 'rootstock-vision[tracing]', or unset OTEL_*",
        ) from None
    name = os.environ.get("OTEL_SERVICE_NAME", "rootstock")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return True
