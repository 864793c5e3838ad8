"""Stage `register`: ModelBundle in, registry entry out; champion if it wins at the gate."""

from pipelines.entry import run
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.integrations.connect import connect_registry, connect_runs
from rootstock.workflow.register import register_model
from rootstock.workflow.result import render_result


def main(config: Config, paths: Paths) -> None:
    """Connect tracking and registry, register, and print what the run has come to."""
    register_model(
        config,
        paths,
        runs=connect_runs(config, paths),
        registry=connect_registry(config, paths),
    )
    print(f"\n{render_result(paths)}\n", flush=True)


if __name__ == "__main__":
    run(main)
