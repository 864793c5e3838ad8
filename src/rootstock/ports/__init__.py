"""What the core asks of the outside world: run logging, a model registry, machines to work on.

Each port is a small Protocol with an implementation here that needs nothing installed, so that the
core runs and is tested without MLflow or Ray. The real ones are in `integrations`. Implementations
travel to worker processes and must therefore be picklable.
"""
