"""Why a run is slow or takes so much memory: read from what there is, or measured; every answer is a finding."""
