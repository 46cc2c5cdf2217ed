//! One IORING_OP_FSYNC, with the three system calls alone.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

const ENTRIES: u32 = 2;
const IORING_OP_FSYNC: u8 = 3;
const IORING_ENTER_GETEVENTS: u32 = 1;
const IORING_OFF_SQ_RING: i64 = 0;
const IORING_OFF_CQ_RING: i64 = 0x0800_0000;
const IORING_OFF_SQES: i64 = 0x1000_0000;
const RING_BYTES: usize = 4096;

/// `struct io_uring_params` with its two offset tables.
#[repr(C)]
#[derive(Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    /// head, tail, ring_mask, ring_entries, flags, dropped, array, resv1, user_addr
    sq: [u32; 10],
    /// head, tail, ring_mask, ring_entries, overflow, cqes, flags, resv1, user_addr
    cq: [u32; 10],
}

const TAIL: usize = 1;
const SQ_ARRAY: usize = 6;
const CQ_CQES: usize = 5;

/// `struct io_uring_sqe`, as far as fsync needs it.
#[repr(C)]
struct Submission {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    rest: [u64; 7],
}

/// The errno that the fsync ended with; an error if io_uring itself cannot be used here.
pub fn fsync(fd: i32) -> io::Result<i32> {
    let mut params = Params::default();
    // SAFETY: params is an io_uring_params of the right size.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, &raw mut params) };
    if ring < 0 {
        return Err(io::Error::last_os_error());
    }
    let ring = ring as i32;
    let result = submit_and_wait(ring, &params, fd);
    // SAFETY: the ring is ours; its mappings live on until this short-lived process ends.
    unsafe { libc::close(ring) };
    result
}

fn submit_and_wait(ring: i32, params: &Params, fd: i32) -> io::Result<i32> {
    let sq = map(ring, IORING_OFF_SQ_RING)?;
    let cq = map(ring, IORING_OFF_CQ_RING)?;
    let sqes = map(ring, IORING_OFF_SQES)?.cast::<Submission>();
    let submission = Submission {
        opcode: IORING_OP_FSYNC,
        flags: 0,
        ioprio: 0,
        fd,
        rest: [0; 7],
    };
    // SAFETY: the offsets come from the kernel and lie inside the first page of each mapping, as
    // the rings have two entries.
    unsafe {
        sqes.write(submission);
        sq.add(params.sq[SQ_ARRAY] as usize).cast::<u32>().write(0);
        let tail = &*sq.add(params.sq[TAIL] as usize).cast::<AtomicU32>();
        tail.store(1, Ordering::Release);
        let flags = IORING_ENTER_GETEVENTS;
        if libc::syscall(libc::SYS_io_uring_enter, ring, 1, 1, flags, 0, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        let tail = &*cq.add(params.cq[TAIL] as usize).cast::<AtomicU32>();
        if tail.load(Ordering::Acquire) == 0 {
            return Err(io::Error::other("no completion"));
        }
        // struct io_uring_cqe: user_data (8 bytes), res (4 bytes)
        let result = cq.add(params.cq[CQ_CQES] as usize + 8).cast::<i32>().read();
        Ok(-result)
    }
}

fn map(ring: i32, offset: i64) -> io::Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    // SAFETY: a new mapping at a place of the kernel's choice.
    let place = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            RING_BYTES,
            protection,
            flags,
            ring,
            offset,
        )
    };
    if place == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(place.cast())
    }
}
