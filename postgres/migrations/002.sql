-- Schema 2 of otava-postgres: appends that need no look-up. A process of the version before goes on with
-- `append_1`, which stays. Placeholders as in 001.sql.

-- Appends the events of many requests. `refused` has the numbers of those that are refused (from 1 on),
-- null if none is; `status` says why, 1 (fenced) or 2 (wrong sequence number), and `number` is the epoch
-- that was claimed last, or the newest number of the id. Event n (from 0 on) has the position `base` + n
-- if its request was not refused. `known` says that the id is known to have come to the expected number:
-- then it is enough to see that it has not come further, which reads the index only. `sure` says that all
-- are known, and that each has events: then nothing is looked up before the insert, for an id that has
-- come further has the next number already, and the insert fails (unique_violation). Only where events
-- were deleted it must be looked whether the next number was there once.
CREATE FUNCTION @schema@.append_2(
    fence_scopes bytea[], fence_epochs bigint[],
    ids bytea[], expected bigint[], fences integer[], known boolean[],
    now_ms bigint,
    event_requests integer[], event_ids bytea[], event_seqs bigint[], slices smallint[],
    kinds integer[], versions integer[], names bytea[], tags text[], payloads bytea[],
    any_tags boolean, sure boolean,
    OUT refused integer[], OUT status smallint[], OUT number bigint[], OUT base bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_nestloop = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    epochs bigint[];
    fenced boolean[];
    any_fenced boolean;
    looked_up boolean;
BEGIN
    PERFORM @schema@.prepare_commit_1();
    PERFORM pg_advisory_xact_lock(@events_lock@);
    SELECT array_agg(e.current ORDER BY e.n), array_agg(e.current <> e.epoch ORDER BY e.n),
        coalesce(bool_or(e.current <> e.epoch), false)
    INTO epochs, fenced, any_fenced
    FROM (
        SELECT f.n, f.epoch, coalesce((SELECT c.epoch FROM @schema@.epochs c WHERE c.scope = f.scope), 0) AS current
        FROM unnest(fence_scopes, fence_epochs) WITH ORDINALITY AS f(scope, epoch, n)
    ) e;
    looked_up := any_fenced OR NOT sure;
    IF NOT looked_up AND EXISTS (SELECT FROM @schema@.deletions) THEN
        SELECT coalesce(bool_or((SELECT d.seq FROM @schema@.deletions d WHERE d.id = q.id AND d.seq > q.expected) IS NOT NULL), false)
        INTO looked_up
        FROM unnest(ids, expected) AS q(id, expected);
    END IF;
    IF looked_up THEN
        SELECT
            array_agg(r.n),
            array_agg((CASE WHEN any_fenced AND fenced[r.fence] THEN 1 ELSE 2 END)::smallint),
            array_agg(CASE WHEN any_fenced AND fenced[r.fence] THEN epochs[r.fence] ELSE r.actual END)
        INTO refused, status, number
        FROM (
            -- Scalar queries, and no EXISTS: that may be planned as a hash of the whole table.
            SELECT q.n::integer AS n, q.expected, q.fence,
                CASE WHEN q.known
                    AND (SELECT e.seq FROM @schema@.events e WHERE e.id = q.id AND e.seq = q.expected + 1) IS NULL
                    AND (SELECT d.seq FROM @schema@.deletions d WHERE d.id = q.id AND d.seq > q.expected) IS NULL
                THEN q.expected
                ELSE coalesce(
                    (SELECT e.seq FROM @schema@.events e WHERE e.id = q.id ORDER BY e.seq DESC LIMIT 1),
                    (SELECT d.seq FROM @schema@.deletions d WHERE d.id = q.id),
                    0)
                END AS actual
            FROM unnest(ids, expected, fences, known) WITH ORDINALITY AS q(id, expected, fence, known, n)
        ) r
        WHERE (any_fenced AND fenced[r.fence]) OR r.actual <> r.expected;
    END IF;
    IF cardinality(event_requests) = 0 OR cardinality(refused) = cardinality(ids) THEN
        base := 0;
        RETURN;
    END IF;
    base := nextval('@schema@.event_positions');
    IF cardinality(event_requests) > 1 THEN
        PERFORM setval('@schema@.event_positions', base + cardinality(event_requests) - 1);
    END IF;
    IF refused IS NULL AND NOT any_tags THEN
        INSERT INTO @schema@.events
            (position, seq, written_at_ms, version, kind, slice, id, name, payload)
        SELECT base + e.n - 1, e.seq, now_ms, e.version, e.kind, e.slice, e.id, e.name, e.payload
        FROM unnest(event_ids, event_seqs, slices, kinds, versions, names, payloads)
            WITH ORDINALITY AS e(id, seq, slice, kind, version, name, payload, n);
        RETURN;
    END IF;
    INSERT INTO @schema@.events
        (position, seq, written_at_ms, version, kind, slice, id, name, tags, payload)
    SELECT base + e.n - 1, e.seq, now_ms, e.version, e.kind, e.slice, e.id, e.name, e.tags::bytea[], e.payload
    FROM unnest(event_requests, event_ids, event_seqs, slices, kinds, versions, names, tags, payloads)
        WITH ORDINALITY AS e(request, id, seq, slice, kind, version, name, tags, payload, n)
    WHERE refused IS NULL OR e.request <> ALL (refused);
    IF any_tags THEN
        INSERT INTO @schema@.event_tags (position, kind, slice, tag)
        SELECT base + e.n - 1, e.kind, e.slice, tag
        FROM unnest(event_requests, slices, kinds, tags)
            WITH ORDINALITY AS e(request, slice, kind, tags, n),
            unnest(e.tags::bytea[]) AS tag
        WHERE refused IS NULL OR e.request <> ALL (refused)
        ON CONFLICT DO NOTHING;
    END IF;
END $$;
