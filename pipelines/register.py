"""Stage `register`: ModelBundle in, registry entry out; champion if it passes the gate."""

from pipelines.entry import run
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.integrations.connect import connect_registry, connect_runs, locate_runs
from rootstock.workflow.register import register_model
from rootstock.workflow.result import render_result


def main(config: Config, paths: Paths) -> None:
    """Connect tracking and registry, register the model, and print the result of the run."""
    register_model(
        config,
        paths,
        runs=connect_runs(config, paths),
        registry=connect_registry(config, paths),
    )
    runs = f"\nruns      {locate_runs(config, paths)}" if config.tracking.enabled else ""
    print(f"\n{render_result(paths)}{runs}\n", flush=True)


if __name__ == "__main__":
    run(main)
