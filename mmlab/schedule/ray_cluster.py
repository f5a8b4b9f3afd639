"""The Ray cluster of a study: what fits on it, and which of its nodes are left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune
from rich.console import Console

from mmlab.errors import UserError
from mmlab.schedule.node_check import check_nodes
from mmlab.schedule.trial_fit import NodeGroup, n_fitting, node_groups, require_fit
from mmlab.spec.resources import Resources
from mmlab.system.driver_folder import end_processes
from mmlab.system.interruption import Interruption

#: Seconds in which the GCS of a cluster has to answer.
_TIMEOUT = 10.0


@dataclass(frozen=True)
class RayCluster:
    """The Ray cluster that this process is connected to.

    Attributes
    ----------
    resources
        Resources of each trial.
    excluded
        Ids of the nodes that cannot run trials, with their names and reasons.
    folder
        Temporary folder of this driver, also that of Ray if it runs on this machine.
    interruption
        The request to end the study.
    console
        Where nodes that are left out are named.
    """

    resources: Resources
    folder: Path
    interruption: Interruption
    console: Console
    excluded: dict[str, str] = field(default_factory=dict)

    @property
    def slots(self) -> int:
        """Number of trials that run at the same time on the present nodes, at least 1."""
        return self._limited(sum(n_fitting(self.resources, node) for node in self._usable_nodes()))

    @property
    def max_slots(self) -> int:
        """Number of trials to start: :attr:`slots`, and those for which an autoscaler adds nodes.

        An autoscaler adds nodes only if trials wait for them.
        """
        added = sum(n_fitting(self.resources, g.resources) * g.max_nodes for g in self._groups())
        return self._limited(added) if added else self.slots

    def _limited(self, fitting: int) -> int:
        limit = self.resources.max_concurrent
        return max(fitting if limit is None else min(fitting, limit), 1)

    def require_size(self) -> None:
        """Check that a node that is not left out, or one that can be added, has room for a trial.

        Raises
        ------
        UserError
            No node has.
        """
        sizes = [*self._usable_nodes(), *(group.resources for group in self._groups())]
        require_fit(self.resources, sizes, self.left_out)

    def _usable_nodes(self) -> list[dict[str, float]]:
        """Return the resources of the nodes that are alive and not left out."""
        alive = [node for node in ray.nodes() if node["Alive"]]
        return [node["Resources"] for node in alive if node["NodeID"] not in self.excluded]

    def _groups(self) -> list[NodeGroup]:
        """Return what an autoscaler can add; nothing for a local Ray."""
        if self.resources.address is None:
            return []
        worker: Any = ray._private.worker.global_worker
        return node_groups(worker.gcs_client, _TIMEOUT)

    def placement(self) -> tune.PlacementGroupFactory:
        """Return the resources of a trial, on any node that is not left out."""
        bundle = {"CPU": self.resources.cpus_per_trial, "GPU": self.resources.gpus_per_trial}
        if not self.excluded:
            return tune.PlacementGroupFactory([bundle])
        selector = {"ray.io/node-id": f"!in({', '.join(self.excluded)})"}
        return tune.PlacementGroupFactory([bundle], bundle_label_selector=[selector])

    def exclude_nodes(self) -> None:
        """Leave out the nodes of a cluster that cannot run trials, and name the new ones.

        Raises
        ------
        UserError
            No node can run trials.
        """
        if self.resources.address is None:
            return
        unusable = check_nodes(gpus=self.resources.gpus_per_trial > 0)
        new = {node: text for node, text in unusable.items() if node not in self.excluded}
        self.excluded.update(new)
        if not self._usable_nodes():
            raise UserError(
                f"no node of the Ray cluster at {self.resources.address} can run trials: "
                f"{'; '.join(self.excluded.values())}. Install the same mmlab on them as here."
            )
        if new:
            self.console.print(
                f"left out because they cannot run trials: {'; '.join(new.values())}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )

    @property
    def left_out(self) -> str:
        """A sentence on the nodes that are left out, after a space; empty if there are none."""
        return f" Nodes left out: {'; '.join(self.excluded.values())}." if self.excluded else ""

    def end_workers(self) -> None:
        """Kill the processes of a local Ray, so that no worker writes to the tracking store.

        The workers of a cluster end when the driver does.
        """
        end_processes(self.folder)
