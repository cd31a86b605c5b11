"""The nouns, events, world and ports: what Swell talks about, with no I/O, clock or chance."""
