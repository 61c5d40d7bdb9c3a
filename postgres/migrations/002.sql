-- Schema 2: the offsets of projections that store them with their results, a row for each range of
-- slices. Ranges of one name do not overlap. Whoever takes slices replaces the rows, under a lock for
-- the name; whoever commits compares the epoch by which they were taken.
CREATE TABLE @schema@.slice_offsets (
    name bytea NOT NULL,
    epoch bigint NOT NULL,
    position bigint NOT NULL,
    first smallint NOT NULL,
    last smallint NOT NULL,
    PRIMARY KEY (name, first)
);
