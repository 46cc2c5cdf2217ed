#!/usr/sbin/dtrace -s
/*
 * msync-trace.d - finds silent data loss: an msync, fsync or fdatasync that returned 0 over bytes
 * of its file that the kernel had failed to write. For DTrace 2.0.7 and later on Linux.
 *
 * Usage: dtrace -s msync-trace.d           one line for each incident
 *        dtrace -s msync-trace.d facts     the line protocol of docs/dtrace-protocol.md, for
 *                                          msync-trace ingest, which knows every byte range
 *
 * Columns, what it cannot see and what it costs: dtrace/README.md.
 *
 * How it is built: the first clause of each probe fills this->..., then the clauses at the end,
 * which all these probes share, find out which file it is about, and print. As long as no write
 * has failed, `watching` is 0 and they do nothing.
 *
 * D on Linux has neither if nor loops, and arguments of fbt are numbers. A member of a structure
 * that is named here is there in 6.12 and in 7.2; what is not is read at its offset.
 */

#pragma D option quiet
#pragma D option zdefs
#pragma D option defaultargs
#pragma D option strsize=256
#pragma D option bufsize=4m
#pragma D option dynvarsize=8m
#pragma D option switchrate=10hz

/* include/linux/stat.h, sched.h, page-flags.h; asm-generic/mman-common.h. */
inline int S_IFMT = 0170000;
inline int S_IFREG = 0100000;
inline int PF_KTHREAD = 0x200000;
inline int PG_HEAD = 0x40;
inline int MS_SYNC = 4;
/* FALLOC_FL_PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE (include/uapi/linux/falloc.h). */
inline int GIVES_UP = 0x1a;
/* EXT4_IO_END_FAILED (fs/ext4/ext4.h). */
inline int IO_END_FAILED = 2;
/*
 * BTRFS_ORDERED_DIRECT, IOERR, TRUNCATED (fs/btrfs/ordered-data.h): seen in 6.12, and in 7.2, which
 * has them in another order.
 */
inline int DIRECT_6 = 0x10;
inline int IOERR_6 = 0x80;
inline int TRUNCATED_6 = 0x100;
inline int DIRECT_7 = 0x1000;
inline int IOERR_7 = 0x4;
inline int TRUNCATED_7 = 0x8;
/* What is made of them. */
inline int ORDERED_DIRECT = 1;
inline int ORDERED_IOERR = 2;
inline int ORDERED_TRUNCATED = 4;
/* root_key.objectid in struct btrfs_root, whose leading members are packed. */
inline int BTRFS_ROOT_ID = 503;
inline uint64_t BTRFS_MAGIC = 0x9123683e;
inline uint64_t PAGE = 4096;
inline uint64_t STRUCT_PAGE = 64;
inline uint64_t TO_END = 0x7fffffffffffffff;
/* An error that a hook of its filesystem saw is not told a second time within so many ns. */
inline uint64_t SAME_FAILURE = 2000000000;
/* What one bio's end does is done within so many ns. */
inline uint64_t SAME_BIO = 100000000;

inline int FAILED = 1;
inline int WROTE = 2;
inline int DIRTY = 3;
inline int CUT = 4;
inline int EVICTED = 5;
inline int GONE = 6;
inline int SYNC = 7;
inline int TOLD = 8;
inline int OPENED = 9;
/* The error is known and its bytes are not yet: only follow the file. */
inline int FOLLOW = 10;
/* A file that an msync came to. */
inline int ASKED = 12;
/* A sync that succeeded over lost bytes. */
inline int INCIDENT = 11;

/* 1 with the argument `facts`. */
int facts;
/* 1 from the first failure on. */
int watching;
/* Errors of this script: what was seen then is not told. */
int faults;
int faults_said;
/* Files of an msync that were not looked at, because another of them has failures too. */
int skipped;
int skipped_said;
/* Lines of each CPU, which is a stream. */
uint64_t line_of[int];
/* 1 on Linux 7. */
int seven;
/* btrfs: where in struct btrfs_inode the inode is. */
uint64_t btrfs_vfs;

/* Files with failures, by key: 1. */
int known[uint64_t];
/* When a hook that knows the bytes saw a failure of it. */
uint64_t exact_at[uint64_t];
/* For the readable line: one range around all that is lost, the error, since when. */
uint64_t lost_from[uint64_t];
uint64_t lost_to[uint64_t];
uint64_t lost_since[uint64_t];
int lost_errno[uint64_t];
/* When somebody was told; by key and open file, when that was. */
uint64_t told_any[uint64_t];
uint64_t told_file[uint64_t];
/* By key and process: the failure it was reported for. */
uint64_t said[uint64_t];

/* The call that a thread is in: 1 msync, 2 fsync, 3 fdatasync, 4 fallocate; file and range. */
self int call;
self uint64_t file;
self uint64_t from;
self uint64_t to;
/* msync: the file has failures. */
self int kept;
/* ext4: folios of this mapping whose write-back ends now are in a bio of this outcome. */
self uint64_t walk_mapping;
self uint64_t walk_from;
self uint64_t walk_to;
self int walk_errno;
/* ext4: an inode of whose extents none will be converted. */
self uint64_t unconverted;

this struct inode *i;
this struct super_block *sb;
this struct address_space *m;
this struct bio *bio;
this struct bio_vec *v;
this struct bio_vec *w;
this struct folio *folio;
this struct iomap_ioend *ioend;
this struct file *f;
this struct dentry *d;
this struct dentry *p;
this struct mount *mt;
this int what;
this int errno;
this int call;
this int pending;
this int n;
this uint64_t from;
this uint64_t to;
this uint64_t file;
this uint64_t page;
this uint64_t info;
this uint64_t head;
this uint64_t last;
this uint64_t flags;
this uint64_t *uuid;
this uint64_t subvol;
this uint64_t key;
this uint64_t now;
this uint64_t lo;
this uint64_t hi;
this uint64_t seen;
this string path;
this string mnt;
this string w_told;
this string w_cover;

dtrace:::BEGIN
{
	facts = $$1 == "facts" ? 1 : 0;
	seven = stringof(((struct uts_namespace *)&`init_uts_ns)->name.release) >= "7" ? 1 : 0;
	watching = 0;
	faults = 0;
	faults_said = 0;
	skipped = 0;
	skipped_said = 0;
	btrfs_vfs = 0;
}

dtrace:::BEGIN
/facts != 0/
{
	line_of[cpu]++;
	@lines[cpu] = count();
	printf("mst1\t%d\t%d\t%d\tstart\tos=Linux\trelease=%S\tscript=1\tpage=4096\twall_ns=%d\twindow_ns=2000000000\t.\n",
	    cpu, line_of[cpu], timestamp,
	    stringof(((struct uts_namespace *)&`init_uts_ns)->name.release), walltimestamp);
}

dtrace:::BEGIN
/facts == 0/
{
	printf("%-20s %6s %-18s %-9s %-9s %-7s %-7s %-7s %12s %10s %10s %s %s\n", "TIME", "PID",
	    "COMM", "CALL", "ERR", "STATE", "TOLD", "COVER", "OFFSET", "LENGTH", "INODE", "DEVICE",
	    "FILE");
}

profile:::tick-1s
/facts != 0/
{
	line_of[cpu]++;
	@lines[cpu] = count();
	printf("mst1\t%d\t%d\t%d\ttick\t.\n", cpu, line_of[cpu], timestamp);
}

/* There is no room on the stack for more: the next tick or the end says it. */
dtrace:::ERROR
{
	faults++;
}

profile:::tick-1s,
dtrace:::END
/facts != 0 && faults != faults_said/
{
	line_of[cpu]++;
	@lines[cpu] = count();
	printf("mst1\t%d\t%d\t%d\tlost\tcause=probe_error\tcount=%d\t.\n", cpu, line_of[cpu],
	    timestamp, faults - faults_said);
	faults_said = faults;
}

profile:::tick-1s,
dtrace:::END
/facts != 0 && skipped != skipped_said/
{
	line_of[cpu]++;
	@lines[cpu] = count();
	printf("mst1\t%d\t%d\t%d\tlost\tcause=walk_limit\tcount=%d\t.\n", cpu, line_of[cpu],
	    timestamp, skipped - skipped_said);
	skipped_said = skipped;
}

dtrace:::END
/facts != 0/
{
	printa("mst1\t-\t0\t0\tlines\tstream=%d\tcount=%@d\t.\n", @lines);
	printf("mst1\t-\t0\t%d\tstop\t.\n", timestamp);
}

dtrace:::END
/facts == 0/
{
	printf("%s\n", faults != 0 || skipped != 0 ?
	    "incomplete: an error in this script hid something, see standard error" :
	    "no error in this script; drops are said on standard error");
}

/* ---- ext4 ------------------------------------------------------------------------------------ */

/*
 * ext4_end_bio(struct bio *bio), all kernels: comes before the error is recorded. Here it is only
 * noted that the bytes will be known.
 */
fbt::ext4_end_bio:entry
{
	this->i = NULL;
	this->what = 0;
	this->bio = (struct bio *)arg0;
}

fbt::ext4_end_bio:entry
/this->bio->bi_status != 0/
{
	this->page = (uint64_t)this->bio->bi_io_vec->bv_page;
	this->info = *(uint64_t *)(this->page + 8);
	this->head = (this->info & 1) == 0 ? this->page :
	    (int64_t)this->info > -(1 << 40) ? this->page & this->info & ~1 : this->info - 1;
	this->m = ((struct folio *)this->head)->mapping;
	this->i = this->m != NULL ? this->m->host : NULL;
	this->what = FOLLOW;
}

/*
 * ext4_finish_bio(struct bio *bio), all kernels: before write-back of its pages ends.
 * The bytes are those from the first segment to the last, if the segments have no gap between
 * them in the file. Otherwise, or if there are too many to count, each folio is looked at when
 * its write-back ends.
 */
fbt::ext4_finish_bio:entry
{
	this->i = NULL;
	this->what = 0;
	this->bio = (struct bio *)arg0;
}

fbt::ext4_finish_bio:entry
/(watching != 0 || this->bio->bi_status != 0) && this->bio->bi_vcnt > 0/
{
	this->v = this->bio->bi_io_vec;
	this->page = (uint64_t)this->v->bv_page + this->v->bv_offset / PAGE * STRUCT_PAGE;
	this->info = *(uint64_t *)(this->page + 8);
	this->head = (this->info & 1) == 0 ? this->page :
	    (int64_t)this->info > -(1 << 40) ? this->page & this->info & ~1 : this->info - 1;
	this->folio = (struct folio *)this->head;
	this->m = this->folio->mapping;
	this->from = (this->folio->index + (this->page - this->head) / STRUCT_PAGE) * PAGE;
	this->w = this->v + (this->bio->bi_vcnt - 1);
	this->page = (uint64_t)this->w->bv_page +
	    (this->w->bv_offset + this->w->bv_len - 1) / PAGE * STRUCT_PAGE;
	this->info = *(uint64_t *)(this->page + 8);
	this->head = (this->info & 1) == 0 ? this->page :
	    (int64_t)this->info > -(1 << 40) ? this->page & this->info & ~1 : this->info - 1;
	this->folio = (struct folio *)this->head;
	this->to = (this->folio->index + (this->page - this->head) / STRUCT_PAGE + 1) * PAGE;
	this->last = this->folio->index * PAGE;
	this->i = this->m != NULL ? this->m->host : NULL;
	this->what = this->bio->bi_status != 0 ? FAILED :
	    self->unconverted != 0 && self->unconverted == (uint64_t)this->i ? 0 : WROTE;
	this->errno = this->bio->bi_status != 0 && this->m != NULL ? this->m->wb_err & 0xfff : 0;
	this->n = this->bio->bi_vcnt;
	this->page = this->v[0].bv_len +
	    (this->n > 1 ? this->v[1].bv_len : 0) +
	    (this->n > 2 ? this->v[2].bv_len : 0) +
	    (this->n > 3 ? this->v[3].bv_len : 0) +
	    (this->n > 4 ? this->v[4].bv_len : 0) +
	    (this->n > 5 ? this->v[5].bv_len : 0) +
	    (this->n > 6 ? this->v[6].bv_len : 0) +
	    (this->n > 7 ? this->v[7].bv_len : 0);
	self->walk_mapping = 0;
	self->walk_from = 0;
	self->walk_to = 0;
	self->walk_errno = 0;
}

fbt::ext4_finish_bio:entry
/this->i != NULL && (this->page + PAGE - 1) / PAGE * PAGE != this->to - this->from/
{
	self->walk_mapping = (uint64_t)this->m;
	self->walk_errno = this->errno;
	self->walk_from = this->from;
	self->walk_to = this->to;
	this->from = this->last > this->from ? this->last : this->from;
}

/*
 * ext4_end_io_end(ext4_io_end_t *io_end), 6.18 and later: blocks that were never written before.
 * If one of its writes failed, none of its extents will be converted, and all of it reads as zeros.
 * Members of struct ext4_io_end and ext4_io_end_vec are read at their offsets, which are the same
 * from 6.12 to 7.2: a machine without ext4 does not know their names.
 */
fbt::ext4_end_io_end:entry
{
	this->flags = *(uint32_t *)(arg0 + 40);
	this->i = (this->flags & IO_END_FAILED) != 0 ? *(struct inode **)(arg0 + 24) : NULL;
	this->what = FAILED;
	this->errno = this->i != NULL ? this->i->i_mapping->wb_err & 0xfff : 0;
	self->unconverted = (uint64_t)this->i;
	this->head = *(uint64_t *)(arg0 + 48);
	this->from = *(uint64_t *)(this->head + 16) / PAGE * PAGE;
	this->last = *(uint64_t *)(arg0 + 56);
	this->to = (*(uint64_t *)(this->last + 16) + *(uint64_t *)(this->last + 24) + PAGE - 1) /
	    PAGE * PAGE;
	this->what = this->head != arg0 + 48 && this->from < this->to && this->errno != 0 ? FAILED : 0;
}

fbt::ext4_end_io_end:return
/self->unconverted != 0/
{
	self->unconverted = 0;
}

/* folio_end_writeback(struct folio *folio), all kernels. */
fbt::folio_end_writeback:entry
{
	this->i = NULL;
	this->what = 0;
}

fbt::folio_end_writeback:entry
/watching != 0 && self->walk_mapping != 0/
{
	this->folio = (struct folio *)arg0;
	this->m = this->folio->mapping;
	this->from = this->folio->index * PAGE;
	this->to = this->from + PAGE * ((*(uint64_t *)arg0 & PG_HEAD) == 0 ? 1 :
	    1 << (*(uint64_t *)(arg0 + STRUCT_PAGE) & 0xff));
	this->from = this->from < self->walk_from ? self->walk_from : this->from;
	this->to = this->to > self->walk_to ? self->walk_to : this->to;
	this->i = (uint64_t)this->m == self->walk_mapping && this->from < this->to ?
	    this->m->host : NULL;
	this->errno = self->walk_errno;
	this->what = this->errno != 0 ? FAILED : WROTE;
}

/* ---- XFS and all others that write through iomap ----------------------------------------------- */

/*
 * iomap_finish_ioend(struct iomap_ioend *ioend, int error) up to 6.12, later
 * iomap_finish_ioend_buffered (6.18) or iomap_finish_ioend_buffered_write (7.2), whose error is
 * ioend->io_error, twelve bytes after io_size; older kernels have no such member. In 7.2
 * iomap_finish_ioend only counts the parts of an ioend, so there it must not be believed.
 */
fbt::iomap_finish_ioend:entry
{
	this->errno = -(int)arg1;
}

fbt::iomap_finish_ioend_buffered:entry,
fbt::iomap_finish_ioend_buffered_write:entry
{
	this->errno = -*(int *)(arg0 + offsetof(struct iomap_ioend, io_size) + 12);
}

fbt::iomap_finish_ioend:entry,
fbt::iomap_finish_ioend_buffered:entry,
fbt::iomap_finish_ioend_buffered_write:entry
{
	this->ioend = (struct iomap_ioend *)arg0;
	this->i = (watching != 0 || this->errno != 0) ? this->ioend->io_inode : NULL;
	this->what = this->errno != 0 ? FAILED : WROTE;
	this->from = this->ioend->io_offset / PAGE * PAGE;
	this->to = (this->ioend->io_offset + this->ioend->io_size + PAGE - 1) / PAGE * PAGE;
}

/* ---- btrfs ----------------------------------------------------------------------------------- */

/*
 * btrfs_finish_ordered_extent(const struct btrfs_inode *inode, u64 start, u64 len, bool uptodate),
 * 6.12 and later: a bio ended. btrfs_ordered_extent_remove(const struct btrfs_inode *inode, const
 * struct btrfs_ordered_extent *ordered), all kernels: what counts, for one bad block loses the
 * whole extent; it comes a little later, from a worker. The extent begins with file_offset and
 * num_bytes; truncated_len and flags are at 56 and 64 from 6.12 to 7.2.
 *
 * Where the inode is in struct btrfs_inode differs, and is found once; there i_mapping points to i_data beside it.
 */
rawtp:::btrfs_finish_ordered_extent
{
	this->flags = (arg3 & 0xff) == 0 ? ORDERED_IOERR : 0;
	this->i = NULL;
	this->what = 0;
}

rawtp:::btrfs_ordered_extent_remove
{
	this->info = *(uint64_t *)(arg1 + 64);
	this->flags =
	    ((this->info & (seven != 0 ? DIRECT_7 : DIRECT_6)) != 0 ? ORDERED_DIRECT : 0) |
	    ((this->info & (seven != 0 ? IOERR_7 : IOERR_6)) != 0 ? ORDERED_IOERR : 0) |
	    ((this->info & (seven != 0 ? TRUNCATED_7 : TRUNCATED_6)) != 0 ? ORDERED_TRUNCATED : 0);
	this->i = NULL;
	this->what = 0;
}

rawtp:::btrfs_finish_ordered_extent,
rawtp:::btrfs_ordered_extent_remove
/btrfs_vfs == 0/
{
	this->head = arg0 + offsetof(struct inode, i_mapping);
	this->last = arg0 + offsetof(struct inode, i_data);
	btrfs_vfs =
	    *(uint64_t *)(this->head + 328) == this->last + 328 ? 328 :
	    *(uint64_t *)(this->head + 336) == this->last + 336 ? 336 :
	    *(uint64_t *)(this->head + 344) == this->last + 344 ? 344 :
	    *(uint64_t *)(this->head + 352) == this->last + 352 ? 352 :
	    *(uint64_t *)(this->head + 360) == this->last + 360 ? 360 :
	    *(uint64_t *)(this->head + 368) == this->last + 368 ? 368 :
	    *(uint64_t *)(this->head + 376) == this->last + 376 ? 376 :
	    *(uint64_t *)(this->head + 384) == this->last + 384 ? 384 :
	    *(uint64_t *)(this->head + 392) == this->last + 392 ? 392 :
	    *(uint64_t *)(this->head + 400) == this->last + 400 ? 400 :
	    *(uint64_t *)(this->head + 408) == this->last + 408 ? 408 :
	    *(uint64_t *)(this->head + 416) == this->last + 416 ? 416 :
	    *(uint64_t *)(this->head + 424) == this->last + 424 ? 424 :
	    *(uint64_t *)(this->head + 432) == this->last + 432 ? 432 :
	    *(uint64_t *)(this->head + 440) == this->last + 440 ? 440 : 0;
}

rawtp:::btrfs_finish_ordered_extent,
rawtp:::btrfs_ordered_extent_remove
/btrfs_vfs != 0 && (watching != 0 || (this->flags & ORDERED_IOERR) != 0)/
{
	this->i = (struct inode *)(arg0 + btrfs_vfs);
	this->errno = this->i->i_mapping->wb_err & 0xfff;
	this->errno = this->errno != 0 ? this->errno : 5;
	this->what = (this->flags & (ORDERED_IOERR | ORDERED_DIRECT)) == ORDERED_IOERR ? FAILED :
	    (this->flags & ORDERED_IOERR) != 0 ? 0 : WROTE;
	this->errno = this->what == FAILED ? this->errno : 0;
}

rawtp:::btrfs_finish_ordered_extent
/this->i != NULL/
{
	this->what = this->what == FAILED ? FOLLOW : 0;
}

rawtp:::btrfs_ordered_extent_remove
/this->i != NULL/
{
	this->from = *(uint64_t *)arg1;
	this->to = *(uint64_t *)(arg1 + 8);
	this->to = (this->flags & ORDERED_TRUNCATED) != 0 && *(uint64_t *)(arg1 + 56) < this->to ?
	    *(uint64_t *)(arg1 + 56) : this->to;
	this->what = this->to == 0 ? 0 : this->what;
	this->to = (this->from + this->to + PAGE - 1) / PAGE * PAGE;
	this->from = this->from / PAGE * PAGE;
}

/* ---- every filesystem ------------------------------------------------------------------------ */

/*
 * __filemap_set_wb_err(struct address_space *mapping, int err), all kernels: an error is recorded.
 * If no hook above has seen it, it is not known which bytes it is about.
 */
fbt::__filemap_set_wb_err:entry
{
	this->i = ((struct address_space *)arg0)->host;
	/* btrfs: comes before those who wait are told, and its bytes are known later. */
	this->what = this->i->i_sb->s_magic != BTRFS_MAGIC ? FAILED : btrfs_vfs != 0 ? FOLLOW : 0;
	this->errno = -(int)arg1;
	this->from = 0;
	this->to = 0;
}

/* A file is told of an error; only if there is something new to tell. */
rawtp:::file_check_and_advance_wb_err
{
	this->f = (struct file *)arg0;
	this->i = watching != 0 ? this->f->f_mapping->host : NULL;
	this->what = TOLD;
	this->errno = this->f->f_wb_err & 0xfff;
	this->file = (uint64_t)this->f;
	this->from = 0;
	this->to = 0;
}

/* security_file_open(struct file *file), all kernels: the file has its inode and its errseq. */
fbt::security_file_open:entry
{
	this->i = watching != 0 ? ((struct file *)arg0)->f_mapping->host : NULL;
	this->what = OPENED;
	this->errno = 0;
	this->file = arg0;
	this->from = 0;
	this->to = 0;
}

/*
 * truncate_inode_pages_range(struct address_space *mapping, loff_t lstart, loff_t lend), all
 * kernels: truncated, a hole punched, deleted. An inode that only leaves memory (nobody has it, and
 * it has a name) loses nothing by it.
 */
fbt::truncate_inode_pages_range:entry
{
	this->i = watching != 0 ? ((struct address_space *)arg0)->host : NULL;
	this->what = this->i != NULL && (this->i->i_count.counter != 0 || this->i->i_nlink == 0) ?
	    CUT : 0;
	this->errno = 0;
	this->from = (arg1 + PAGE - 1) / PAGE * PAGE;
	this->to = (int64_t)arg2 < 0 || arg2 >= TO_END ? TO_END : (arg2 + 1) / PAGE * PAGE;
	this->what = this->from < this->to ? this->what : 0;
}

/* A folio leaves the page cache, or becomes dirty: the first argument is the folio. */
rawtp:::mm_filemap_delete_from_page_cache
{
	this->what = EVICTED;
}

rawtp:::writeback_dirty_folio
{
	this->what = DIRTY;
}

rawtp:::mm_filemap_delete_from_page_cache,
rawtp:::writeback_dirty_folio
{
	this->folio = (struct folio *)arg0;
	this->m = watching != 0 ? this->folio->mapping : NULL;
	this->i = this->m != NULL && ((uint64_t)this->m & 3) == 0 ? this->m->host : NULL;
}

rawtp:::mm_filemap_delete_from_page_cache,
rawtp:::writeback_dirty_folio
/this->i != NULL/
{
	this->from = this->folio->index * PAGE;
	this->to = this->from + PAGE * ((*(uint64_t *)arg0 & PG_HEAD) == 0 ? 1 :
	    1 << (*(uint64_t *)(arg0 + STRUCT_PAGE) & 0xff));
	this->what = this->what == EVICTED && this->from >= this->i->i_size ? CUT : this->what;
}

/* evict(struct inode *inode), all kernels. */
fbt::evict:entry
{
	this->i = watching != 0 ? (struct inode *)arg0 : NULL;
	this->what = GONE;
	this->errno = 0;
	this->from = 0;
	this->to = 0;
}

/* ---- sync calls ------------------------------------------------------------------------------ */

/*
 * __x64_sys_NAME(const struct pt_regs *regs), all kernels on x86_64: arguments are in di, si, dx, r10;
 * what is returned is the error, negative. Not the syscall provider: its probes are perf events, which
 * the kernel skips on a processor where a thread was preempted in a call of bpf(2) on a map
 * (bpf_disable_instrumentation), and dtrace makes many of those.
 */
fbt::__x64_sys_msync:entry
/((struct pt_regs *)arg0)->dx & MS_SYNC/
{
	self->call = 1;
	/* If the kernel skipped the probe at the end of the last call, its file is still there. */
	self->kept = 0;
	self->file = 0;
}

/*
 * vfs_fsync_range(struct file *file, loff_t start, loff_t end, int datasync), all kernels: once for
 * each mapping in the range of an msync. The result comes at its end only, and there is one place to
 * remember a file until then: it is for one that has failures, if there is one.
 */
fbt::vfs_fsync_range:entry
{
	this->f = (struct file *)arg0;
	this->i = watching != 0 && self->call == 1 ? this->f->f_mapping->host : NULL;
	this->what = ASKED;
}

fbt::__x64_sys_fsync:entry
{
	self->call = 2;
	self->file = (uint64_t)curthread->files->fdt->fd[((struct pt_regs *)arg0)->di];
	self->from = 0;
	self->to = TO_END;
}

fbt::__x64_sys_fdatasync:entry
{
	self->call = 3;
	self->file = (uint64_t)curthread->files->fdt->fd[((struct pt_regs *)arg0)->di];
	self->from = 0;
	self->to = TO_END;
}

fbt::__x64_sys_fallocate:entry
/watching != 0 && (((struct pt_regs *)arg0)->si & GIVES_UP) != 0/
{
	self->call = 4;
	self->file = (uint64_t)curthread->files->fdt->fd[((struct pt_regs *)arg0)->di];
	self->from = (((struct pt_regs *)arg0)->dx + PAGE - 1) / PAGE * PAGE;
	self->to = (((struct pt_regs *)arg0)->dx + ((struct pt_regs *)arg0)->r10) / PAGE * PAGE;
}

fbt::__x64_sys_fallocate:return,
fbt::__x64_sys_msync:return,
fbt::__x64_sys_fsync:return,
fbt::__x64_sys_fdatasync:return
{
	this->f = (struct file *)self->file;
	this->i = watching && this->f != NULL ? this->f->f_mapping->host : NULL;
	this->what = self->call == 0 ? 0 : SYNC;
	this->call = self->call;
	this->file = self->file;
	this->from = self->from;
	this->to = self->to;
	this->errno = (int)arg1 < 0 ? -(int)arg1 : 0;
	this->pending = this->i != NULL && this->f->f_wb_err != this->f->f_mapping->wb_err ? 1 : 0;
}

/* btrfs finds no page to cut where a failed write has left a hole. */
fbt::__x64_sys_fallocate:return
{
	this->what = this->what != 0 && this->errno == 0 && this->from < this->to ? CUT : 0;
}

fbt::__x64_sys_fallocate:return,
fbt::__x64_sys_msync:return,
fbt::__x64_sys_fsync:return,
fbt::__x64_sys_fdatasync:return
/self->call != 0/
{
	self->call = 0;
	self->kept = 0;
	self->file = 0;
	self->from = 0;
	self->to = 0;
}


/* ---- which file ------------------------------------------------------------------------------ */

fbt::ext4_end_bio:entry,
rawtp:::btrfs_finish_ordered_extent,
fbt::ext4_finish_bio:entry,
fbt::ext4_end_io_end:entry,
fbt::folio_end_writeback:entry,
fbt::iomap_finish_ioend:entry,
fbt::iomap_finish_ioend_buffered:entry,
fbt::iomap_finish_ioend_buffered_write:entry,
rawtp:::btrfs_ordered_extent_remove,
fbt::__filemap_set_wb_err:entry,
rawtp:::mm_filemap_delete_from_page_cache,
rawtp:::writeback_dirty_folio,
fbt::truncate_inode_pages_range:entry,
fbt::__x64_sys_fallocate:return,
fbt::evict:entry,
fbt::vfs_fsync_range:entry,
fbt::__x64_sys_msync:return,
fbt::__x64_sys_fsync:return,
fbt::__x64_sys_fdatasync:return,
rawtp:::file_check_and_advance_wb_err,
fbt::security_file_open:entry
/this->i != NULL && this->what != 0/
{
	this->sb = this->i->i_sb;
	this->uuid = (uint64_t *)&this->sb->s_uuid;
	this->subvol = btrfs_vfs != 0 && this->sb->s_magic == BTRFS_MAGIC ?
	    *(uint64_t *)(*(uint64_t *)((uint64_t)this->i - btrfs_vfs) + BTRFS_ROOT_ID) : 0;
	this->key = this->uuid[0] ^ this->uuid[1] ^
	    ((this->uuid[0] | this->uuid[1]) != 0 ? 0 : this->sb->s_dev) ^
	    this->subvol * 0x165667b19e3779f9 ^ this->i->i_ino * 0x9e3779b97f4a7c15 ^
	    this->i->i_generation * 0xc2b2ae3d27d4eb4f;
	this->now = timestamp;
	this->what = (this->i->i_mode & S_IFMT) != S_IFREG ? 0 :
	    this->what == FAILED || this->what == FOLLOW || known[this->key] != 0 ? this->what : 0;
}

fbt::vfs_fsync_range:entry
/self->call == 1 && (self->kept == 0 || (this->i != NULL && this->what != 0))/
{
	this->n = arg0 == self->file && arg1 == self->to ? 1 : 0;
	skipped = self->kept != 0 && this->n == 0 ? skipped + 1 : skipped;
	self->kept = this->i != NULL && this->what != 0 ? 1 : 0;
	self->from = this->n != 0 ? self->from : arg1;
	self->to = arg2 + 1;
	self->file = arg0;
}

/* An error whose bytes another hook knows is not told again. */
fbt::__filemap_set_wb_err:entry
/this->what == FAILED && this->now - exact_at[this->key] < SAME_FAILURE/
{
	this->what = 0;
}

/* From here on the file is followed. */
fbt::ext4_end_bio:entry,
rawtp:::btrfs_finish_ordered_extent,
fbt::ext4_finish_bio:entry,
fbt::ext4_end_io_end:entry,
fbt::folio_end_writeback:entry,
fbt::iomap_finish_ioend:entry,
fbt::iomap_finish_ioend_buffered:entry,
fbt::iomap_finish_ioend_buffered_write:entry,
rawtp:::btrfs_ordered_extent_remove,
fbt::__filemap_set_wb_err:entry
/this->i != NULL && (this->what == FAILED || this->what == FOLLOW)/
{
	watching = 1;
	known[this->key] = 1;
}

fbt::ext4_end_bio:entry,
rawtp:::btrfs_finish_ordered_extent,
fbt::ext4_finish_bio:entry,
fbt::ext4_end_io_end:entry,
fbt::folio_end_writeback:entry,
fbt::iomap_finish_ioend:entry,
fbt::iomap_finish_ioend_buffered:entry,
fbt::iomap_finish_ioend_buffered_write:entry,
fbt::__filemap_set_wb_err:entry
/this->i != NULL && (this->what == FOLLOW || (this->what == FAILED && this->to != 0))/
{
	exact_at[this->key] = this->what == FOLLOW && this->now - exact_at[this->key] < SAME_BIO ?
	    exact_at[this->key] : this->now;
}

/* btrfs: the bytes failed when their bio did, before anybody was told. */
rawtp:::btrfs_ordered_extent_remove
/this->i != NULL && this->what == FAILED && this->now - exact_at[this->key] < SAME_FAILURE/
{
	this->now = exact_at[this->key];
}

/*
 * The path below the root of the filesystem, of six names at most; d_alias comes after d_sib. Only
 * for failures and syncs: each name costs the kernel's verifier time when the script starts.
 */
fbt::ext4_finish_bio:entry,
fbt::ext4_end_io_end:entry,
fbt::folio_end_writeback:entry,
fbt::iomap_finish_ioend:entry,
fbt::iomap_finish_ioend_buffered:entry,
fbt::iomap_finish_ioend_buffered_write:entry,
rawtp:::btrfs_ordered_extent_remove,
fbt::__filemap_set_wb_err:entry,
fbt::__x64_sys_msync:return,
fbt::__x64_sys_fsync:return,
fbt::__x64_sys_fdatasync:return
/this->i != NULL && (this->what == FAILED || this->what == SYNC)/
{
	this->d = this->i->i_dentry.first == NULL ? NULL : (struct dentry *)
	    ((uint64_t)this->i->i_dentry.first - offsetof(struct dentry, d_sib) - 24);
	this->path = this->d == NULL ? "" : strjoin("/", stringof(this->d->d_name.name));
	this->p = this->d == NULL ? NULL : this->d->d_parent;
	this->path = this->p == NULL || this->p->d_parent == this->p ? this->path :
	    strjoin("/", strjoin(stringof(this->p->d_name.name), this->path));
	this->p = this->p == NULL ? NULL : this->p->d_parent;
	this->path = this->p == NULL || this->p->d_parent == this->p ? this->path :
	    strjoin("/", strjoin(stringof(this->p->d_name.name), this->path));
	this->p = this->p == NULL ? NULL : this->p->d_parent;
	this->path = this->p == NULL || this->p->d_parent == this->p ? this->path :
	    strjoin("/", strjoin(stringof(this->p->d_name.name), this->path));
	this->p = this->p == NULL ? NULL : this->p->d_parent;
	this->path = this->p == NULL || this->p->d_parent == this->p ? this->path :
	    strjoin("/", strjoin(stringof(this->p->d_name.name), this->path));
	this->p = this->p == NULL ? NULL : this->p->d_parent;
	this->path = this->p == NULL || this->p->d_parent == this->p ? this->path :
	    strjoin("/", strjoin(stringof(this->p->d_name.name), this->path));
}

/*
 * Where it is mounted: from the mount point up, over the mount points of the mounts above. Eight steps
 * at most; unknown if they are not enough, or if only a part of the filesystem is mounted there.
 */
fbt::__x64_sys_msync:return,
fbt::__x64_sys_fsync:return,
fbt::__x64_sys_fdatasync:return
/this->i != NULL && this->what == SYNC/
{
	this->mt = (struct mount *)((uint64_t)this->f->f_path.mnt - offsetof(struct mount, mnt));
	this->n = this->mt->mnt.mnt_root == this->sb->s_root ? 0 : 2;
	this->d = this->mt->mnt_mountpoint;
	this->mt = this->mt->mnt_parent;
	this->mnt = "";
	this->n = this->d != this->mt->mnt.mnt_root || this->n == 2 ? this->n :
	    this->mt->mnt_parent == this->mt ? 2 : 1;
	this->mnt = this->n == 0 ? strjoin("/", strjoin(stringof(this->d->d_name.name), this->mnt)) :
	    this->mnt;
	this->d = this->n == 0 ? this->d->d_parent : this->n == 1 ? this->mt->mnt_mountpoint : this->d;
	this->mt = this->n == 1 ? this->mt->mnt_parent : this->mt;
	this->n = this->n == 1 ? 0 : this->n;
	this->n = this->d != this->mt->mnt.mnt_root || this->n == 2 ? this->n :
	    this->mt->mnt_parent == this->mt ? 2 : 1;
	this->mnt = this->n == 0 ? strjoin("/", strjoin(stringof(this->d->d_name.name), this->mnt)) :
	    this->mnt;
	this->d = this->n == 0 ? this->d->d_parent : this->n == 1 ? this->mt->mnt_mountpoint : this->d;
	this->mt = this->n == 1 ? this->mt->mnt_parent : this->mt;
	this->n = this->n == 1 ? 0 : this->n;
	this->n = this->d != this->mt->mnt.mnt_root || this->n == 2 ? this->n :
	    this->mt->mnt_parent == this->mt ? 2 : 1;
	this->mnt = this->n == 0 ? strjoin("/", strjoin(stringof(this->d->d_name.name), this->mnt)) :
	    this->mnt;
	this->d = this->n == 0 ? this->d->d_parent : this->n == 1 ? this->mt->mnt_mountpoint : this->d;
	this->mt = this->n == 1 ? this->mt->mnt_parent : this->mt;
	this->n = this->n == 1 ? 0 : this->n;
	this->n = this->d != this->mt->mnt.mnt_root || this->n == 2 ? this->n :
	    this->mt->mnt_parent == this->mt ? 2 : 1;
	this->mnt = this->n == 0 ? strjoin("/", strjoin(stringof(this->d->d_name.name), this->mnt)) :
	    this->mnt;
	this->d = this->n == 0 ? this->d->d_parent : this->n == 1 ? this->mt->mnt_mountpoint : this->d;
	this->mt = this->n == 1 ? this->mt->mnt_parent : this->mt;
	this->n = this->n == 1 ? 0 : this->n;
	this->n = this->d != this->mt->mnt.mnt_root || this->n == 2 ? this->n :
	    this->mt->mnt_parent == this->mt ? 2 : 1;
	this->mnt = this->n == 0 ? strjoin("/", strjoin(stringof(this->d->d_name.name), this->mnt)) :
	    this->mnt;
	this->d = this->n == 0 ? this->d->d_parent : this->n == 1 ? this->mt->mnt_mountpoint : this->d;
	this->mt = this->n == 1 ? this->mt->mnt_parent : this->mt;
	this->n = this->n == 1 ? 0 : this->n;
	this->n = this->d != this->mt->mnt.mnt_root || this->n == 2 ? this->n :
	    this->mt->mnt_parent == this->mt ? 2 : 1;
	this->mnt = this->n == 0 ? strjoin("/", strjoin(stringof(this->d->d_name.name), this->mnt)) :
	    this->mnt;
	this->d = this->n == 0 ? this->d->d_parent : this->n == 1 ? this->mt->mnt_mountpoint : this->d;
	this->mt = this->n == 1 ? this->mt->mnt_parent : this->mt;
	this->n = this->n == 1 ? 0 : this->n;
	this->n = this->d != this->mt->mnt.mnt_root || this->n == 2 ? this->n :
	    this->mt->mnt_parent == this->mt ? 2 : 1;
	this->mnt = this->n == 0 ? strjoin("/", strjoin(stringof(this->d->d_name.name), this->mnt)) :
	    this->mnt;
	this->d = this->n == 0 ? this->d->d_parent : this->n == 1 ? this->mt->mnt_mountpoint : this->d;
	this->mt = this->n == 1 ? this->mt->mnt_parent : this->mt;
	this->n = this->n == 1 ? 0 : this->n;
	this->n = this->d != this->mt->mnt.mnt_root || this->n == 2 ? this->n :
	    this->mt->mnt_parent == this->mt ? 2 : 1;
	this->mnt = this->n == 0 ? strjoin("/", strjoin(stringof(this->d->d_name.name), this->mnt)) :
	    this->mnt;
	this->d = this->n == 0 ? this->d->d_parent : this->n == 1 ? this->mt->mnt_mountpoint : this->d;
	this->mt = this->n == 1 ? this->mt->mnt_parent : this->mt;
	this->n = this->n == 1 ? 0 : this->n;
	this->n = this->d == this->mt->mnt.mnt_root && this->mt->mnt_parent == this->mt ? 2 : this->n;
	this->mnt = this->n == 2 ? this->mnt : "";
}

/* ---- one line for each fact: docs/dtrace-protocol.md -------------------------------------------- */

fbt::ext4_finish_bio:entry,
fbt::ext4_end_io_end:entry,
fbt::folio_end_writeback:entry,
fbt::iomap_finish_ioend:entry,
fbt::iomap_finish_ioend_buffered:entry,
fbt::iomap_finish_ioend_buffered_write:entry,
rawtp:::btrfs_ordered_extent_remove,
fbt::__filemap_set_wb_err:entry,
rawtp:::mm_filemap_delete_from_page_cache,
rawtp:::writeback_dirty_folio,
fbt::truncate_inode_pages_range:entry,
fbt::__x64_sys_fallocate:return,
fbt::evict:entry,
fbt::__x64_sys_msync:return,
fbt::__x64_sys_fsync:return,
fbt::__x64_sys_fdatasync:return,
rawtp:::file_check_and_advance_wb_err,
fbt::security_file_open:entry
/facts != 0 && this->i != NULL && this->what != 0 && this->what != FOLLOW/
{
	line_of[cpu]++;
	@lines[cpu] = count();
}

fbt::ext4_finish_bio:entry,
fbt::ext4_end_io_end:entry,
fbt::folio_end_writeback:entry,
fbt::iomap_finish_ioend:entry,
fbt::iomap_finish_ioend_buffered:entry,
fbt::iomap_finish_ioend_buffered_write:entry,
rawtp:::btrfs_ordered_extent_remove,
fbt::__filemap_set_wb_err:entry
/facts != 0 && this->i != NULL && this->what == FAILED/
{
	printf("mst1\t%d\t%d\t%d\tfailed\tfs=%S\tfsid=%016x%016x\tino=%d\tgen=%d\tsubvol=%d\tdev=%S\tmnt=\tpath=%S\tbelow=1\tnlink=%d\toff=%d\tlen=%d\terrno=%d\tstate=lost\tsubmitted=0\tpid=%d\ttid=%d\tuid=%d\tcomm=%S\tkernel=%d\tbegan=%d\t.\n",
	    cpu, line_of[cpu], this->now, stringof(this->sb->s_type->name), htonll(this->uuid[0]), htonll(this->uuid[1]),
	    this->i->i_ino, this->i->i_generation, this->subvol, stringof(this->sb->s_id), this->path,
	    this->i->i_nlink,
	    this->from, this->to - this->from, this->errno,
	    pid, tid, uid, execname, (curthread->flags & PF_KTHREAD) != 0 ? 1 : 0, curthread->group_leader->start_time);
}

fbt::ext4_finish_bio:entry,
fbt::folio_end_writeback:entry,
fbt::iomap_finish_ioend:entry,
fbt::iomap_finish_ioend_buffered:entry,
fbt::iomap_finish_ioend_buffered_write:entry,
rawtp:::btrfs_ordered_extent_remove,
rawtp:::mm_filemap_delete_from_page_cache,
rawtp:::writeback_dirty_folio,
fbt::truncate_inode_pages_range:entry,
fbt::__x64_sys_fallocate:return
/facts != 0 && this->i != NULL && this->what >= WROTE && this->what <= EVICTED/
{
	printf("mst1\t%d\t%d\t%d\t%s\tfs=%S\tfsid=%016x%016x\tino=%d\tgen=%d\tsubvol=%d\tdev=%S\tmnt=\tpath=\tbelow=0\tnlink=%d\toff=%d\tlen=%d\t.\n",
	    cpu, line_of[cpu], this->now, this->what == WROTE ? "wrote" :
	    this->what == DIRTY ? "dirty" : this->what == CUT ? "cut" : "evicted",
	    stringof(this->sb->s_type->name), htonll(this->uuid[0]), htonll(this->uuid[1]),
	    this->i->i_ino, this->i->i_generation, this->subvol, stringof(this->sb->s_id),
	    this->i->i_nlink,
	    this->from, this->to - this->from);
}

fbt::evict:entry
/facts != 0 && this->i != NULL && this->what == GONE/
{
	printf("mst1\t%d\t%d\t%d\tgone\tfs=%S\tfsid=%016x%016x\tino=%d\tgen=%d\tsubvol=%d\tdev=%S\tmnt=\tpath=\tbelow=0\tnlink=%d\tdeleted=%d\t.\n",
	    cpu, line_of[cpu], this->now, stringof(this->sb->s_type->name), htonll(this->uuid[0]), htonll(this->uuid[1]),
	    this->i->i_ino, this->i->i_generation, this->subvol, stringof(this->sb->s_id),
	    this->i->i_nlink,
	    this->i->i_nlink == 0 ? 1 : 0);
}

fbt::__x64_sys_msync:return,
fbt::__x64_sys_fsync:return,
fbt::__x64_sys_fdatasync:return
/facts != 0 && this->i != NULL && this->what == SYNC/
{
	printf("mst1\t%d\t%d\t%d\tsync\tfs=%S\tfsid=%016x%016x\tino=%d\tgen=%d\tsubvol=%d\tdev=%S\tmnt=%S\tpath=%S\tbelow=1\tnlink=%d\tcall=%s\tid=%d\toff=%d\tlen=%d\terrno=%d\tfile=%d\tpending=%d\tpid=%d\ttid=%d\tuid=%d\tcomm=%S\tkernel=%d\tbegan=%d\t.\n",
	    cpu, line_of[cpu], this->now, stringof(this->sb->s_type->name), htonll(this->uuid[0]), htonll(this->uuid[1]),
	    this->i->i_ino, this->i->i_generation, this->subvol, stringof(this->sb->s_id), this->mnt, this->path,
	    this->i->i_nlink,
	    this->call == 1 ? "msync" : this->call == 2 ? "fsync" : "fdatasync",
	    (uint64_t)tid << 40 | (this->now & 0xffffffffff), this->from, this->to - this->from,
	    this->errno, this->file, this->pending,
	    pid, tid, uid, execname, (curthread->flags & PF_KTHREAD) != 0 ? 1 : 0, curthread->group_leader->start_time);
}

rawtp:::file_check_and_advance_wb_err
/facts != 0 && this->i != NULL && this->what == TOLD/
{
	printf("mst1\t%d\t%d\t%d\ttold\tfs=%S\tfsid=%016x%016x\tino=%d\tgen=%d\tsubvol=%d\tdev=%S\tmnt=\tpath=\tbelow=0\tnlink=%d\tfile=%d\terrno=%d\tpid=%d\ttid=%d\tuid=%d\tcomm=%S\tkernel=%d\tbegan=%d\t.\n",
	    cpu, line_of[cpu], this->now, stringof(this->sb->s_type->name), htonll(this->uuid[0]), htonll(this->uuid[1]),
	    this->i->i_ino, this->i->i_generation, this->subvol, stringof(this->sb->s_id),
	    this->i->i_nlink, this->file, this->errno,
	    pid, tid, uid, execname, (curthread->flags & PF_KTHREAD) != 0 ? 1 : 0, curthread->group_leader->start_time);
}

fbt::security_file_open:entry
/facts != 0 && this->i != NULL && this->what == OPENED/
{
	printf("mst1\t%d\t%d\t%d\topened\tfs=%S\tfsid=%016x%016x\tino=%d\tgen=%d\tsubvol=%d\tdev=%S\tmnt=\tpath=\tbelow=0\tnlink=%d\tfile=%d\t.\n",
	    cpu, line_of[cpu], this->now, stringof(this->sb->s_type->name), htonll(this->uuid[0]), htonll(this->uuid[1]),
	    this->i->i_ino, this->i->i_generation, this->subvol, stringof(this->sb->s_id),
	    this->i->i_nlink, this->file);
}

/* ---- one line for each incident ------------------------------------------------------------------ */

/* Where it is not known which bytes failed, any of them may be lost. */
fbt::ext4_finish_bio:entry,
fbt::ext4_end_io_end:entry,
fbt::folio_end_writeback:entry,
fbt::iomap_finish_ioend:entry,
fbt::iomap_finish_ioend_buffered:entry,
fbt::iomap_finish_ioend_buffered_write:entry,
rawtp:::btrfs_ordered_extent_remove,
fbt::__filemap_set_wb_err:entry
/facts == 0 && this->i != NULL && this->what == FAILED/
{
	this->to = this->to == 0 ? TO_END : this->to;
	this->hi = lost_to[this->key];
	lost_since[this->key] = this->hi == 0 ? this->now : lost_since[this->key];
	lost_from[this->key] = this->hi == 0 || this->from < lost_from[this->key] ? this->from :
	    lost_from[this->key];
	lost_to[this->key] = this->to > this->hi ? this->to : this->hi;
	lost_errno[this->key] = this->errno;
}

/* What was written or cut is taken from both ends. */
fbt::ext4_finish_bio:entry,
fbt::folio_end_writeback:entry,
fbt::iomap_finish_ioend:entry,
fbt::iomap_finish_ioend_buffered:entry,
fbt::iomap_finish_ioend_buffered_write:entry,
rawtp:::btrfs_ordered_extent_remove,
rawtp:::mm_filemap_delete_from_page_cache,
fbt::truncate_inode_pages_range:entry,
fbt::__x64_sys_fallocate:return
/facts == 0 && this->i != NULL && (this->what == WROTE || this->what == CUT)/
{
	this->lo = lost_from[this->key];
	this->hi = lost_to[this->key];
	this->last = this->to >= this->hi && this->from < this->hi ? this->from : this->hi;
	this->lo = this->from <= this->lo && this->to > this->lo ? this->to : this->lo;
	lost_from[this->key] = this->lo < this->last ? this->lo : 0;
	lost_to[this->key] = this->lo < this->last ? this->last : 0;
}

fbt::evict:entry
/this->i != NULL && this->what == GONE && this->i->i_nlink == 0/
{
	known[this->key] = 0;
	exact_at[this->key] = 0;
	lost_from[this->key] = 0;
	lost_to[this->key] = 0;
	lost_since[this->key] = 0;
	lost_errno[this->key] = 0;
	told_any[this->key] = 0;
}

rawtp:::file_check_and_advance_wb_err
/facts == 0 && this->i != NULL && this->what == TOLD/
{
	told_any[this->key] = this->now;
	told_file[this->key ^ this->file] = this->now;
}

fbt::security_file_open:entry
/facts == 0 && this->i != NULL && this->what == OPENED/
{
	told_file[this->key ^ this->file] = 0;
}

fbt::__x64_sys_msync:return,
fbt::__x64_sys_fsync:return,
fbt::__x64_sys_fdatasync:return
/facts == 0 && this->i != NULL && this->what == SYNC && this->errno == 0 && lost_to[this->key] != 0/
{
	this->lo = lost_from[this->key];
	this->hi = lost_to[this->key];
	this->seen = lost_since[this->key];
	this->w_told = this->pending != 0 ? "pending" :
	    told_file[this->key ^ this->file] >= this->seen ? "caller" :
	    told_any[this->key] >= this->seen ? "other" : "nobody";
	this->w_cover = this->from <= this->lo && this->to >= this->hi ? "inside" :
	    this->from < this->hi && this->to > this->lo ? "partly" : "outside";
	this->errno = lost_errno[this->key];
	this->what = said[this->key ^ pid * 0x9e3779b97f4a7c15] == this->seen ? 0 : INCIDENT;
	said[this->key ^ pid * 0x9e3779b97f4a7c15] = this->seen;
}

fbt::__x64_sys_msync:return,
fbt::__x64_sys_fsync:return,
fbt::__x64_sys_fdatasync:return
/facts == 0 && this->i != NULL && this->what == INCIDENT/
{
	printf("%-20Y %6d %-18S %-9s %-9s %-7s %-7s %-7s %12d %10d %10d %S %S\n",
	    walltimestamp, pid, execname,
	    this->call == 1 ? "msync" : this->call == 2 ? "fsync" : "fdatasync",
	    this->errno == 5 ? "EIO" : this->errno == 28 ? "ENOSPC" : this->errno == 122 ? "EDQUOT" :
	    lltostr(this->errno), "lost", this->w_told, this->w_cover, this->lo,
	    this->hi - this->lo, this->i->i_ino, stringof(this->sb->s_id), this->path);
}
