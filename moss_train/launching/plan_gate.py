"""A run held against `moss plan` before it is started: what cannot be is refused before it waits in a queue."""

from __future__ import annotations

from model.errors import InputError
from moss_train.config.schema import RunConfig
from moss_train.launching.nodes import check_node_counts


def hold_against_plan(config: RunConfig) -> str | None:
    """Check the nodes and, with `launcher.gpu`, memory on all of them and on the fewest that the run may go on with.

    Returns:
        The plan in a sentence; None where no GPU is named, or the engine has no plan.

    Raises:
        InputError: sizes that do not fit the nodes, or memory that does not suffice, with what to change.
    """
    check_node_counts(config)
    launcher = config.launcher
    if not launcher.gpu or config.device == "cpu" or config.engine == "deepspeed":
        return None
    from moss_train import platform

    platform.install()
    from moss_train.planning.data_items import SourceVideo
    from moss_train.planning.expected import expected_pack, workload_stream
    from moss_train.planning.hardware import Cluster
    from moss_train.planning.run_plan import check_layout, check_modules, gb, plan_run

    cluster = Cluster.of(launcher.gpu)
    check_modules(config)
    pack = expected_pack(config, workload_stream(config, SourceVideo.parse("1920x1080@30")), "the published workload")
    plans = []
    for nodes in sorted({launcher.least_nodes, launcher.nodes}):
        ranks = nodes * launcher.nproc_per_node
        check_layout(config, ranks)
        plan = plan_run(config, ranks, cluster, pack)
        if not plan.fits:
            words = f"stage={config.stage.name} --ranks {ranks} --gpu {launcher.gpu}"
            raise InputError(f"on {nodes} nodes of {launcher.nproc_per_node} {plan.why_not()}; see `moss plan layouts {words}`")
        plans.append(plan)
    plan = plans[-1]
    return (
        f"{plan.ranks} {launcher.gpu}: {gb(plan.memory.worst.total)} GB of a GPU's {gb(cluster.gpu.memory)}, "
        f"{plan.time.total:.3g} s a step predicted, {plan.days:.3g} days for {plan.steps} steps"
    )
