#!/usr/sbin/dtrace -s
/*
 * msync-trace.d - who was told by msync(2) that data is safe which the kernel could not write.
 *                 For FreeBSD. Written using DTrace.
 *
 * Usage:	dtrace -s msync-trace.d			one line per incident
 *		dtrace -s msync-trace.d facts		one line per fact, for msync-trace
 *
 * As root. The file as it stands is for FreeBSD 15.1 and later. On 13, 14 and 15.0 start it with
 * the shell script msync-trace beside it, which puts the two names of those releases in:
 *
 *		./msync-trace [-x option] ... [facts]
 *
 * Columns of the first form:
 *
 *	TIME	when the call came back, or when the write failed (STATE late)
 *	PID	process that was given the false success
 *	COMM	its name
 *	CALL	msync, fsync or fdatasync
 *	ERR	the error of the write, which the call did not return
 *	STATE	lost: memory holds the bytes as clean, or dropped them
 *		pending: they are dirty, and the kernel will try again
 *		late: lost after the call that had said they were written
 *	TOLD	who was given an error before: nobody, other (process), caller (this process), or
 *		pending: NFS still holds the error, the next fsync, close or whole msync gets it
 *	COVER	is the range inside, partly in or outside of what the call was asked to write
 *	OFFSET	first byte that was not written
 *	LENGTH	how many, at most: one range for each file and state
 *	INODE	inode number, or the address of the vnode
 *	MOUNT	where the filesystem is mounted
 *	FILE	path below MOUNT, or as it was opened
 *
 * COMM, MOUNT and FILE are printed by %S, so no name can break a line: a newline in a name is \n,
 * and each ends with \0, which %S appends. The second form is described in docs/dtrace-protocol.md.
 *
 * What it looks at: the results of VOP_PUTPAGES, the writes of buffers (bufdone; on NFS ncl_doio
 * and ncl_writerpc), msync, fsync, fdatasync and close, truncation, reclaim of vnodes.
 *
 * Limits. Errors that write(2) returns are not followed, so TOLD can say nobody. An msync over
 * several files is reported by file, and only the last knows the result of the whole call. The
 * range of a failed UFS write is the whole block. A page that is written while it fails on the
 * network again is the same failure. MAP_PRIVATE memory that was never stored to looks like the
 * file. A rate of failures that outruns the buffers is said by dtrace on standard error ("drops").
 * README.md has more.
 *
 * Overhead on a healthy system: two memory accesses for each finished buffer write, and for each
 * file that grows, vnode that is reclaimed and close(2); a thread-local variable for each open(2)
 * and for each run of up to 32 pages that is paged out; one variable for each dirty buffer of a
 * file that is mapped for writing; some for each msync(2) and fsync(2). Nothing is printed, but
 * with `facts` a line for each msync(2) of a regular file and one a second.
 *
 * Licence: MIT or Apache-2.0, as you choose.
 */

#pragma D option quiet
#pragma D option defaultargs
#pragma D option zdefs
#pragma D option strsize=512
#pragma D option dynvarsize=16m
#pragma D option bufsize=1m
#pragma D option switchrate=20hz

/* 1 with the argument `facts`. */
int facts;
/* Errors of this script itself. */
int faults;
/* Lines of each CPU, which is a stream. */
uint64_t n[int];

/*
 * What is known of a file, by the address of its vnode; by that of its VM object once the vnode is
 * reclaimed and memory is still mapped.
 */
int have[uint64_t];		/* there is something below */
int bad[uint64_t];		/* bytes of it are lost or pending */
uint64_t lostlo[uint64_t];	/* the lost ones lie in lostlo .. losthi */
uint64_t losthi[uint64_t];
uint64_t pendlo[uint64_t];	/* the pending ones */
uint64_t pendhi[uint64_t];
int ferr[uint64_t];		/* error of the last failure */
uint64_t fseq[uint64_t];	/* and its time */
int toldpid[uint64_t];		/* who was given an error since; -1: several */
int saidpid[uint64_t];		/* for whom an incident was printed last */
uint64_t saidseq[uint64_t];	/* and for which failure */
uint64_t okat[uint64_t];	/* last msync that succeeded: when, range, who */
uint64_t okoff[uint64_t];
uint64_t okend[uint64_t];
int okpid[uint64_t];
string okcomm[uint64_t];
string nm[uint64_t];		/* path as it was opened */
uint64_t fileid[uint64_t];	/* inode number by VOP_GETATTR */
int unl[uint64_t];		/* 1: a name of it was removed */
uint64_t objof[uint64_t];	/* VM object of a file with failures */

/* By the address of the VM object: a file whose vnode is reclaimed. */
int ghost[uint64_t];
uint64_t gino[uint64_t];
uint64_t gfsid[uint64_t];
int gbelow[uint64_t];
int gnlink[uint64_t];
string gfs[uint64_t];
string gdev[uint64_t];
string gmnt[uint64_t];
string gpath[uint64_t];
/* By the address of the reclaimed vnode: its VM object. */
uint64_t gobj[uint64_t];

/* By the address of a buffer: since when it is dirty or being written, and of which vnode. */
uint64_t since[uint64_t];
uint64_t sincevp[uint64_t];

/* msync(2): flags, identity of the call, vnode or VM object, range, result. */
self int ms;
self int mflags;
self uint64_t mid;
self uint64_t mk;
self int mghost;
self uint64_t mobj;
self uint64_t moff;
self uint64_t mend;
self int mcur;
self int mfail;
/* fsync(2) and fdatasync(2): which, identity of the call, vnode or VM object. */
self int fy;
self uint64_t fid;
self uint64_t fk;
self int fghost;
/* close(2) that may return an error of this vnode. */
self uint64_t ck;
self int cerr;
/* open(2): where the path is. */
self uint64_t pa;
/* mmap(2) that shares and writes. */
self int mm;
/* A page-out of this thread, and the error of VOP_WRITE in it. */
self int pp;
self int perr;
/* Pages that a page-out dropped: vnode, range, error. */
self uint64_t bk;
self uint64_t boff;
self uint64_t blen;
self int berr;
/* A write of the NFS client: buffer, range, whether it was sent, error. */
self uint64_t doio;
self uint64_t doff;
self uint64_t dend;
self int rpc;
self int werr;

/*
 * What the clauses of one probe hand to each other. `ev`: 1 a write failed, 2 one succeeded, 3 the
 * file was cut, 4 the vnode goes, 5 a sync call came back, 6 somebody else was told, 0 nothing.
 */
this int ev;
this uint64_t k;
this int ghosted;
this uint64_t off;
this uint64_t len;
this uint64_t end;
this int err;
this int lost;
this uint64_t sub;
this uint64_t id;
this int called;
this int fresh;
this int late;
this int hit;
this uint64_t lo;
this uint64_t hi;
this uint64_t nlo;
this uint64_t nhi;
this uint64_t ino;
this uint64_t fsid;
this int below;
this int nlink;
this int nwe;
this int kernel;
this uint64_t began;
this string fs;
this string dev;
this string mnt;
this string path;
this string w_call;
this string w_event;
this string w_err;
this string w_state;
this string w_told;
this string w_cover;
/* The way up to the root of the filesystem. */
this uint64_t nc;
this string name;
this string way;
this int go;
this int top;
/* msync's next object. */
this uint64_t mk;
this uint64_t mo;
this int mdead;
/* The pages of a page-out, as bits. */
this int pages;
this int zfs;
this int pend;
this uint64_t eb;
this uint64_t bb;
this uint64_t low;
this uint64_t above;
this uint64_t first;
this uint64_t past;
this uint64_t mb;

BEGIN
{
	facts = $$1 == "facts" ? 1 : 0;
	faults = 0;
}

BEGIN
/facts == 0/
{
	printf("%-20s %6s %-18s %-9s %-9s %-7s %-7s %-7s %12s %10s %10s %s %s\n", "TIME", "PID",
	    "COMM", "CALL", "ERR", "STATE", "TOLD", "COVER", "OFFSET", "LENGTH", "INODE", "MOUNT",
	    "FILE");
}

BEGIN
/facts != 0/
{
	n[cpu] = n[cpu] + 1;
	@lines[cpu] = count();
	printf("mst1\t%d\t%d\t%d\tstart\tos=FreeBSD\trelease=%S\tscript=1\tpage=4096\twall_ns=%d\twindow_ns=300000000\t.\n",
	    cpu, n[cpu], timestamp, $$2, walltimestamp);
}

tick-1s
/facts != 0/
{
	n[cpu] = n[cpu] + 1;
	@lines[cpu] = count();
	printf("mst1\t%d\t%d\t%d\ttick\t.\n", cpu, n[cpu], timestamp);
}

ERROR
{
	faults = faults + 1;
}

ERROR
/facts != 0/
{
	n[cpu] = n[cpu] + 1;
	@lines[cpu] = count();
	printf("mst1\t%d\t%d\t%d\tlost\tcause=probe_error\tcount=1\t.\n", cpu, n[cpu], timestamp);
}

END
/facts != 0/
{
	printa("mst1\t-\t0\t0\tlines\tstream=%d\tcount=%@d\t.\n", @lines);
	printf("mst1\t-\t0\t%d\tstop\t.\n", timestamp);
}

END
/facts == 0/
{
	printf("%s\n", faults != 0 ?
	    "incomplete: an error in this script hid something, see standard error" :
	    "no error in this script; drops are said on standard error");
}

/*
 * Names. A file that was just created is not in the name cache, so the path that it was opened by
 * is kept while it is open for writing or mapped. The string is read once namei has been through
 * it, when it is certainly in memory.
 */
syscall::open:entry
{
	self->pa = (uint64_t)arg0;
}

syscall::openat:entry
{
	self->pa = (uint64_t)arg1;
}

vfs:vop:vop_open:return
/self->pa != 0 && (int)arg2 == 0 && (args[1]->a_mode & 2) != 0 &&
    ((uint64_t)args[0]->v_cache_dst.tqh_first == 0) && (args[0]->v_type & 0xff) == 1/
{
	nm[(uint64_t)arg0] = copyinstr(self->pa);
	have[(uint64_t)arg0] = 1;
}

syscall::open:return, syscall::openat:return
/self->pa != 0/
{
	self->pa = 0;
}

vfs:vop:vop_close:return
/have[(uint64_t)arg0] != 0 && bad[(uint64_t)arg0] == 0 && nm[(uint64_t)arg0] != NULL &&
    ((uint64_t)args[0]->v_bufobj.bo_object == 0 ||
    args[0]->v_bufobj.bo_object->un_pager.vnp.writemappings == 0)/
{
	nm[(uint64_t)arg0] = 0;
	have[(uint64_t)arg0] = fileid[(uint64_t)arg0] != 0 || okat[(uint64_t)arg0] != 0 ? 1 : 0;
}

/* The inode number where no type of the filesystem is at hand: mmap asks for it. */
syscall::mmap:entry
/(arg2 & 2) != 0 && (arg3 & 1) != 0/
{
	self->mm = 1;
}

vfs:vop:vop_getattr:return
/self->mm != 0 && (int)arg2 == 0 && fileid[(uint64_t)arg0] == 0 && args[0]->v_mount != NULL &&
    stringof(args[0]->v_mount->mnt_stat.f_fstypename) != "ufs" &&
    stringof(args[0]->v_mount->mnt_stat.f_fstypename) != "nfs"/
{
	fileid[(uint64_t)arg0] = (uint64_t)args[1]->a_vap->va_fileid;
	have[(uint64_t)arg0] = 1;
}

syscall::mmap:return
/self->mm != 0/
{
	self->mm = 0;
}

vfs:vop:vop_remove:return
/(int)arg2 == 0 && bad[(uint64_t)args[1]->a_vp] != 0/
{
	unl[(uint64_t)args[1]->a_vp] = 1;
}

vfs:vop:vop_rename:return
/(int)arg2 == 0 && (uint64_t)args[1]->a_tvp != 0 && bad[(uint64_t)args[1]->a_tvp] != 0/
{
	unl[(uint64_t)args[1]->a_tvp] = 1;
}

/*
 * Since when a buffer of a file that is mapped for writing is dirty (0x80: it was before) or being
 * written: a write that fails later can make an msync in between false.
 */
fbt::bdwrite:entry, fbt::bufwrite:entry, fbt::ncl_writebp:entry
/(((struct buf *)arg0)->b_flags & 0x80) == 0 && ((struct buf *)arg0)->b_vp != NULL &&
    (((struct buf *)arg0)->b_vp->v_type & 0xff) == 1 &&
    (uint64_t)((struct buf *)arg0)->b_vp->v_bufobj.bo_object != 0 &&
    ((struct buf *)arg0)->b_vp->v_bufobj.bo_object->un_pager.vnp.writemappings != 0/
{
	since[(uint64_t)arg0] = timestamp;
	sincevp[(uint64_t)arg0] = (uint64_t)((struct buf *)arg0)->b_vp;
}

/* Nothing has happened yet in this firing. */
fbt::bufdone:entry,
vfs:vop:vop_putpages:return,
fbt::vnode_pager_putpages:return,
fbt::vnode_pager_setsize:entry,
vfs:vop:vop_reclaim:entry,
fbt::vm_object_sync:entry,
syscall::msync:return,
syscall::fsync:return,
syscall::fdatasync:return,
syscall::close:return
{
	this->ev = 0;
}

/*
 * A page-out. Pages by result: 0 written or in a buffer, whose own write is followed below; 1
 * beyond the end of the file, marked clean; 2 and 4 not written, still dirty; 3 ZFS will say.
 */
vfs:vop:vop_putpages:entry
{
	self->pp = 1;
}

vfs:vop:vop_write:return
/(int)arg2 != 0 && self->pp != 0/
{
	self->perr = (int)arg2;
}

vfs:vop:vop_putpages:return
/self->pp != 0/
{
	this->a = args[1];
	this->pages = this->a->a_count / 4096;
	this->rt = this->a->a_rtvals;
	this->zfs = args[0]->v_mount != NULL &&
	    stringof(args[0]->v_mount->mnt_stat.f_fstypename) == "zfs" ? 1 : 0;
	/* ZFS gave up on pages for which it promised an answer. */
	this->pend = this->zfs != 0 && (int)arg2 > 5 ? 3 : 4;
	this->eb =
	    ((uint64_t)(this->pages > 0 ? (this->rt[0] == 4 || this->rt[0] == 2 || this->rt[0] == this->pend) : 0) << 0)
	    | ((uint64_t)(this->pages > 1 ? (this->rt[1] == 4 || this->rt[1] == 2 || this->rt[1] == this->pend) : 0) << 1)
	    | ((uint64_t)(this->pages > 2 ? (this->rt[2] == 4 || this->rt[2] == 2 || this->rt[2] == this->pend) : 0) << 2)
	    | ((uint64_t)(this->pages > 3 ? (this->rt[3] == 4 || this->rt[3] == 2 || this->rt[3] == this->pend) : 0) << 3)
	    | ((uint64_t)(this->pages > 4 ? (this->rt[4] == 4 || this->rt[4] == 2 || this->rt[4] == this->pend) : 0) << 4)
	    | ((uint64_t)(this->pages > 5 ? (this->rt[5] == 4 || this->rt[5] == 2 || this->rt[5] == this->pend) : 0) << 5)
	    | ((uint64_t)(this->pages > 6 ? (this->rt[6] == 4 || this->rt[6] == 2 || this->rt[6] == this->pend) : 0) << 6)
	    | ((uint64_t)(this->pages > 7 ? (this->rt[7] == 4 || this->rt[7] == 2 || this->rt[7] == this->pend) : 0) << 7)
	    | ((uint64_t)(this->pages > 8 ? (this->rt[8] == 4 || this->rt[8] == 2 || this->rt[8] == this->pend) : 0) << 8)
	    | ((uint64_t)(this->pages > 9 ? (this->rt[9] == 4 || this->rt[9] == 2 || this->rt[9] == this->pend) : 0) << 9)
	    | ((uint64_t)(this->pages > 10 ? (this->rt[10] == 4 || this->rt[10] == 2 || this->rt[10] == this->pend) : 0) << 10)
	    | ((uint64_t)(this->pages > 11 ? (this->rt[11] == 4 || this->rt[11] == 2 || this->rt[11] == this->pend) : 0) << 11)
	    | ((uint64_t)(this->pages > 12 ? (this->rt[12] == 4 || this->rt[12] == 2 || this->rt[12] == this->pend) : 0) << 12)
	    | ((uint64_t)(this->pages > 13 ? (this->rt[13] == 4 || this->rt[13] == 2 || this->rt[13] == this->pend) : 0) << 13)
	    | ((uint64_t)(this->pages > 14 ? (this->rt[14] == 4 || this->rt[14] == 2 || this->rt[14] == this->pend) : 0) << 14)
	    | ((uint64_t)(this->pages > 15 ? (this->rt[15] == 4 || this->rt[15] == 2 || this->rt[15] == this->pend) : 0) << 15)
	    | ((uint64_t)(this->pages > 16 ? (this->rt[16] == 4 || this->rt[16] == 2 || this->rt[16] == this->pend) : 0) << 16)
	    | ((uint64_t)(this->pages > 17 ? (this->rt[17] == 4 || this->rt[17] == 2 || this->rt[17] == this->pend) : 0) << 17)
	    | ((uint64_t)(this->pages > 18 ? (this->rt[18] == 4 || this->rt[18] == 2 || this->rt[18] == this->pend) : 0) << 18)
	    | ((uint64_t)(this->pages > 19 ? (this->rt[19] == 4 || this->rt[19] == 2 || this->rt[19] == this->pend) : 0) << 19)
	    | ((uint64_t)(this->pages > 20 ? (this->rt[20] == 4 || this->rt[20] == 2 || this->rt[20] == this->pend) : 0) << 20)
	    | ((uint64_t)(this->pages > 21 ? (this->rt[21] == 4 || this->rt[21] == 2 || this->rt[21] == this->pend) : 0) << 21)
	    | ((uint64_t)(this->pages > 22 ? (this->rt[22] == 4 || this->rt[22] == 2 || this->rt[22] == this->pend) : 0) << 22)
	    | ((uint64_t)(this->pages > 23 ? (this->rt[23] == 4 || this->rt[23] == 2 || this->rt[23] == this->pend) : 0) << 23)
	    | ((uint64_t)(this->pages > 24 ? (this->rt[24] == 4 || this->rt[24] == 2 || this->rt[24] == this->pend) : 0) << 24)
	    | ((uint64_t)(this->pages > 25 ? (this->rt[25] == 4 || this->rt[25] == 2 || this->rt[25] == this->pend) : 0) << 25)
	    | ((uint64_t)(this->pages > 26 ? (this->rt[26] == 4 || this->rt[26] == 2 || this->rt[26] == this->pend) : 0) << 26)
	    | ((uint64_t)(this->pages > 27 ? (this->rt[27] == 4 || this->rt[27] == 2 || this->rt[27] == this->pend) : 0) << 27)
	    | ((uint64_t)(this->pages > 28 ? (this->rt[28] == 4 || this->rt[28] == 2 || this->rt[28] == this->pend) : 0) << 28)
	    | ((uint64_t)(this->pages > 29 ? (this->rt[29] == 4 || this->rt[29] == 2 || this->rt[29] == this->pend) : 0) << 29)
	    | ((uint64_t)(this->pages > 30 ? (this->rt[30] == 4 || this->rt[30] == 2 || this->rt[30] == this->pend) : 0) << 30)
	    | ((uint64_t)(this->pages > 31 ? (this->rt[31] == 4 || this->rt[31] == 2 || this->rt[31] == this->pend) : 0) << 31);
	this->bb =
	    ((uint64_t)(this->pages > 0 ? (this->rt[0] == 1) : 0) << 0)
	    | ((uint64_t)(this->pages > 1 ? (this->rt[1] == 1) : 0) << 1)
	    | ((uint64_t)(this->pages > 2 ? (this->rt[2] == 1) : 0) << 2)
	    | ((uint64_t)(this->pages > 3 ? (this->rt[3] == 1) : 0) << 3)
	    | ((uint64_t)(this->pages > 4 ? (this->rt[4] == 1) : 0) << 4)
	    | ((uint64_t)(this->pages > 5 ? (this->rt[5] == 1) : 0) << 5)
	    | ((uint64_t)(this->pages > 6 ? (this->rt[6] == 1) : 0) << 6)
	    | ((uint64_t)(this->pages > 7 ? (this->rt[7] == 1) : 0) << 7)
	    | ((uint64_t)(this->pages > 8 ? (this->rt[8] == 1) : 0) << 8)
	    | ((uint64_t)(this->pages > 9 ? (this->rt[9] == 1) : 0) << 9)
	    | ((uint64_t)(this->pages > 10 ? (this->rt[10] == 1) : 0) << 10)
	    | ((uint64_t)(this->pages > 11 ? (this->rt[11] == 1) : 0) << 11)
	    | ((uint64_t)(this->pages > 12 ? (this->rt[12] == 1) : 0) << 12)
	    | ((uint64_t)(this->pages > 13 ? (this->rt[13] == 1) : 0) << 13)
	    | ((uint64_t)(this->pages > 14 ? (this->rt[14] == 1) : 0) << 14)
	    | ((uint64_t)(this->pages > 15 ? (this->rt[15] == 1) : 0) << 15)
	    | ((uint64_t)(this->pages > 16 ? (this->rt[16] == 1) : 0) << 16)
	    | ((uint64_t)(this->pages > 17 ? (this->rt[17] == 1) : 0) << 17)
	    | ((uint64_t)(this->pages > 18 ? (this->rt[18] == 1) : 0) << 18)
	    | ((uint64_t)(this->pages > 19 ? (this->rt[19] == 1) : 0) << 19)
	    | ((uint64_t)(this->pages > 20 ? (this->rt[20] == 1) : 0) << 20)
	    | ((uint64_t)(this->pages > 21 ? (this->rt[21] == 1) : 0) << 21)
	    | ((uint64_t)(this->pages > 22 ? (this->rt[22] == 1) : 0) << 22)
	    | ((uint64_t)(this->pages > 23 ? (this->rt[23] == 1) : 0) << 23)
	    | ((uint64_t)(this->pages > 24 ? (this->rt[24] == 1) : 0) << 24)
	    | ((uint64_t)(this->pages > 25 ? (this->rt[25] == 1) : 0) << 25)
	    | ((uint64_t)(this->pages > 26 ? (this->rt[26] == 1) : 0) << 26)
	    | ((uint64_t)(this->pages > 27 ? (this->rt[27] == 1) : 0) << 27)
	    | ((uint64_t)(this->pages > 28 ? (this->rt[28] == 1) : 0) << 28)
	    | ((uint64_t)(this->pages > 29 ? (this->rt[29] == 1) : 0) << 29)
	    | ((uint64_t)(this->pages > 30 ? (this->rt[30] == 1) : 0) << 30)
	    | ((uint64_t)(this->pages > 31 ? (this->rt[31] == 1) : 0) << 31);
}

/* From bits to a range of pages: the lowest, and the one after the highest. */
vfs:vop:vop_putpages:return
/self->pp != 0 && this->eb != 0/
{
	this->mb = this->eb | (this->eb >> 1);
	this->mb = this->mb | (this->mb >> 2);
	this->mb = this->mb | (this->mb >> 4);
	this->mb = this->mb | (this->mb >> 8);
	this->mb = this->mb | (this->mb >> 16);
	this->above = this->mb + 1;
	this->low = this->eb & (~this->eb + 1);
	this->first = ((this->low & 0xffff0000) != 0 ? 16 : 0) +
	    ((this->low & 0xff00ff00) != 0 ? 8 : 0) + ((this->low & 0xf0f0f0f0) != 0 ? 4 : 0) +
	    ((this->low & 0xcccccccc) != 0 ? 2 : 0) + ((this->low & 0xaaaaaaaa) != 0 ? 1 : 0);
	this->past = ((this->above >> 32) != 0 ? 32 : 0) +
	    ((this->above & 0xffff0000) != 0 ? 16 : 0) +
	    ((this->above & 0xff00ff00) != 0 ? 8 : 0) + ((this->above & 0xf0f0f0f0) != 0 ? 4 : 0) +
	    ((this->above & 0xcccccccc) != 0 ? 2 : 0) + ((this->above & 0xaaaaaaaa) != 0 ? 1 : 0);
}

/* A page that is clean all the same went down with its buffer, which was reported. */
vfs:vop:vop_putpages:return
/self->pp != 0 && this->eb != 0 && this->a->a_m[this->first]->dirty != 0/
{
	this->ev = 1;
	this->k = (uint64_t)args[0];
	this->ghosted = 0;
	this->off = (this->a->a_m[0]->pindex + this->first) * 4096;
	this->len = (this->past - this->first) * 4096;
	this->err = self->perr != 0 ? self->perr : this->pend == 3 ? (int)arg2 : 5;
	this->lost = 0;
	this->sub = 0;
}

/* No buffer says that ZFS wrote them. */
vfs:vop:vop_putpages:return
/self->pp != 0 && this->eb == 0 && this->bb == 0 && this->zfs != 0 && (int)arg2 == 0 &&
    bad[(uint64_t)args[0]] != 0 && this->pages > 0/
{
	this->ev = 2;
	this->k = (uint64_t)args[0];
	this->ghosted = 0;
	this->off = this->a->a_m[0]->pindex * 4096;
	this->len = (uint64_t)this->pages * 4096;
}

/* Pages marked clean without a write are told of when the pager returns. */
vfs:vop:vop_putpages:return
/self->pp != 0 && this->bb != 0/
{
	this->mb = this->bb | (this->bb >> 1);
	this->mb = this->mb | (this->mb >> 2);
	this->mb = this->mb | (this->mb >> 4);
	this->mb = this->mb | (this->mb >> 8);
	this->mb = this->mb | (this->mb >> 16);
	this->above = this->mb + 1;
	this->low = this->bb & (~this->bb + 1);
	this->first = ((this->low & 0xffff0000) != 0 ? 16 : 0) +
	    ((this->low & 0xff00ff00) != 0 ? 8 : 0) + ((this->low & 0xf0f0f0f0) != 0 ? 4 : 0) +
	    ((this->low & 0xcccccccc) != 0 ? 2 : 0) + ((this->low & 0xaaaaaaaa) != 0 ? 1 : 0);
	this->past = ((this->above >> 32) != 0 ? 32 : 0) +
	    ((this->above & 0xffff0000) != 0 ? 16 : 0) +
	    ((this->above & 0xff00ff00) != 0 ? 8 : 0) + ((this->above & 0xf0f0f0f0) != 0 ? 4 : 0) +
	    ((this->above & 0xcccccccc) != 0 ? 2 : 0) + ((this->above & 0xaaaaaaaa) != 0 ? 1 : 0);
	self->bk = (uint64_t)args[0];
	self->boff = (this->a->a_m[0]->pindex + this->first) * 4096;
	self->blen = (this->past - this->first) * 4096;
	self->berr = self->perr != 0 ? self->perr : 5;
}

fbt::vnode_pager_putpages:return
/self->bk != 0/
{
	this->ev = 1;
	this->k = self->bk;
	this->ghosted = 0;
	this->off = self->boff;
	this->len = self->blen;
	this->err = self->berr;
	this->lost = 1;
	this->sub = 0;
}

/*
 * NFS. When bufdone comes ncl_doio has forgotten which bytes it wrote, and it hides the errors
 * after which it tries again (4 EINTR, 5 EIO, 60 ETIMEDOUT).
 */
fbt::ncl_doio:entry
/((struct buf *)arg1)->b_iocmd == 2/
{
	self->doio = (uint64_t)arg1;
	self->doff = (uint64_t)((struct buf *)arg1)->b_offset +
	    (uint64_t)((struct buf *)arg1)->b_dirtyoff;
	self->dend = (uint64_t)((struct buf *)arg1)->b_offset +
	    (uint64_t)((struct buf *)arg1)->b_dirtyend;
}

fbt::ncl_writerpc:return
/self->doio != 0/
{
	self->rpc = 1;
	self->werr = (int)arg1;
}

fbt::bufdone:entry
/args[0]->b_iocmd == 2 && self->doio != 0 && self->doio == (uint64_t)arg0 && self->rpc != 0 &&
    args[0]->b_vp != NULL && (args[0]->b_vp->v_type & 0xff) == 1 && self->dend > self->doff &&
    (self->werr != 0 || bad[(uint64_t)args[0]->b_vp] != 0)/
{
	this->ev = self->werr != 0 ? 1 : 2;
	this->k = (uint64_t)args[0]->b_vp;
	this->ghosted = 0;
	this->off = self->doff;
	this->len = self->dend - self->doff;
	this->err = self->werr;
	this->lost = self->werr == 4 || self->werr == 5 || self->werr == 60 ? 0 : 1;
	this->sub = sincevp[(uint64_t)arg0] == this->k ? since[(uint64_t)arg0] : 0;
}

fbt::ncl_doio:return
/self->doio != 0/
{
	self->doio = 0;
	self->doff = 0;
	self->dend = 0;
	self->rpc = 0;
	self->werr = 0;
}

/*
 * The other filesystems with buffers. A write that failed (0x1000: BIO_ERROR) and that brelse will
 * not mark dirty again is lost: 0x2000 B_INVAL, 0x40000 B_INVALONERR, 6 ENXIO. A negative offset
 * is a block of block numbers. 0x40000000 B_CLUSTER: the buffers in it come one by one.
 */
fbt::bufdone:entry
/args[0]->b_iocmd == 2 && (args[0]->b_ioflags & 0x1000 /* BIO_ERROR */) != 0 && self->doio == 0 &&
    args[0]->b_vp != NULL && (args[0]->b_vp->v_type & 0xff) == 1 && args[0]->b_offset >= 0 &&
    (args[0]->b_flags & 0x40000000) == 0/
{
	this->ev = 1;
	this->k = (uint64_t)args[0]->b_vp;
	this->ghosted = 0;
	this->off = (uint64_t)args[0]->b_offset;
	this->len = (uint64_t)args[0]->b_bcount;
	this->err = args[0]->b_exterr.error /* b_error */;
	this->err = this->err != 0 ? this->err : 5;
	this->lost = (args[0]->b_flags & 0x42000) != 0 || this->err == 6 ? 1 : 0;
	this->sub = sincevp[(uint64_t)arg0] == this->k ? since[(uint64_t)arg0] : 0;
}

/* 0x80: dirty again, so it was no success. What NFS commits was written before. */
fbt::bufdone:entry
/args[0]->b_iocmd == 2 && (args[0]->b_ioflags & 0x1000 /* BIO_ERROR */) == 0 &&
    args[0]->b_vp != NULL && bad[(uint64_t)args[0]->b_vp] != 0 && self->doio == 0 &&
    args[0]->b_offset >= 0 && (args[0]->b_flags & 0x40000080) == 0 &&
    args[0]->b_vp->v_mount != NULL &&
    stringof(args[0]->b_vp->v_mount->mnt_stat.f_fstypename) != "nfs"/
{
	this->ev = 2;
	this->k = (uint64_t)args[0]->b_vp;
	this->ghosted = 0;
	this->off = (uint64_t)args[0]->b_offset;
	this->len = (uint64_t)args[0]->b_bcount;
}

/* Truncated, or grown: there is nothing beyond the new size either way. */
fbt::vnode_pager_setsize:entry
/bad[(uint64_t)arg0] != 0/
{
	this->ev = 3;
	this->k = (uint64_t)arg0;
	this->ghosted = 0;
	this->off = (uint64_t)arg1;
	this->len = 0x7fffffffffffffff - this->off;
}

vfs:vop:vop_reclaim:entry
/bad[(uint64_t)arg0] != 0/
{
	this->ev = 4;
	this->k = (uint64_t)arg0;
	this->ghosted = 0;
}

/*
 * msync(2). Each object of the range comes by; the one before is told of when another comes, the
 * last when the call returns. 2: of a vnode; 5: dead, its vnode was reclaimed under the mapping.
 */
syscall::msync:entry
{
	self->ms = 1;
	self->mflags = (int)arg2;
	self->mid = timestamp;
}

fbt::vm_object_sync:entry
/self->ms != 0 && args[0] != NULL && (args[0]->type & 0xff) != 5 && ghost[(uint64_t)arg0] != 0/
{
	ghost[(uint64_t)arg0] = 0;
}

fbt::vm_object_sync:entry
/self->ms != 0 && args[0] != NULL/
{
	this->o = args[0];
	this->mo = (uint64_t)this->o;
	this->mdead = (this->o->type & 0xff) == 5 && ghost[this->mo] != 0 ? 1 : 0;
	this->mk = (this->o->type & 0xff) == 2 ? (uint64_t)this->o->handle :
	    this->mdead != 0 ? this->mo : 0;
	this->mk = this->mk == 0 || this->mdead != 0 ? this->mk :
	    (((struct vnode *)this->mk)->v_type & 0xff) == 1 ? this->mk : 0;
	self->mcur = this->mk != 0 ? 1 : 0;
}

fbt::vm_object_sync:entry
/self->ms != 0 && args[0] != NULL && this->mk != 0 && self->mk != 0 && self->mk != this->mk &&
    (self->mghost != 0 || ((struct vnode *)self->mk)->v_mount != NULL)/
{
	this->ev = 5;
	this->k = self->mk;
	this->ghosted = self->mghost;
	this->off = self->moff;
	this->end = self->mend;
	this->err = self->mfail != 0 ? 5 : 0;
	this->id = self->mid;
	this->called = (self->mflags & 1) != 0 ? 2 : 1;
}

fbt::vm_object_sync:entry
/self->ms != 0 && args[0] != NULL && this->mk != 0/
{
	self->moff = self->mk == this->mk && self->moff < (uint64_t)arg1 ? self->moff :
	    (uint64_t)arg1;
	self->mend = self->mk == this->mk && self->mend > (uint64_t)arg1 + (uint64_t)arg2 ?
	    self->mend : (uint64_t)arg1 + (uint64_t)arg2;
	self->mfail = self->mk == this->mk ? self->mfail : 0;
	self->mk = this->mk;
	self->mghost = this->mdead;
	self->mobj = this->mo;
}

fbt::vm_object_sync:return
/self->ms != 0 && self->mcur != 0 && ((int)arg1 & 0xff) == 0/
{
	self->mfail = 1;
}

/* The vnode can have been reclaimed while its pages were written. */
syscall::msync:return
/self->ms != 0 && self->mk != 0/
{
	this->ghosted = ghost[self->mobj] != 0 ? 1 : 0;
	this->k = this->ghosted != 0 ? self->mobj : self->mk;
	this->ev = this->ghosted != 0 || ((struct vnode *)this->k)->v_mount != NULL ? 5 : 0;
	this->off = self->moff;
	this->end = self->mend;
	this->err = (int)arg0 == 0 ? 0 : errno;
	this->id = self->mid;
	this->called = (self->mflags & 1) != 0 ? 2 : 1;
}

/*
 * fsync(2) and fdatasync(2), of files with failures. A vnode without a mount point was reclaimed
 * under the file descriptor.
 */
syscall::fsync:entry
{
	self->fy = 3;
	self->fid = timestamp;
}

syscall::fdatasync:entry
{
	self->fy = 4;
	self->fid = timestamp;
}

vfs:vop:vop_fsync:return, vfs:vop:vop_fdatasync:return
/self->fy != 0 && bad[(uint64_t)arg0] != 0/
{
	self->fk = (uint64_t)arg0;
	self->fghost = 0;
}

vfs:vop:vop_fsync:return, vfs:vop:vop_fdatasync:return
/self->fy != 0 && gobj[(uint64_t)arg0] != 0 && ghost[gobj[(uint64_t)arg0]] != 0 &&
    ((struct vnode *)arg0)->v_mount == NULL/
{
	self->fk = gobj[(uint64_t)arg0];
	self->fghost = 1;
}

syscall::fsync:return, syscall::fdatasync:return
/self->fy != 0 && self->fk != 0/
{
	this->ev = self->fghost != 0 || ((struct vnode *)self->fk)->v_mount != NULL ? 5 : 0;
	this->k = self->fk;
	this->ghosted = self->fghost;
	this->off = 0;
	this->end = 0x7fffffffffffffff;
	this->err = (int)arg0 == 0 ? 0 : errno;
	this->id = self->fid;
	this->called = self->fy;
}

/* close(2) can be the one that is given the error. */
vfs:vop:vop_close:return
/(int)arg2 != 0 && bad[(uint64_t)arg0] != 0/
{
	self->ck = (uint64_t)arg0;
	self->cerr = (int)arg2;
}

syscall::close:return
/self->ck != 0 && (int)arg0 != 0 && errno == self->cerr && bad[self->ck] != 0/
{
	this->ev = 6;
	this->k = self->ck;
	this->ghosted = 0;
	this->err = self->cerr;
}

/* Of a sync call: a range that reaches the end of what can be said is cut there. */
syscall::msync:return, syscall::fsync:return, syscall::fdatasync:return, fbt::vm_object_sync:entry
/this->ev == 5/
{
	this->end = this->end > 0x7fffffffffffffff ? 0x7fffffffffffffff : this->end;
	this->len = this->end > this->off ? this->end - this->off : 0;
	this->w_call = this->called == 1 ? "msync" : this->called == 2 ? "msync_async" :
	    this->called == 3 ? "fsync" : "fdatasync";
}

/* A promise that a later failure can make false. */
syscall::msync:return, fbt::vm_object_sync:entry
/facts == 0 && this->ev == 5 && this->called == 1 && this->err == 0 && this->ghosted == 0/
{
	okat[this->k] = timestamp;
	okoff[this->k] = this->off;
	okend[this->k] = this->end;
	okpid[this->k] = pid;
	okcomm[this->k] = execname;
	have[this->k] = 1;
}

/* Of files without failures only MS_SYNC is told of, and only to msync-trace. */
syscall::msync:return, fbt::vm_object_sync:entry
/this->ev == 5 && bad[this->k] == 0 && (facts == 0 || this->called == 2)/
{
	this->ev = 0;
}

/* Which file: from the vnode. */
fbt::bufdone:entry,
vfs:vop:vop_putpages:return,
fbt::vnode_pager_putpages:return,
fbt::vnode_pager_setsize:entry,
vfs:vop:vop_reclaim:entry,
fbt::vm_object_sync:entry,
syscall::msync:return,
syscall::fsync:return,
syscall::fdatasync:return,
syscall::close:return
/this->ev != 0 && this->ghosted == 0/
{
	this->v = (struct vnode *)this->k;
	this->mp = this->v->v_mount;
	this->fs = this->mp != NULL ? stringof(this->mp->mnt_stat.f_fstypename) : "";
	this->dev = this->mp != NULL ? stringof(this->mp->mnt_stat.f_mntfromname) : "";
	this->mnt = this->mp != NULL ? stringof(this->mp->mnt_stat.f_mntonname) : "";
	this->fsid = this->mp != NULL ?
	    ((uint64_t)(uint32_t)this->mp->mnt_stat.f_fsid.val[0] << 32) |
	    (uint64_t)(uint32_t)this->mp->mnt_stat.f_fsid.val[1] : 0;
	this->ino = fileid[this->k] != 0 ? fileid[this->k] : this->k;
	this->ino = this->fs == "ufs" && (uint64_t)this->v->v_data != 0 ?
	    (uint64_t)((struct inode *)this->v->v_data)->i_number : this->ino;
	this->ino = this->fs == "nfs" && (uint64_t)this->v->v_data != 0 ?
	    (uint64_t)((struct nfsnode *)this->v->v_data)->n_vattr.na_vattr.va_fileid : this->ino;
	this->nlink = unl[this->k] != 0 ? 0 : 1;
	this->nlink = this->fs == "ufs" && (uint64_t)this->v->v_data != 0 ?
	    ((struct inode *)this->v->v_data)->i_effnlink > 0 ? 1 : 0 : this->nlink;
	/* 8: NWRITEERR, an error that the next one to ask is given. */
	this->nwe = this->fs == "nfs" && (uint64_t)this->v->v_data != 0 ?
	    (((struct nfsnode *)this->v->v_data)->n_flag & 8) != 0 ? 1 : 0 : 0;
	this->d = this->v;
	this->way = "";
	this->top = 0;
	this->nc = this->top != 0 ? 0 : (uint64_t)this->d->v_cache_dst.tqh_first;
	this->name = this->nc != 0 ? stringof(((struct namecache *)this->nc)->nc_name) : "..";
	this->go = this->nc != 0 && this->name != ".." ? 1 : 0;
	this->way = this->go != 0 ? strjoin(strjoin("/", this->name), this->way) : this->way;
	this->d = this->go != 0 ? ((struct namecache *)this->nc)->nc_dvp : this->d;
	this->top = this->top != 0 ? this->top : this->go == 0 ? 2 : this->d->v_vflag & 1;

	this->nc = this->top != 0 ? 0 : (uint64_t)this->d->v_cache_dst.tqh_first;
	this->name = this->nc != 0 ? stringof(((struct namecache *)this->nc)->nc_name) : "..";
	this->go = this->nc != 0 && this->name != ".." ? 1 : 0;
	this->way = this->go != 0 ? strjoin(strjoin("/", this->name), this->way) : this->way;
	this->d = this->go != 0 ? ((struct namecache *)this->nc)->nc_dvp : this->d;
	this->top = this->top != 0 ? this->top : this->go == 0 ? 2 : this->d->v_vflag & 1;

	this->nc = this->top != 0 ? 0 : (uint64_t)this->d->v_cache_dst.tqh_first;
	this->name = this->nc != 0 ? stringof(((struct namecache *)this->nc)->nc_name) : "..";
	this->go = this->nc != 0 && this->name != ".." ? 1 : 0;
	this->way = this->go != 0 ? strjoin(strjoin("/", this->name), this->way) : this->way;
	this->d = this->go != 0 ? ((struct namecache *)this->nc)->nc_dvp : this->d;
	this->top = this->top != 0 ? this->top : this->go == 0 ? 2 : this->d->v_vflag & 1;

	this->nc = this->top != 0 ? 0 : (uint64_t)this->d->v_cache_dst.tqh_first;
	this->name = this->nc != 0 ? stringof(((struct namecache *)this->nc)->nc_name) : "..";
	this->go = this->nc != 0 && this->name != ".." ? 1 : 0;
	this->way = this->go != 0 ? strjoin(strjoin("/", this->name), this->way) : this->way;
	this->d = this->go != 0 ? ((struct namecache *)this->nc)->nc_dvp : this->d;
	this->top = this->top != 0 ? this->top : this->go == 0 ? 2 : this->d->v_vflag & 1;

	this->nc = this->top != 0 ? 0 : (uint64_t)this->d->v_cache_dst.tqh_first;
	this->name = this->nc != 0 ? stringof(((struct namecache *)this->nc)->nc_name) : "..";
	this->go = this->nc != 0 && this->name != ".." ? 1 : 0;
	this->way = this->go != 0 ? strjoin(strjoin("/", this->name), this->way) : this->way;
	this->d = this->go != 0 ? ((struct namecache *)this->nc)->nc_dvp : this->d;
	this->top = this->top != 0 ? this->top : this->go == 0 ? 2 : this->d->v_vflag & 1;

	this->nc = this->top != 0 ? 0 : (uint64_t)this->d->v_cache_dst.tqh_first;
	this->name = this->nc != 0 ? stringof(((struct namecache *)this->nc)->nc_name) : "..";
	this->go = this->nc != 0 && this->name != ".." ? 1 : 0;
	this->way = this->go != 0 ? strjoin(strjoin("/", this->name), this->way) : this->way;
	this->d = this->go != 0 ? ((struct namecache *)this->nc)->nc_dvp : this->d;
	this->top = this->top != 0 ? this->top : this->go == 0 ? 2 : this->d->v_vflag & 1;

	this->nc = this->top != 0 ? 0 : (uint64_t)this->d->v_cache_dst.tqh_first;
	this->name = this->nc != 0 ? stringof(((struct namecache *)this->nc)->nc_name) : "..";
	this->go = this->nc != 0 && this->name != ".." ? 1 : 0;
	this->way = this->go != 0 ? strjoin(strjoin("/", this->name), this->way) : this->way;
	this->d = this->go != 0 ? ((struct namecache *)this->nc)->nc_dvp : this->d;
	this->top = this->top != 0 ? this->top : this->go == 0 ? 2 : this->d->v_vflag & 1;

	this->nc = this->top != 0 ? 0 : (uint64_t)this->d->v_cache_dst.tqh_first;
	this->name = this->nc != 0 ? stringof(((struct namecache *)this->nc)->nc_name) : "..";
	this->go = this->nc != 0 && this->name != ".." ? 1 : 0;
	this->way = this->go != 0 ? strjoin(strjoin("/", this->name), this->way) : this->way;
	this->d = this->go != 0 ? ((struct namecache *)this->nc)->nc_dvp : this->d;
	this->top = this->top != 0 ? this->top : this->go == 0 ? 2 : this->d->v_vflag & 1;
	this->below = this->top == 1 ? 1 : 0;
	this->path = this->below != 0 ? this->way : nm[this->k] != NULL ? nm[this->k] : this->way;
}

/* Which file: from what was kept when its vnode went. */
fbt::bufdone:entry,
vfs:vop:vop_putpages:return,
fbt::vnode_pager_putpages:return,
fbt::vnode_pager_setsize:entry,
vfs:vop:vop_reclaim:entry,
fbt::vm_object_sync:entry,
syscall::msync:return,
syscall::fsync:return,
syscall::fdatasync:return,
syscall::close:return
/this->ev != 0 && this->ghosted != 0/
{
	this->fs = gfs[this->k];
	this->dev = gdev[this->k];
	this->mnt = gmnt[this->k];
	this->path = gpath[this->k];
	this->fsid = gfsid[this->k];
	this->ino = gino[this->k];
	this->below = gbelow[this->k];
	this->nlink = gnlink[this->k];
	this->nwe = 0;
}

/* Who. 4: P_KPROC. */
fbt::bufdone:entry,
vfs:vop:vop_putpages:return,
fbt::vnode_pager_putpages:return,
fbt::vnode_pager_setsize:entry,
vfs:vop:vop_reclaim:entry,
fbt::vm_object_sync:entry,
syscall::msync:return,
syscall::fsync:return,
syscall::fdatasync:return,
syscall::close:return
/this->ev != 0/
{
	this->t = curthread->td_proc;
	this->kernel = (this->t->p_flag & 4) != 0 ? 1 : 0;
	this->began = (uint64_t)this->t->p_stats->p_start.tv_sec * 1000000000 +
	    (uint64_t)this->t->p_stats->p_start.tv_usec * 1000;
	this->w_event = this->ev == 2 ? "wrote" : "cut";
	this->fresh = 0;
	this->late = 0;
	this->hit = 0;
}

/* A failure is remembered. What was pending and fails again is the same failure. */
fbt::bufdone:entry,
vfs:vop:vop_putpages:return,
fbt::vnode_pager_putpages:return
/this->ev == 1/
{
	this->end = this->off + this->len;
	this->fresh = this->lost != 0 || pendhi[this->k] == 0 || this->off < pendlo[this->k] ||
	    this->end > pendhi[this->k] ? 1 : 0;
	this->late = this->fresh != 0 && this->sub != 0 && okat[this->k] > this->sub &&
	    this->off < okend[this->k] && this->end > okoff[this->k] ? 1 : 0;
	have[this->k] = 1;
	bad[this->k] = 1;
	fileid[this->k] = this->ino;
	objof[this->k] = (uint64_t)((struct vnode *)this->k)->v_bufobj.bo_object;
	ferr[this->k] = this->err;
	fseq[this->k] = this->fresh != 0 ? timestamp : fseq[this->k];
	toldpid[this->k] = this->fresh != 0 ? 0 : toldpid[this->k];
}

fbt::bufdone:entry,
vfs:vop:vop_putpages:return,
fbt::vnode_pager_putpages:return
/this->ev == 1 && this->lost != 0/
{
	lostlo[this->k] = losthi[this->k] == 0 || this->off < lostlo[this->k] ? this->off :
	    lostlo[this->k];
	losthi[this->k] = this->end > losthi[this->k] ? this->end : losthi[this->k];
}

fbt::bufdone:entry,
vfs:vop:vop_putpages:return,
fbt::vnode_pager_putpages:return
/this->ev == 1 && this->lost == 0/
{
	pendlo[this->k] = pendhi[this->k] == 0 || this->off < pendlo[this->k] ? this->off :
	    pendlo[this->k];
	pendhi[this->k] = this->end > pendhi[this->k] ? this->end : pendhi[this->k];
}

/* What was written or cut off is taken from both ends of what is remembered. */
fbt::bufdone:entry,
vfs:vop:vop_putpages:return,
fbt::vnode_pager_setsize:entry
/this->ev == 2 || this->ev == 3/
{
	this->end = this->off + this->len;
	this->lo = lostlo[this->k];
	this->hi = losthi[this->k];
	this->nlo = this->off <= this->lo && this->end > this->lo ?
	    (this->end < this->hi ? this->end : this->hi) : this->lo;
	this->nhi = this->end >= this->hi && this->off < this->hi ?
	    (this->off > this->lo ? this->off : this->lo) : this->hi;
	lostlo[this->k] = this->nlo < this->nhi ? this->nlo : 0;
	losthi[this->k] = this->nlo < this->nhi ? this->nhi : 0;
	this->lo = pendlo[this->k];
	this->hi = pendhi[this->k];
	this->nlo = this->off <= this->lo && this->end > this->lo ?
	    (this->end < this->hi ? this->end : this->hi) : this->lo;
	this->nhi = this->end >= this->hi && this->off < this->hi ?
	    (this->off > this->lo ? this->off : this->lo) : this->hi;
	pendlo[this->k] = this->nlo < this->nhi ? this->nlo : 0;
	pendhi[this->k] = this->nlo < this->nhi ? this->nhi : 0;
	bad[this->k] = losthi[this->k] != 0 || pendhi[this->k] != 0 ? 1 : 0;
}

/* The facts, in the words of docs/dtrace-protocol.md. */
fbt::bufdone:entry,
vfs:vop:vop_putpages:return,
fbt::vnode_pager_putpages:return,
fbt::vnode_pager_setsize:entry,
vfs:vop:vop_reclaim:entry,
fbt::vm_object_sync:entry,
syscall::msync:return,
syscall::fsync:return,
syscall::fdatasync:return,
syscall::close:return
/facts != 0 && this->ev != 0/
{
	n[cpu] = n[cpu] + 1;
	@lines[cpu] = count();
}

fbt::bufdone:entry,
vfs:vop:vop_putpages:return,
fbt::vnode_pager_putpages:return
/facts != 0 && this->ev == 1/
{
	printf("mst1\t%d\t%d\t%d\tfailed\tfs=%S\tfsid=%016x\tino=%d\tgen=0\tdev=%S\tmnt=%S\tpath=%S\tbelow=%d\tnlink=%d\toff=%d\tlen=%d\terrno=%d\tstate=%s\tsubmitted=%d\tpid=%d\ttid=%d\tuid=%d\tcomm=%S\tkernel=%d\tbegan=%d\t.\n",
	    cpu, n[cpu], timestamp, this->fs, this->fsid, this->ino, this->dev, this->mnt,
	    this->path, this->below, this->nlink, this->off, this->len,
	    this->err, this->lost != 0 ? "lost" : "pending", this->sub, pid, tid, uid, execname, this->kernel, this->began);
}

fbt::bufdone:entry,
vfs:vop:vop_putpages:return,
fbt::vnode_pager_setsize:entry
/facts != 0 && (this->ev == 2 || this->ev == 3)/
{
	printf("mst1\t%d\t%d\t%d\t%s\tfs=%S\tfsid=%016x\tino=%d\tgen=0\tdev=%S\tmnt=%S\tpath=%S\tbelow=%d\tnlink=%d\toff=%d\tlen=%d\t.\n",
	    cpu, n[cpu], timestamp, this->w_event, this->fs, this->fsid, this->ino, this->dev, this->mnt,
	    this->path, this->below, this->nlink, this->off, this->len);
}

vfs:vop:vop_reclaim:entry
/facts != 0 && this->ev == 4/
{
	printf("mst1\t%d\t%d\t%d\tgone\tfs=%S\tfsid=%016x\tino=%d\tgen=0\tdev=%S\tmnt=%S\tpath=%S\tbelow=%d\tnlink=%d\tdeleted=%d\t.\n",
	    cpu, n[cpu], timestamp, this->fs, this->fsid, this->ino, this->dev, this->mnt,
	    this->path, this->below, this->nlink, this->nlink == 0 ? 1 : 0);
}

fbt::vm_object_sync:entry,
syscall::msync:return,
syscall::fsync:return,
syscall::fdatasync:return
/facts != 0 && this->ev == 5/
{
	printf("mst1\t%d\t%d\t%d\tsync\tfs=%S\tfsid=%016x\tino=%d\tgen=0\tdev=%S\tmnt=%S\tpath=%S\tbelow=%d\tnlink=%d\tcall=%s\tid=%d\toff=%d\tlen=%d\terrno=%d\tfile=%d\tpending=%d\tpid=%d\ttid=%d\tuid=%d\tcomm=%S\tkernel=%d\tbegan=%d\t.\n",
	    cpu, n[cpu], timestamp, this->fs, this->fsid, this->ino, this->dev, this->mnt,
	    this->path, this->below, this->nlink, this->w_call, this->id,
	    this->off, this->len, this->err, pid, this->nwe, pid, tid, uid, execname, this->kernel, this->began);
}

syscall::close:return
/facts != 0 && this->ev == 6/
{
	printf("mst1\t%d\t%d\t%d\ttold\tfs=%S\tfsid=%016x\tino=%d\tgen=0\tdev=%S\tmnt=%S\tpath=%S\tbelow=%d\tnlink=%d\tfile=%d\terrno=%d\tpid=%d\ttid=%d\tuid=%d\tcomm=%S\tkernel=%d\tbegan=%d\t.\n",
	    cpu, n[cpu], timestamp, this->fs, this->fsid, this->ino, this->dev, this->mnt,
	    this->path, this->below, this->nlink, pid, this->err, pid, tid, uid, execname, this->kernel, this->began);
}

/* An incident, for people: a success over bytes that are not written. */
fbt::vm_object_sync:entry,
syscall::msync:return,
syscall::fsync:return,
syscall::fdatasync:return
/facts == 0 && this->ev == 5 && this->err == 0 && this->called != 2 &&
    (losthi[this->k] != 0 || pendhi[this->k] != 0) &&
    (saidpid[this->k] != pid || saidseq[this->k] != fseq[this->k])/
{
	this->hit = 1;
	this->lo = losthi[this->k] != 0 ? lostlo[this->k] : pendlo[this->k];
	this->hi = losthi[this->k] != 0 ? losthi[this->k] : pendhi[this->k];
	this->w_state = losthi[this->k] != 0 ? "lost" : "pending";
	this->w_told = this->nwe != 0 ? "pending" : toldpid[this->k] == 0 ? "nobody" :
	    toldpid[this->k] == pid ? "caller" : "other";
	this->w_cover = this->off <= this->lo && this->end >= this->hi ? "inside" :
	    this->off < this->hi && this->end > this->lo ? "partly" : "outside";
	saidpid[this->k] = pid;
	saidseq[this->k] = fseq[this->k];
}

fbt::bufdone:entry,
vfs:vop:vop_putpages:return,
fbt::vnode_pager_putpages:return
/facts == 0 && this->ev == 1 && this->late != 0/
{
	this->lo = this->off;
	this->hi = this->end;
	this->w_state = this->lost != 0 ? "late" : "pending";
	this->w_told = this->nwe != 0 ? "pending" : "nobody";
	this->w_cover = okoff[this->k] <= this->lo && okend[this->k] >= this->hi ? "inside" : "partly";
	saidpid[this->k] = okpid[this->k];
	saidseq[this->k] = fseq[this->k];
}

fbt::bufdone:entry,
vfs:vop:vop_putpages:return,
fbt::vnode_pager_putpages:return,
fbt::vm_object_sync:entry,
syscall::msync:return,
syscall::fsync:return,
syscall::fdatasync:return
/this->ev != 0 && facts == 0 && (this->hit != 0 || this->late != 0)/
{
	this->err = ferr[this->k];
	this->w_err = this->err == 5 ? "EIO" : this->err == 6 ? "ENXIO" :
	    this->err == 13 ? "EACCES" : this->err == 28 ? "ENOSPC" : this->err == 30 ? "EROFS" :
	    this->err == 69 ? "EDQUOT" : this->err == 70 ? "ESTALE" : this->err == 60 ? "ETIMEDOUT" :
	    this->err == 27 ? "EFBIG" : lltostr((int64_t)this->err);
}

fbt::vm_object_sync:entry,
syscall::msync:return,
syscall::fsync:return,
syscall::fdatasync:return
/this->ev == 5 && facts == 0 && this->hit != 0/
{
	printf("%Y %6d %-18S %-9s %-9s %-7s %-7s %-7s %12d %10d %10d %S %S\n",
	    walltimestamp, pid, execname, this->w_call, this->w_err, this->w_state, this->w_told,
	    this->w_cover, this->lo, this->hi - this->lo, this->ino, this->mnt, this->path);
}

fbt::bufdone:entry,
vfs:vop:vop_putpages:return,
fbt::vnode_pager_putpages:return
/this->ev == 1 && facts == 0 && this->late != 0/
{
	printf("%Y %6d %-18S %-9s %-9s %-7s %-7s %-7s %12d %10d %10d %S %S\n",
	    walltimestamp, okpid[this->k], okcomm[this->k], "msync", this->w_err, this->w_state,
	    this->w_told, this->w_cover, this->lo, this->hi - this->lo, this->ino, this->mnt,
	    this->path);
}

/* Who was given the error. */
syscall::msync:return, syscall::fsync:return, syscall::fdatasync:return, syscall::close:return,
fbt::vm_object_sync:entry
/(this->ev == 5 || this->ev == 6) && this->err != 0 && this->hit == 0 && bad[this->k] != 0/
{
	toldpid[this->k] = toldpid[this->k] == 0 || toldpid[this->k] == pid ? pid : -1;
}

/* A vnode goes while its pages are mapped: msync on them will still say 0. */
vfs:vop:vop_reclaim:entry
/(uint64_t)args[0]->v_bufobj.bo_object != 0 && ghost[(uint64_t)args[0]->v_bufobj.bo_object] != 0/
{
	ghost[(uint64_t)args[0]->v_bufobj.bo_object] = 0;
}

vfs:vop:vop_reclaim:entry
/gobj[(uint64_t)arg0] != 0/
{
	gobj[(uint64_t)arg0] = 0;
}

vfs:vop:vop_reclaim:entry
/this->ev == 4 && this->nlink != 0 && objof[this->k] != 0/
{
	this->mo = objof[this->k];
	gobj[this->k] = this->mo;
	ghost[this->mo] = 1;
	gfs[this->mo] = this->fs;
	gdev[this->mo] = this->dev;
	gmnt[this->mo] = this->mnt;
	gpath[this->mo] = this->path;
	gfsid[this->mo] = this->fsid;
	gino[this->mo] = this->ino;
	gbelow[this->mo] = this->below;
	gnlink[this->mo] = this->nlink;
	bad[this->mo] = 1;
	lostlo[this->mo] = lostlo[this->k];
	losthi[this->mo] = losthi[this->k];
	pendlo[this->mo] = pendlo[this->k];
	pendhi[this->mo] = pendhi[this->k];
	ferr[this->mo] = ferr[this->k];
	fseq[this->mo] = fseq[this->k];
	toldpid[this->mo] = toldpid[this->k];
	saidpid[this->mo] = saidpid[this->k];
	saidseq[this->mo] = saidseq[this->k];
}

/* The next file at this address has nothing to do with it. */
vfs:vop:vop_reclaim:entry
/have[(uint64_t)arg0] != 0/
{
	this->k = (uint64_t)arg0;
	have[this->k] = 0;
	bad[this->k] = 0;
	lostlo[this->k] = 0;
	losthi[this->k] = 0;
	pendlo[this->k] = 0;
	pendhi[this->k] = 0;
	ferr[this->k] = 0;
	fseq[this->k] = 0;
	toldpid[this->k] = 0;
	saidpid[this->k] = 0;
	saidseq[this->k] = 0;
	okat[this->k] = 0;
	okoff[this->k] = 0;
	okend[this->k] = 0;
	okpid[this->k] = 0;
	okcomm[this->k] = 0;
	nm[this->k] = 0;
	fileid[this->k] = 0;
	unl[this->k] = 0;
	objof[this->k] = 0;
}

/* A buffer that is clean or dropped is not dirty any longer; one that will be tried again is. */
fbt::bufdone:entry
/args[0]->b_iocmd == 2 && since[(uint64_t)arg0] != 0 &&
    (args[0]->b_flags & 0x80) == 0 && (this->ev != 1 || this->lost != 0)/
{
	since[(uint64_t)arg0] = 0;
	sincevp[(uint64_t)arg0] = 0;
}

/* The variables of the thread. */
vfs:vop:vop_putpages:return
/self->pp != 0/
{
	self->pp = 0;
	self->perr = 0;
}

fbt::vnode_pager_putpages:return
/self->bk != 0/
{
	self->bk = 0;
	self->boff = 0;
	self->blen = 0;
	self->berr = 0;
}

syscall::msync:return
/self->ms != 0/
{
	self->ms = 0;
	self->mflags = 0;
	self->mid = 0;
	self->mk = 0;
	self->mghost = 0;
	self->mobj = 0;
	self->moff = 0;
	self->mend = 0;
	self->mcur = 0;
	self->mfail = 0;
}

syscall::fsync:return, syscall::fdatasync:return
/self->fy != 0/
{
	self->fy = 0;
	self->fid = 0;
	self->fk = 0;
	self->fghost = 0;
}

syscall::close:return
/self->ck != 0/
{
	self->ck = 0;
	self->cerr = 0;
}
