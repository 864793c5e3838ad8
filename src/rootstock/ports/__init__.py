"""Interfaces to the outside world: run logging, a model registry, machines to work on.

Each port is a small Protocol with a simple implementation here that needs no packages, so that the
core runs and is tested without MLflow or Ray. The real ones are in `integrations`. Implementations
are sent to worker processes, so they must be picklable.
"""
