-- Calls that were lost at their last try: each is handed out alone. Few, and in the order in which they are handed out.
CREATE INDEX calls_suspect ON calls (workload, priority DESC, due_at, id)
    WHERE state = 'queued' AND error_code IN ('lease_expired', 'replica_died');
