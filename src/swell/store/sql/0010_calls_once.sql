-- What an API key has named "1" is not what another one has.
DROP INDEX calls_once;
CREATE UNIQUE INDEX calls_once ON calls (workload, key, idempotency_key) WHERE idempotency_key != '';
