"""A plugin of SkyPilot's API server (its official hook) for a lab without internet. Loaded by ~/.sky/plugins.yaml.

It changes three private names, for which there is no setting; so the lab is for the one version that we pin.
"""

from typing import Any

from sky import clouds
from sky.backends import backend_utils
from sky.server import plugins
from sky.utils import controller_utils


class OfflineLab(plugins.BasePlugin):  # type: ignore[misc]
    """`probe_url` is asked instead of the internet."""

    def __init__(self, probe_url: str) -> None:
        self._probe_url = probe_url

    def install(self, extension_context: Any) -> None:
        # While neither 8.8.8.8 nor 1.1.1.1 answers, the monitor of managed jobs looks at no job.
        backend_utils._TEST_IP_LIST[:] = [self._probe_url]
        # A controller takes 160 MB, and there are as many as the memory holds.
        controller_utils.MAX_CONTROLLERS = 1
        # Slurm has no spot; `scancel` takes machines away just so.
        clouds.Slurm._CLOUD_UNSUPPORTED_FEATURES.pop(clouds.CloudImplementationFeatures.SPOT_INSTANCE, None)
