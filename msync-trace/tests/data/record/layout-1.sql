-- The layout of a record, version 1. docs/record.md explains it to its users.
--
-- Numbers. Times are nanoseconds: mono_ns on the kernel's CLOCK_MONOTONIC of that run, wall_ns since
-- 1970-01-01 UTC. Numbers of 64 bits keep their bits: from 2^63 on (addresses) they are negative here,
-- and printf('%u', x) or printf('0x%x', x) shows them as they were.
-- Ranges. range_start is the first byte, range_end the first byte after; range_end NULL is "to the end
-- of the file", both NULL is "not known which bytes".
-- Names. Any bytes: spelled as in text output (docs/output.md#names), reversibly and without control
-- characters.

-- Read before anything else, by every version: never changes its form.
CREATE TABLE about (
    key TEXT PRIMARY KEY,           -- 'format', 'written_by', 'read_by' (oldest msync-trace that can)
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- A header per run. A run that was killed has no ended_*, no reason, no complete.
CREATE TABLE runs (
    run INTEGER PRIMARY KEY,        -- from 1, in the order in which they were recorded
    version TEXT NOT NULL,          -- of msync-trace
    host TEXT,
    boot_id TEXT,                   -- mono_ns of different boots cannot be compared
    os TEXT NOT NULL,               -- 'Linux', 'FreeBSD'
    kernel TEXT NOT NULL,           -- its release
    machine TEXT NOT NULL,
    pid INTEGER NOT NULL,           -- of msync-trace
    tier TEXT NOT NULL,             -- the best hooks in use: 'fentry', 'kprobe', 'tracepoint', 'dtrace'
    calls TEXT NOT NULL,            -- JSON: the calls that make incidents
    include_async INTEGER NOT NULL, -- 1: msync without MS_SYNC as well
    filters TEXT NOT NULL,          -- JSON: what was shown; the record is not narrowed by them
    command TEXT,                   -- JSON: the command that was traced
    input TEXT,                     -- what was ingested, if the facts were not seen here
    began_ns INTEGER NOT NULL,      -- kernel time
    began_wall_ns INTEGER NOT NULL,
    wall_minus_mono_ns INTEGER NOT NULL, -- at the beginning; later ones are in clock
    first_fact INTEGER NOT NULL,    -- its facts have these numbers, none if last_fact is less
    last_fact INTEGER NOT NULL,
    stored INTEGER NOT NULL,        -- so many things were handed to the record and dealt with
    seen_ns INTEGER NOT NULL,       -- the last sign of life in the record
    seen_wall_ns INTEGER NOT NULL,
    ended_ns INTEGER,
    ended_wall_ns INTEGER,
    reason TEXT,                    -- why it ended: 'signal', 'duration', ...
    complete INTEGER,               -- 1: all was seen (gaps says whether all was stored)
    exit_status INTEGER
) STRICT;

-- The records `start`, `hooks` and `stop` of each run, as `-o json` writes them.
CREATE TABLE run_records (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    mono_ns INTEGER NOT NULL,
    type TEXT NOT NULL,
    record TEXT NOT NULL
) STRICT;
CREATE INDEX run_records_of_run ON run_records (run);

-- Every hook and how it was attached; again, with a later mono_ns, when a module was loaded.
CREATE TABLE hooks (
    run INTEGER NOT NULL,
    mono_ns INTEGER NOT NULL,
    name TEXT NOT NULL,
    purpose TEXT NOT NULL,
    target TEXT NOT NULL,
    state TEXT NOT NULL,
    method TEXT,
    detail TEXT,
    PRIMARY KEY (run, mono_ns, name)
) STRICT, WITHOUT ROWID;

-- Wall time minus kernel time, from since_ns on. Before the first row of a run: as in the first row.
CREATE TABLE clock (
    run INTEGER NOT NULL,
    since_ns INTEGER NOT NULL,
    wall_minus_mono_ns INTEGER NOT NULL,
    PRIMARY KEY (run, since_ns)
) STRICT, WITHOUT ROWID;

-- Each inode once. A device number (fs_kind 'dev') is an identity within one boot of one host only.
CREATE TABLE inodes (
    inode INTEGER PRIMARY KEY,
    fs_kind TEXT NOT NULL,          -- 'uuid', 'dev' (major:minor), 'fsid' (FreeBSD)
    fs TEXT NOT NULL,
    ino INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    subvolume INTEGER NOT NULL,     -- btrfs; 0 elsewhere
    path TEXT,                      -- the last that is known: for people, not an identity
    fs_type TEXT,
    device TEXT,
    UNIQUE (fs_kind, fs, ino, generation, subvolume)
) STRICT;

-- Threads and names of files, as facts have them. Each has the number of the first fact that has it;
-- the same can be there more than once.
CREATE TABLE tasks (
    task INTEGER PRIMARY KEY,
    pid INTEGER NOT NULL,
    start_ns INTEGER NOT NULL,      -- start of the process, kernel time; 0: not known
    tid INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    comm TEXT NOT NULL,
    cgroup_id INTEGER NOT NULL,     -- 0: not known
    kernel_thread INTEGER NOT NULL
) STRICT;
CREATE TABLE file_views (
    file_view INTEGER PRIMARY KEY,
    path TEXT,
    from_root INTEGER NOT NULL,     -- 1: as the caller sees it; 0: from the root of the filesystem
    mount TEXT,
    fs_type TEXT,
    dev TEXT,                       -- major:minor
    device TEXT,
    deleted INTEGER NOT NULL
) STRICT;

CREATE TABLE fact_kinds (kind INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
INSERT INTO fact_kinds VALUES (1, 'write_failed'), (2, 'write_ok'), (3, 'redirtied'),
    (4, 'sync_return'), (5, 'told'), (6, 'opened'), (7, 'discarded'), (8, 'evicted'), (9, 'gone'),
    (10, 'storage_error'), (11, 'lost');
CREATE TABLE calls (call INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
INSERT INTO calls VALUES (1, 'msync'), (2, 'msync_async'), (3, 'fsync'), (4, 'fdatasync'),
    (5, 'io_uring'), (6, 'nfsd');
-- Names of error numbers, filled when the record is made.
CREATE TABLE errnos (
    os TEXT NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (os, number)
) STRICT, WITHOUT ROWID;

-- What the hooks saw, in the order in which it happened. A number that is missing is a fact that was
-- lost (gaps) or is too old (trims).
CREATE TABLE facts (
    fact INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    mono_ns INTEGER NOT NULL,
    kind INTEGER NOT NULL,          -- fact_kinds
    inode INTEGER,                  -- inodes
    range_start INTEGER,            -- sync_return: the bytes that the call was asked for
    range_end INTEGER,
    errno INTEGER,                  -- sync_return: NULL is success
    task INTEGER,                   -- tasks: who called; write_failed: who was running
    file_view INTEGER,              -- file_views
    call INTEGER,                   -- calls
    call_id INTEGER,                -- one for all inodes of one system call
    file_id INTEGER,                -- open file description: the address of the struct file
    flag INTEGER,                   -- write_failed: evictions are watched; sync_return: the kernel
                                    -- holds another error for this description; gone: deleted
    submitted_ns INTEGER,           -- write_failed: the bytes were dirty by then already
    errno_os TEXT,                  -- whose number errno is; NULL: Linux's
    word TEXT,                      -- storage_error: what happened; lost: why
    count INTEGER                   -- lost: how many, at least
) STRICT;
CREATE INDEX facts_of_inode ON facts (inode) WHERE inode IS NOT NULL;

-- Every silent loss, shown or left out by a filter.
CREATE TABLE incidents (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    incident INTEGER NOT NULL,      -- its number within the run
    shown INTEGER NOT NULL,         -- 0: the filters left it out
    mono_ns INTEGER NOT NULL,       -- when the false success was returned
    wall_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,         -- inodes
    errno INTEGER NOT NULL,
    errno_os TEXT,
    bytes INTEGER,                  -- NULL with evidence 'inode'
    evidence TEXT NOT NULL,
    told TEXT NOT NULL,
    coverage TEXT NOT NULL,
    in_memory TEXT NOT NULL,
    call TEXT NOT NULL,
    requested_start INTEGER NOT NULL,
    requested_end INTEGER,
    first_failed_ns INTEGER NOT NULL,
    first_failed_wall_ns INTEGER NOT NULL,
    last_failed_ns INTEGER NOT NULL,
    last_failed_wall_ns INTEGER NOT NULL,
    path TEXT,
    mount TEXT,
    fs_type TEXT,
    device TEXT,
    dev TEXT,
    pid INTEGER NOT NULL,
    tid INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    comm TEXT NOT NULL,
    record TEXT NOT NULL,           -- as `-o json` writes it (docs/schema/v1.json)
    UNIQUE (run, incident)
) STRICT;
CREATE INDEX incidents_of_inode ON incidents (inode);

-- The bytes of each incident; none with evidence 'inode'.
CREATE TABLE incident_ranges (
    run INTEGER NOT NULL,
    incident INTEGER NOT NULL,
    range_start INTEGER NOT NULL,
    range_end INTEGER,
    PRIMARY KEY (run, incident, range_start)
) STRICT, WITHOUT ROWID;

-- What happened to an incident later. `repeated` once a second at most, with the number so far.
CREATE TABLE changes (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    incident INTEGER NOT NULL,
    mono_ns INTEGER NOT NULL,
    wall_ns INTEGER NOT NULL,
    change TEXT NOT NULL,           -- 'repeated', 'recovered', 'discarded', 'evicted'
    repeats INTEGER
) STRICT;
CREATE INDEX changes_of_incident ON changes (run, incident);

-- What could not be seen: from there on the run is incomplete.
CREATE TABLE losses (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    mono_ns INTEGER NOT NULL,
    wall_ns INTEGER NOT NULL,
    cause TEXT NOT NULL,
    count INTEGER NOT NULL
) STRICT;

-- Disks and filesystems in trouble.
CREATE TABLE storage_errors (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    mono_ns INTEGER NOT NULL,
    wall_ns INTEGER NOT NULL,
    what TEXT NOT NULL,
    errno INTEGER,
    errno_os TEXT,
    dev TEXT,
    device TEXT,
    fs_type TEXT,
    mount TEXT,
    read_only INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT;

-- When the record itself could not be written. What did not fit into memory meanwhile is lost.
CREATE TABLE gaps (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    from_wall_ns INTEGER NOT NULL,  -- the first attempt that failed
    to_wall_ns INTEGER NOT NULL,    -- the one that succeeded
    facts INTEGER NOT NULL,         -- so many were lost
    incidents INTEGER NOT NULL,
    others INTEGER NOT NULL,        -- changes, losses, storage errors
    first_fact INTEGER,             -- the numbers between which facts were lost
    last_fact INTEGER,
    error TEXT NOT NULL
) STRICT;

-- What msync-trace said about this record.
CREATE TABLE notes (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    wall_ns INTEGER NOT NULL,
    note TEXT NOT NULL
) STRICT;

-- What was deleted by --keep and --max-size, per run.
CREATE TABLE trims (
    run INTEGER PRIMARY KEY,
    facts INTEGER NOT NULL,
    incidents INTEGER NOT NULL,
    before_ns INTEGER NOT NULL      -- facts and incidents before this kernel time may be missing
) STRICT;

-- Files that are still in trouble, as far as the record knows: what is needed to judge them is kept.
CREATE TABLE troubled (
    inode INTEGER PRIMARY KEY,
    since_fact INTEGER NOT NULL,    -- their first failure that is still outstanding, or earlier
    run INTEGER NOT NULL,           -- when that was
    mono_ns INTEGER NOT NULL
) STRICT;

CREATE VIEW incident_list AS
SELECT i.run, i.incident,
    strftime('%Y-%m-%dT%H:%M:%S', i.wall_ns / 1000000000, 'unixepoch')
        || printf('.%09dZ', i.wall_ns % 1000000000) AS time,
    r.host,
    ifnull(e.name, 'errno ' || i.errno) AS error,
    i.bytes, i.told, i.pid, i.comm, i.path, i.call, i.coverage, i.evidence, i.in_memory,
    strftime('%Y-%m-%dT%H:%M:%S', i.first_failed_wall_ns / 1000000000, 'unixepoch')
        || printf('.%09dZ', i.first_failed_wall_ns % 1000000000) AS failed,
    (SELECT ifnull(max(c.repeats), 0) FROM changes c
        WHERE c.run = i.run AND c.incident = i.incident) AS repeats,
    ifnull((SELECT c.change FROM changes c WHERE c.run = i.run AND c.incident = i.incident
        AND c.change <> 'repeated' ORDER BY c.change = 'evicted', c.id DESC LIMIT 1),
        'outstanding') AS state,
    i.uid, i.tid, i.device, i.fs_type, i.mount, i.inode, i.shown
FROM incidents i JOIN runs r USING (run)
LEFT JOIN errnos e ON e.os = ifnull(i.errno_os, 'Linux') AND e.number = i.errno;

CREATE VIEW files AS
SELECT n.inode, n.path, n.fs_type, n.device, n.fs_kind, n.fs, printf('%u', n.ino) AS ino,
    n.generation, n.subvolume,
    (SELECT count(*) FROM incidents i WHERE i.inode = n.inode) AS incidents,
    (SELECT sum(d.range_end - d.range_start) FROM (
        SELECT DISTINCT g.range_start, g.range_end FROM incidents i
        JOIN incident_ranges g USING (run, incident) WHERE i.inode = n.inode) d) AS bytes,
    (SELECT strftime('%Y-%m-%dT%H:%M:%SZ', min(i.first_failed_wall_ns) / 1000000000, 'unixepoch')
        FROM incidents i WHERE i.inode = n.inode) AS first_failed,
    (SELECT strftime('%Y-%m-%dT%H:%M:%SZ', max(i.wall_ns) / 1000000000, 'unixepoch')
        FROM incidents i WHERE i.inode = n.inode) AS last_incident,
    EXISTS (SELECT 1 FROM troubled t WHERE t.inode = n.inode) AS in_trouble
FROM inodes n;

CREATE VIEW timeline AS
SELECT w.run,
    strftime('%Y-%m-%dT%H:%M:%S', w.wall_ns / 1000000000, 'unixepoch')
        || printf('.%09dZ', w.wall_ns % 1000000000) AS time,
    w.mono_ns, w.inode, n.path, w.what, w.range_start, w.range_end,
    ifnull(e.name, 'errno ' || w.errno) AS error, w.call, w.pid, w.comm, w.incident
FROM (
    SELECT f.run, f.mono_ns,
        f.mono_ns + ifnull((SELECT c.wall_minus_mono_ns FROM clock c
            WHERE c.run = f.run AND c.since_ns <= f.mono_ns ORDER BY c.since_ns DESC LIMIT 1),
            (SELECT r.wall_minus_mono_ns FROM runs r WHERE r.run = f.run)) AS wall_ns,
        f.inode, k.name AS what, f.range_start, f.range_end, f.errno, f.errno_os,
        c.name AS call, t.pid, t.comm, NULL AS incident
    FROM facts f JOIN fact_kinds k USING (kind)
    LEFT JOIN calls c USING (call) LEFT JOIN tasks t USING (task)
    UNION ALL
    SELECT i.run, i.mono_ns, i.wall_ns, i.inode, 'incident', NULL, NULL, i.errno, i.errno_os,
        i.call, i.pid, i.comm, i.incident
    FROM incidents i
    UNION ALL
    SELECT c.run, c.mono_ns, c.wall_ns, i.inode, c.change, NULL, NULL, NULL, NULL,
        NULL, NULL, NULL, c.incident
    FROM changes c JOIN incidents i USING (run, incident)
) w
LEFT JOIN inodes n USING (inode)
LEFT JOIN errnos e ON e.os = ifnull(w.errno_os, 'Linux') AND e.number = w.errno;
