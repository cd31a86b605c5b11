"""Where do programs for Modal's SDK find gangs? Under the names that they have there."""

from __future__ import annotations

from swell.sdk.here import ClusterInfo as ClusterInfo
from swell.sdk.here import get_cluster_info as get_cluster_info
from swell.sdk.marks import clustered as clustered
