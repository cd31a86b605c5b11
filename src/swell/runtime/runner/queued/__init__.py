"""How do queued calls get to replicas, and what came of them back to control?"""
