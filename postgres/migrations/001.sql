-- Schema 1 of otava-postgres. `@schema@` is the quoted name of the schema, `@events_lock@` and
-- `@states_lock@` are the keys of its advisory locks. Why it is like this: docs/decisions/010-postgres.md.
-- Ids, kinds, names, tags, scopes and keys are bytea: they may hold any text, also one with zero bytes.

CREATE TABLE @schema@.events (
    position bigint NOT NULL,
    seq bigint NOT NULL,
    written_at_ms bigint NOT NULL,
    version integer NOT NULL,
    kind integer NOT NULL,           -- the CRC-32 of the kind
    slice smallint NOT NULL,
    id bytea NOT NULL,
    name bytea NOT NULL,
    tags bytea[],
    payload bytea NOT NULL,
    -- slice and kind are there so that a query by them does not touch the rows that it passes over
    PRIMARY KEY (position, slice, kind)
);
CREATE UNIQUE INDEX events_of_id ON @schema@.events (id, seq);

CREATE TABLE @schema@.event_tags (
    position bigint NOT NULL,
    kind integer NOT NULL,
    slice smallint NOT NULL,
    tag bytea NOT NULL,
    PRIMARY KEY (tag, position, slice, kind)
);

-- Only nextval and setval under the events lock: a row would grow a chain of dead versions.
CREATE SEQUENCE @schema@.event_positions;
CREATE SEQUENCE @schema@.state_positions;

-- Up to which number the events of an id were deleted.
CREATE TABLE @schema@.deletions (id bytea PRIMARY KEY, seq bigint NOT NULL);

CREATE TABLE @schema@.snapshots (
    seq bigint NOT NULL,
    version integer NOT NULL,
    id bytea NOT NULL,
    name bytea NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (id, seq)
);

CREATE TABLE @schema@.states (
    position bigint NOT NULL,
    revision bigint NOT NULL,
    written_at_ms bigint NOT NULL,
    version integer NOT NULL,
    kind integer NOT NULL,
    slice smallint NOT NULL,
    id bytea PRIMARY KEY,
    name bytea,                      -- null when the state was removed
    tags bytea[],
    payload bytea
);
CREATE UNIQUE INDEX states_by_position ON @schema@.states (position, slice, kind);

CREATE TABLE @schema@.epochs (scope bytea PRIMARY KEY, epoch bigint NOT NULL);
CREATE TABLE @schema@.terms (scope bytea PRIMARY KEY, term bigint NOT NULL);
CREATE TABLE @schema@.offsets (key bytea PRIMARY KEY, position bigint NOT NULL);
-- The slices of projections whose results are in this database: where they are, and whose run has them.
-- The ranges of one projection do not overlap.
CREATE TABLE @schema@.projection_slices (
    position bigint NOT NULL,
    epoch bigint NOT NULL,
    first smallint NOT NULL,
    last smallint NOT NULL,
    name bytea NOT NULL,
    PRIMARY KEY (name, first)
);
CREATE TABLE @schema@.leases (
    name bytea PRIMARY KEY,
    owner bytea NOT NULL,
    until timestamptz NOT NULL,
    term bigint NOT NULL
);

-- For people.
CREATE VIEW @schema@.events_readable AS
SELECT position, encode(id, 'escape') AS id, seq, encode(name, 'escape') AS name, version,
    to_timestamp(written_at_ms / 1000.0) AS written_at,
    (SELECT array_agg(encode(tag, 'escape')) FROM unnest(tags) AS tag) AS tags,
    slice, octet_length(payload) AS payload_bytes
FROM @schema@.events;

-- Begins every function that writes what is fenced. The isolation must give each statement a
-- snapshot of its own, or what is read behind the lock would be older than the lock.
CREATE FUNCTION @schema@.prepare_commit_1() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'otava needs the isolation read committed';
    END IF;
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END $$;

-- Appends the events of many requests. `refused` has the numbers of those that are refused (from 1 on),
-- null if none is; `status` says why, 1 (fenced) or 2 (wrong sequence number), and `number` is the epoch
-- that was claimed last, or the newest number of the id. Event n (from 0 on) has the position `base` + n
-- if its request was not refused. `known` says that the id is known to have come to the expected number:
-- then it is enough to see that it has not come further, which reads the index only.
CREATE FUNCTION @schema@.append_1(
    fence_scopes bytea[], fence_epochs bigint[],
    ids bytea[], expected bigint[], fences integer[], known boolean[],
    now_ms bigint,
    event_requests integer[], event_ids bytea[], event_seqs bigint[], slices smallint[],
    kinds integer[], versions integer[], names bytea[], tags text[], payloads bytea[],
    any_tags boolean,
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

-- Deletes the events of an id up to a number. `status` is 0 (done) or 1 (fenced, then `number` is the epoch).
CREATE FUNCTION @schema@.delete_1(
    of_id bytea, seq_max bigint, fence_scope bytea, fence_epoch bigint,
    OUT status smallint, OUT number bigint)
LANGUAGE plpgsql AS $$
DECLARE
    deleted bigint;
BEGIN
    PERFORM @schema@.prepare_commit_1();
    PERFORM pg_advisory_xact_lock(@events_lock@);
    IF fence_scope IS NOT NULL THEN
        number := coalesce((SELECT e.epoch FROM @schema@.epochs e WHERE e.scope = fence_scope), 0);
        IF number <> fence_epoch THEN
            status := 1;
            RETURN;
        END IF;
    END IF;
    deleted := coalesce((SELECT d.seq FROM @schema@.deletions d WHERE d.id = of_id), 0);
    number := coalesce(
        (SELECT e.seq FROM @schema@.events e WHERE e.id = of_id ORDER BY e.seq DESC LIMIT 1), deleted);
    status := 0;
    IF least(seq_max, number) <= deleted THEN
        RETURN;
    END IF;
    DELETE FROM @schema@.event_tags t USING @schema@.events e, unnest(e.tags) AS of_event
    WHERE e.id = of_id AND e.seq <= seq_max AND e.tags IS NOT NULL
        AND t.tag = of_event AND t.position = e.position;
    DELETE FROM @schema@.events e WHERE e.id = of_id AND e.seq <= seq_max;
    INSERT INTO @schema@.deletions AS d (id, seq) VALUES (of_id, least(seq_max, number))
    ON CONFLICT (id) DO UPDATE SET seq = EXCLUDED.seq;
END $$;

-- Claims an epoch; gives the newest one when it is higher, else the claimed one.
CREATE FUNCTION @schema@.claim_1(of_scope bytea, new_epoch bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    current bigint;
BEGIN
    PERFORM @schema@.prepare_commit_1();
    -- Always in this order. Whoever checks a fence holds one of them until it has committed.
    PERFORM pg_advisory_xact_lock(@events_lock@);
    PERFORM pg_advisory_xact_lock(@states_lock@);
    SELECT e.epoch INTO current FROM @schema@.epochs e WHERE e.scope = of_scope;
    IF current >= new_epoch THEN
        RETURN current;
    END IF;
    INSERT INTO @schema@.epochs (scope, epoch) VALUES (of_scope, new_epoch)
    ON CONFLICT (scope) DO UPDATE SET epoch = EXCLUDED.epoch;
    RETURN new_epoch;
END $$;

CREATE FUNCTION @schema@.next_term_1(of_scope bytea) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    given bigint;
BEGIN
    PERFORM @schema@.prepare_commit_1();
    INSERT INTO @schema@.terms AS t (scope, term) VALUES (of_scope, 1)
    ON CONFLICT (scope) DO UPDATE SET term = t.term + 1
    RETURNING t.term INTO given;
    RETURN given;
END $$;

CREATE FUNCTION @schema@.save_snapshot_1(
    of_id bytea, of_seq bigint, of_name bytea, of_version integer, of_payload bytea, keep bigint)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM @schema@.prepare_commit_1();
    INSERT INTO @schema@.snapshots (seq, version, id, name, payload)
    VALUES (of_seq, of_version, of_id, of_name, of_payload)
    ON CONFLICT (id, seq) DO UPDATE
    SET version = EXCLUDED.version, name = EXCLUDED.name, payload = EXCLUDED.payload;
    DELETE FROM @schema@.snapshots WHERE id = of_id AND seq < (
        SELECT min(seq) FROM (
            SELECT seq FROM @schema@.snapshots WHERE id = of_id ORDER BY seq DESC LIMIT keep) kept);
END $$;

-- Saves the states of many requests, one for an id. `status` has for each request 0 (saved), 1 (fenced) or
-- 2 (wrong revision), `number` the revision before, or the epoch that was claimed last. Request n (from 0 on), if accepted, has the position `base` + n.
CREATE FUNCTION @schema@.save_states_1(
    fence_scopes bytea[], fence_epochs bigint[],
    ids bytea[], expected bigint[], fences integer[],
    now_ms bigint, slices smallint[], kinds integer[], versions integer[], names bytea[], tags text[],
    payloads bytea[],
    OUT status smallint[], OUT number bigint[], OUT base bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_nestloop = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    epochs bigint[];
    fenced boolean[];
BEGIN
    PERFORM @schema@.prepare_commit_1();
    PERFORM pg_advisory_xact_lock(@states_lock@);
    SELECT array_agg(e.current ORDER BY e.n), array_agg(e.current <> e.epoch ORDER BY e.n)
    INTO epochs, fenced
    FROM (
        SELECT f.n, f.epoch, coalesce((SELECT c.epoch FROM @schema@.epochs c WHERE c.scope = f.scope), 0) AS current
        FROM unnest(fence_scopes, fence_epochs) WITH ORDINALITY AS f(scope, epoch, n)
    ) e;
    SELECT
        array_agg(CASE WHEN fenced[r.fence] THEN 1 WHEN r.actual <> r.expected THEN 2 ELSE 0 END ORDER BY r.n),
        array_agg(CASE WHEN fenced[r.fence] THEN epochs[r.fence] ELSE r.actual END ORDER BY r.n)
    INTO status, number
    FROM (
        SELECT q.n, q.expected, q.fence,
            coalesce((SELECT s.revision FROM @schema@.states s WHERE s.id = q.id), 0) AS actual
        FROM unnest(ids, expected, fences) WITH ORDINALITY AS q(id, expected, fence, n)
    ) r;
    IF 0 <> ALL (status) THEN
        base := 0;
        RETURN;
    END IF;
    base := nextval('@schema@.state_positions');
    IF cardinality(ids) > 1 THEN
        PERFORM setval('@schema@.state_positions', base + cardinality(ids) - 1);
    END IF;
    INSERT INTO @schema@.states
        (position, revision, written_at_ms, version, kind, slice, id, name, tags, payload)
    SELECT base + q.n - 1, q.revision + 1, now_ms, q.version, q.kind, q.slice, q.id, q.name, q.tags::bytea[], q.payload
    FROM unnest(expected, ids, slices, kinds, versions, names, tags, payloads)
        WITH ORDINALITY AS q(revision, id, slice, kind, version, name, tags, payload, n)
    WHERE status[q.n] = 0
    ON CONFLICT (id) DO UPDATE SET
        position = EXCLUDED.position, revision = EXCLUDED.revision, written_at_ms = EXCLUDED.written_at_ms,
        version = EXCLUDED.version, name = EXCLUDED.name, tags = EXCLUDED.tags, payload = EXCLUDED.payload;
END $$;
