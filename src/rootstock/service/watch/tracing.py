"""OpenTelemetry traces, where its own variables ask for them; otherwise spans cost next to nothing.

FastAPI makes a span of each request; `decode` and `infer` of each image lie below it.
"""

from __future__ import annotations

import os

from opentelemetry import trace

from rootstock.errors import ConfigError

tracer = trace.get_tracer("rootstock")


def set_up_tracing() -> bool:
    """Export spans as OTEL_TRACES_EXPORTER (otlp or console) says; whether there is anything to do.

    An OTEL_EXPORTER_OTLP_ENDPOINT alone means otlp. Raises:
        ConfigError: the package that exports is not installed, or the exporter is another one.
    """
    endpoint = any(name.startswith("OTEL_EXPORTER_OTLP") for name in os.environ)
    wanted = os.environ.get("OTEL_TRACES_EXPORTER", "otlp" if endpoint else "none")
    if wanted == "none":
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
        if wanted == "console":
            exporter = ConsoleSpanExporter()
        elif wanted == "otlp":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter()
        else:
            raise ConfigError(
                f"OTEL_TRACES_EXPORTER is {wanted!r}; this service knows otlp, console"
            )
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
