-- Schema 3 of otava-postgres: the common append in few statements. Nothing else changes. Placeholders as in
-- 001.sql.

-- Appends one event each, or several, for requests that are sure: each id is known to have come to the number
-- before its first event. Gives the position of the first event, the others follow it; or null, and nothing is
-- written, if a request may have to be refused: `append_2` says which and why. An id that has come further has
-- the next number already, and the insert fails (unique_violation), unless the number was deleted.
CREATE FUNCTION @schema@.append_sure_1(
    fence_scopes bytea[], fence_epochs bigint[], now_ms bigint,
    ids bytea[], seqs bigint[], slices smallint[], kinds integer[], versions integer[], names bytea[], payloads bytea[])
RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    base bigint;
BEGIN
    -- Calls as conditions are evaluated as they are; PERFORM would set up a query for each.
    IF @schema@.prepare_commit_1() IS NULL OR pg_advisory_xact_lock(@events_lock@) IS NULL THEN
        RETURN NULL;
    END IF;
    IF EXISTS (
        SELECT FROM unnest(fence_scopes, fence_epochs) AS f(scope, epoch)
        WHERE coalesce((SELECT c.epoch FROM @schema@.epochs c WHERE c.scope = f.scope), 0) <> f.epoch
    ) OR EXISTS (SELECT FROM @schema@.deletions) AND EXISTS (
        SELECT FROM unnest(ids, seqs) AS e(id, seq)
        WHERE (SELECT d.seq FROM @schema@.deletions d WHERE d.id = e.id) >= e.seq
    ) THEN
        RETURN NULL;
    END IF;
    base := nextval('@schema@.event_positions');
    IF setval('@schema@.event_positions', base + cardinality(ids) - 1) IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO @schema@.events
        (position, seq, written_at_ms, version, kind, slice, id, name, payload)
    SELECT base + e.n - 1, e.seq, now_ms, e.version, e.kind, e.slice, e.id, e.name, e.payload
    FROM unnest(ids, seqs, slices, kinds, versions, names, payloads)
        WITH ORDINALITY AS e(id, seq, slice, kind, version, name, payload, n);
    RETURN base;
END $$;
