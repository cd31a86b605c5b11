"""Places that can run replicas, each behind the Engine port."""
