"""The data plane: authenticate, route, hold, pick, proxy, count."""
