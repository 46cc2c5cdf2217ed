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
inline uint64_t PAGE = 4096;
inline uint64_t STRUCT_PAGE = 64;
inline uint64_t TO_END = 0x7fffffffffffffff;
/* An error that a hook of its filesystem saw is not told a second time within so many ns. */
inline uint64_t SAME_FAILURE = 2000000000;

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

/* The argument: 1 for the line protocol. */
int facts;
/* 1 from the first failure on. */
int watching;
/* Errors of this script: what was seen then is not told. */
int faults;
int faults_said;
/* Lines of a CPU so far. */
uint64_t line_of[int];
/* Files with failures, by key: the address of the inode, until it leaves memory 1. */
uint64_t inode_of[uint64_t];
/* When a hook that knows the bytes saw a failure of this file. */
uint64_t exact_at[uint64_t];
/* What is lost of a file, for the readable line: one range around all of it. */
uint64_t lost_from[uint64_t];
uint64_t lost_to[uint64_t];
uint64_t lost_since[uint64_t];
int lost_errno[uint64_t];
/* When anybody was told, and when this open file was, by key and file. */
uint64_t told_any[uint64_t];
uint64_t told_file[uint64_t];
/* When this process was last reported, by key and pid. */
uint64_t said[uint64_t];

/* The call that a thread is in: which, the file asked for, the range. */
self int call;
self uint64_t file;
self uint64_t from;
self uint64_t to;
/* ext4: the folios of this mapping whose write-back ends now are in a bio of this outcome. */
self uint64_t walk_mapping;
self uint64_t walk_from;
self uint64_t walk_to;
self int walk_errno;

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
this int what;
this int errno;
this int call;
this int pending;
this uint64_t from;
this uint64_t to;
this uint64_t file;
this uint64_t page;
this uint64_t info;
this uint64_t head;
this uint64_t last;
this uint64_t *uuid;
this uint64_t key;
this uint64_t now;
this string path;
this string told;

dtrace:::BEGIN
{
	facts = $$1 == "facts" ? 1 : 0;
	watching = 0;
}

dtrace:::BEGIN
/facts/
{
	line_of[cpu] = 1;
	@lines[cpu] = count();
	printf("mst1\t%d\t1\t%d\tstart\tos=%S\trelease=%S\tscript=%S\tpage=%d\twall_ns=%d\twindow_ns=%d\t.\n",
	    cpu, timestamp, "Linux", stringof(((struct uts_namespace *)&`init_uts_ns)->name.release), "1", PAGE, walltimestamp,
	    2000000000);
}

dtrace:::BEGIN
/!facts/
{
	printf("%-20s %7s %-15s %-9s %-16s %-8s %8s %-19s %-7s %s\n", "TIME", "PID", "EXECNAME",
	    "CALL", "DEVICE", "TOLD", "INODE", "BYTES", "ERRNO", "FILE");
}

profile:::tick-1s
/facts/
{
	line_of[cpu]++;
	@lines[cpu] = count();
	printf("mst1\t%d\t%d\t%d\ttick\t.\n", cpu, line_of[cpu], timestamp);
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
/(watching || this->bio->bi_status != 0) && this->bio->bi_vcnt > 0/
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
	this->what = this->bio->bi_status != 0 ? FAILED : WROTE;
	this->errno = this->bio->bi_status != 0 && this->m != NULL ? this->m->wb_err & 0xfff : 0;
	this->page = (this->bio->bi_vcnt > 0 ? this->v[0].bv_len : 0) +
	    (this->bio->bi_vcnt > 1 ? this->v[1].bv_len : 0) +
	    (this->bio->bi_vcnt > 2 ? this->v[2].bv_len : 0) +
	    (this->bio->bi_vcnt > 3 ? this->v[3].bv_len : 0) +
	    (this->bio->bi_vcnt > 4 ? this->v[4].bv_len : 0) +
	    (this->bio->bi_vcnt > 5 ? this->v[5].bv_len : 0) +
	    (this->bio->bi_vcnt > 6 ? this->v[6].bv_len : 0) +
	    (this->bio->bi_vcnt > 7 ? this->v[7].bv_len : 0);
	self->walk_mapping = 0;
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

/* folio_end_writeback(struct folio *folio), all kernels. */
fbt::folio_end_writeback:entry
{
	this->i = NULL;
	this->what = 0;
}

fbt::folio_end_writeback:entry
/watching && self->walk_mapping != 0/
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

/* ---- every filesystem ------------------------------------------------------------------------ */

/*
 * __filemap_set_wb_err(struct address_space *mapping, int err), all kernels: an error is recorded.
 * If no hook above has seen it, it is not known which bytes it is about.
 */
fbt::__filemap_set_wb_err:entry
{
	this->i = ((struct address_space *)arg0)->host;
	this->what = FAILED;
	this->errno = -(int)arg1;
	this->from = 0;
	this->to = 0;
}

/* A file is told of an error; only if there is something new to tell. */
sdt:::file_check_and_advance_wb_err
{
	this->f = (struct file *)args[0];
	this->i = watching ? this->f->f_mapping->host : NULL;
	this->what = TOLD;
	this->errno = this->f->f_wb_err & 0xfff;
	this->file = (uint64_t)this->f;
	this->from = 0;
	this->to = 0;
}

/* security_file_open(struct file *file), all kernels: the file has its inode and its errseq. */
fbt::security_file_open:entry
{
	this->i = watching ? ((struct file *)arg0)->f_mapping->host : NULL;
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
	this->i = watching ? ((struct address_space *)arg0)->host : NULL;
	this->what = this->i != NULL && (this->i->i_count.counter != 0 || this->i->i_nlink == 0) ?
	    CUT : 0;
	this->errno = 0;
	this->from = (arg1 + PAGE - 1) / PAGE * PAGE;
	this->to = (int64_t)arg2 < 0 || arg2 >= TO_END ? TO_END : (arg2 + 1) / PAGE * PAGE;
	this->what = this->from < this->to ? this->what : 0;
}

/* A folio leaves the page cache, or becomes dirty: the first argument is the folio. */
rawtp:::mm_filemap_delete_from_page_cache,
rawtp:::writeback_dirty_folio
{
	this->folio = (struct folio *)arg0;
	this->m = watching ? this->folio->mapping : NULL;
	this->i = this->m != NULL && ((uint64_t)this->m & 3) == 0 ? this->m->host : NULL;
	this->what = probename == "writeback_dirty_folio" ? DIRTY : EVICTED;
	this->errno = 0;
	this->from = 0;
	this->to = 0;
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
	this->i = watching ? (struct inode *)arg0 : NULL;
	this->what = GONE;
	this->errno = 0;
	this->from = 0;
	this->to = 0;
}

/* ---- sync calls ------------------------------------------------------------------------------ */

syscall::msync:entry
/arg2 & MS_SYNC/
{
	self->call = 1;
}

/*
 * vfs_fsync_range(struct file *file, loff_t start, loff_t end, int datasync), all kernels: once for
 * each mapping in the range of an msync.
 */
fbt::vfs_fsync_range:entry
/self->call == 1/
{
	self->from = arg0 == self->file && arg1 == self->to ? self->from : arg1;
	self->to = arg2 + 1;
	self->file = arg0;
}

syscall::fsync:entry
{
	self->call = 2;
	self->file = (uint64_t)curthread->files->fdt->fd[arg0];
	self->from = 0;
	self->to = TO_END;
}

syscall::fdatasync:entry
{
	self->call = 3;
	self->file = (uint64_t)curthread->files->fdt->fd[arg0];
	self->from = 0;
	self->to = TO_END;
}

syscall::msync:return,
syscall::fsync:return,
syscall::fdatasync:return
{
	this->f = (struct file *)self->file;
	this->i = watching && this->f != NULL ? this->f->f_mapping->host : NULL;
	this->what = SYNC;
	this->call = self->call;
	this->file = self->file;
	this->from = self->from;
	this->to = self->to;
	this->errno = (int)arg1 < 0 ? errno : 0;
	this->pending = this->i != NULL && this->f->f_wb_err != this->f->f_mapping->wb_err ? 1 : 0;
	self->call = 0;
	self->file = 0;
	self->from = 0;
	self->to = 0;
}

/* ---- which file ------------------------------------------------------------------------------ */

fbt::ext4_end_bio:entry,
fbt::ext4_finish_bio:entry,
fbt::folio_end_writeback:entry,
fbt::__filemap_set_wb_err:entry,
fbt::security_file_open:entry,
fbt::truncate_inode_pages_range:entry,
fbt::evict:entry,
rawtp:::mm_filemap_delete_from_page_cache,
rawtp:::writeback_dirty_folio,
sdt:::file_check_and_advance_wb_err,
syscall::msync:return,
syscall::fsync:return,
syscall::fdatasync:return
/this->i != NULL && this->what != 0/
{
	this->sb = this->i->i_sb;
	this->uuid = (uint64_t *)&this->sb->s_uuid;
	this->key = this->uuid[0] ^ this->uuid[1] ^
	    ((this->uuid[0] | this->uuid[1]) != 0 ? 0 : this->sb->s_dev) ^
	    this->i->i_ino * 0x9e3779b97f4a7c15 ^ this->i->i_generation * 0xc2b2ae3d27d4eb4f;
	this->now = timestamp;
	this->what = (this->i->i_mode & S_IFMT) != S_IFREG ? 0 :
	    this->what == FAILED || this->what == FOLLOW || inode_of[this->key] != 0 ?
	    this->what : 0;
	this->what = this->what == FAILED && this->to == 0 &&
	    this->now - exact_at[this->key] < SAME_FAILURE ? 0 : this->what;
}

/* A failure: from here on the file is followed. */
fbt::ext4_end_bio:entry,
fbt::ext4_finish_bio:entry,
fbt::folio_end_writeback:entry,
fbt::__filemap_set_wb_err:entry
/this->i != NULL && (this->what == FAILED || this->what == FOLLOW)/
{
	watching = 1;
	inode_of[this->key] = (uint64_t)this->i;
	exact_at[this->key] = this->what == FOLLOW || this->to != 0 ? this->now : 0;
}

/* The path below the root of the filesystem, eight names deep at most. */
fbt::ext4_finish_bio:entry,
fbt::folio_end_writeback:entry,
fbt::__filemap_set_wb_err:entry,
fbt::security_file_open:entry,
fbt::truncate_inode_pages_range:entry,
fbt::evict:entry,
rawtp:::mm_filemap_delete_from_page_cache,
rawtp:::writeback_dirty_folio,
sdt:::file_check_and_advance_wb_err,
syscall::msync:return,
syscall::fsync:return,
syscall::fdatasync:return
/this->i != NULL && this->what != 0 && this->what != FOLLOW/
{
	this->d = this->i->i_dentry.first == NULL ? NULL : (struct dentry *)
	    ((uint64_t)this->i->i_dentry.first - offsetof(struct dentry, d_u));
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
}

/* ---- what is said ---------------------------------------------------------------------------- */

fbt::ext4_finish_bio:entry,
fbt::folio_end_writeback:entry,
fbt::__filemap_set_wb_err:entry,
fbt::security_file_open:entry,
fbt::truncate_inode_pages_range:entry,
fbt::evict:entry,
rawtp:::mm_filemap_delete_from_page_cache,
rawtp:::writeback_dirty_folio,
sdt:::file_check_and_advance_wb_err,
syscall::msync:return,
syscall::fsync:return,
syscall::fdatasync:return
/facts && this->i != NULL && this->what != 0 && this->what != FOLLOW/
{
	line_of[cpu]++;
	@lines[cpu] = count();
	printf("mst1\t%d\t%d\t%d\t%s\tfs=%S\tfsid=%016x%016x\tino=%d\tgen=%d\tsubvol=%d\tdev=%S\tmnt=\tpath=%S\tbelow=1\tnlink=%d\toff=%d\tlen=%d\terrno=%d\tstate=lost\tsubmitted=0\tcall=%s\tid=%d\tfile=%d\tpending=%d\tdeleted=%d\tpid=%d\ttid=%d\tuid=%d\tcomm=%S\tkernel=%d\tbegan=%d\t.\n",
	    cpu, line_of[cpu], this->now,
	    this->what == FAILED ? "failed" : this->what == WROTE ? "wrote" :
	    this->what == DIRTY ? "dirty" : this->what == CUT ? "cut" :
	    this->what == EVICTED ? "evicted" : this->what == GONE ? "gone" :
	    this->what == SYNC ? "sync" : this->what == TOLD ? "told" : "opened",
	    stringof(this->sb->s_type->name), htonll(this->uuid[0]), htonll(this->uuid[1]),
	    this->i->i_ino, this->i->i_generation, 0,
	    stringof(this->sb->s_id), this->path, this->i->i_nlink, this->from, this->to - this->from,
	    this->errno, this->call == 1 ? "msync" : this->call == 2 ? "fsync" : "fdatasync",
	    (uint64_t)tid << 40 | (this->now & 0xffffffffff), this->file, this->pending,
	    this->i->i_nlink == 0 ? 1 : 0,
	    pid, tid, uid, execname, (curthread->flags & PF_KTHREAD) != 0 ? 1 : 0,
	    curthread->group_leader->start_time);
}

fbt::evict:entry
/this->i != NULL && this->what == GONE/
{
	inode_of[this->key] = this->i->i_nlink == 0 ? 0 : 1;
}

/* Too deep in the kernel's stack for more than this; the next tick or the end says it. */
dtrace:::ERROR
{
	faults++;
}

profile:::tick-1s,
dtrace:::END
/facts && faults != faults_said/
{
	line_of[cpu]++;
	@lines[cpu] = count();
	printf("mst1\t%d\t%d\t%d\tlost\tcause=%S\tcount=%d\t.\n", cpu, line_of[cpu], timestamp,
	    "probe_error", faults - faults_said);
	faults_said = faults;
}

dtrace:::END
/facts/
{
	printa("mst1\t-\t0\t0\tlines\tstream=%d\tcount=%@d\t.\n", @lines);
	printf("mst1\t-\t0\t%d\tstop\t.\n", timestamp);
}
