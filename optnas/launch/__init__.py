"""Where the workers of a search run: as processes of this machine, on a Ray cluster, as jobs of SLURM.

Names are loaded on first use: whoever only holds a worker stays small.
"""

from typing import TYPE_CHECKING

from optnas._lazy import lazily

if TYPE_CHECKING:
    from optnas.launch.launcher import Launcher as Launcher
    from optnas.launch.launcher import LocalProcesses as LocalProcesses
    from optnas.launch.ray_workers import RayWorkers as RayWorkers
    from optnas.launch.slurm_workers import SlurmWorkers as SlurmWorkers

__getattr__, __dir__, __all__ = lazily(__name__)
